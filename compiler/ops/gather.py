"""Rows taken by index."""

from __future__ import annotations

import math

import numpy as np

from mtia_emu.types import CopyWork, TensorType

from ..graph import Attrs
from .backward import Back, gradient
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


@gradient("gather")
def _back(b: Back) -> tuple[str, str]:
    """Add the gradient of each place to the row that it was taken from."""
    kind, count = b.type(0), b.type(1).rank
    axis = axis_of(b.node.attrs, kind.rank)
    taken = tuple(range(axis, axis + count))
    rest = tuple(i for i in range(b.type(b.grad).rank) if i not in taken)
    g = b.add("transpose", b.grad, perm=(*taken, *rest))
    others = kind.shape[:axis] + kind.shape[axis + 1 :]
    g = b.reshape(g, (*b.type(1).shape, math.prod(others)))
    rows = b.zeros(TensorType(kind.dtype, (kind.shape[axis], math.prod(others))))
    rows = b.add("scatter_rows", rows, b[1], g, reduction="add")
    rows = b.reshape(rows, (kind.shape[axis], *others))
    return b.add("transpose", rows, perm=(*range(1, axis + 1), 0, *range(axis + 1, kind.rank))), ""
