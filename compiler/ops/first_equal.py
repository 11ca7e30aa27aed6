"""Indices grouped by the row that they name."""

from __future__ import annotations

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import INT64, CopyWork, TensorType

from ..graph import Attrs
from .backward import flat
from .base import Array, Arrays, Count, Op, Types, array, index_dtype, integer, need, register
from .embedding_bag import rows_of


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    indices = need(types[0])
    index_dtype(indices)
    if indices.rank != 1 or integer(attrs, "rows") < 1:
        raise UserError(f"needs indices [n] into 1 row or more, got {indices} into {attrs['rows']}")
    return (TensorType(INT64, indices.shape),)


def _first_equal(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    named = rows_of(array(arrays[0]), integer(attrs, "rows"))
    _, first, group = np.unique(named, return_index=True, return_inverse=True)
    return (first[group].astype(np.int64),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    return Count(CopyWork)


register(
    Op(
        "first_equal",
        "for each of indices[n] into `rows` rows the place of the first that names the same; negative ones "
        "wrap",
        (1, 1),
        _infer,
        _first_equal,
        _count,
        ("rows",),
    )
)
flat("it is a place", "first_equal")
