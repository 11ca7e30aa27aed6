"""Rows taken by index."""

from __future__ import annotations

import numpy as np

from mtia_emu.types import CopyWork, TensorType

from ..graph import Attrs
from .base import Array, Arrays, Count, Op, Types, array, axis_of, index_dtype, need, register
from .embedding_bag import rows_of
from .spelling import Call, onnx


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, indices = need(types[0]), need(types[1])
    index_dtype(indices)
    axis = axis_of(attrs, x.rank)
    return (TensorType(x.dtype, x.shape[:axis] + indices.shape + x.shape[axis + 1 :]),)


def _gather(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, indices = array(arrays[0]), array(arrays[1])
    axis = axis_of(attrs, x.ndim)
    return (np.take(x, rows_of(indices, x.shape[axis]), axis=axis),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    x, indices = need(types[0]), need(types[1])
    return Count(CopyWork, read_bytes=min(x.bytes, results[0].bytes) + indices.bytes)


register(
    Op(
        "gather",
        "x[indices] along `axis`; negative indices wrap",
        (2, 2),
        _infer,
        _gather,
        _count,
        ("axis",),
        looks_up=True,
    )
)


@onnx("Gather")
def _spell(c: Call) -> str:
    return c.add("gather", c[0], c[1], axis=c.axis(0))
