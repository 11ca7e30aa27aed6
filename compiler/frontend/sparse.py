"""Sparse tensors as ONNX stores them: the elements that are not zero, and where they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..build import FOLD_ELEMENTS
from ..graph import Const
from .files import shape_of, tensor_const

DENSE = FOLD_ELEMENTS  # elements of all sparse tensors of a model, written out


def is_sparse(tensor: Any) -> bool:
    """Return whether a tensor of a model is a SparseTensorProto."""
    return bool(tensor.DESCRIPTOR.name == "SparseTensorProto")


def dense_const(tensor: Any, folder: Path, room: int) -> Const:
    """Return a SparseTensorProto as a constant, written out when it is first read.

    Raises `UserError` for indices that do not fit the shape, and where it has more than `room` elements.
    """
    name = tensor.values.name or "constant"
    shape = shape_of(tensor.dims, name)
    values = tensor_const(tensor.values, folder, False)
    kind = TensorType(values.type.dtype, shape)
    if kind.size > room:
        raise UserError(f"sparse tensors, with %{name} : {kind}, have more than {DENSE} elements written out")
    places = _places(tensor_const(tensor.indices, folder, False).array(name), shape, name)
    if values.type.shape != places.shape:
        raise UserError(f"sparse tensor %{name} : {kind} has values {values.type} at {len(places)} places")

    def write_out() -> np.ndarray:
        out = np.zeros(kind.size, kind.dtype.numpy)
        out[places] = values.array(name)
        return out.reshape(shape)

    return Const(kind, write_out)


def _places(indices: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return the places of a sparse tensor's elements in its flat form, from either form of its indices."""
    fit = indices.dtype == np.int64 and (indices.ndim == 1 or indices.shape[1:] == (len(shape),))
    if not fit:
        right = f"int64[n] or int64[n,{len(shape)}]"
        raise UserError(
            f"sparse tensor %{name} has indices {indices.dtype}{list(indices.shape)} (right: {right})"
        )
    bounds = np.asarray([int(np.prod(shape))] if indices.ndim == 1 else shape)
    columns = indices.reshape(len(indices), len(bounds))
    if ((columns < 0) | (columns >= bounds)).any():
        raise UserError(f"sparse tensor %{name} has an index outside {list(shape)}")
    flat = indices if indices.ndim == 1 else columns @ _strides(shape)
    if len(np.unique(flat)) != len(flat):
        raise UserError(f"sparse tensor %{name} has two values at one place")
    return flat


def _strides(shape: tuple[int, ...]) -> np.ndarray:
    return np.cumprod([1, *shape[:0:-1]], dtype=np.int64)[::-1][: len(shape)]
