"""Rows taken by index."""

from __future__ import annotations

import math

import numpy as np

from mtia_emu.types import CopyWork, TensorType

from ..graph import Attrs
from .backward import Back, gradient
from .base import Array, Arrays, Count, Op, Types, array, axis_of, index_dtype, need, register
from .embedding_bag import rows_of
from .layout import WHOLE, Layout, NodeSplit, Query, splits
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


@splits("gather")
def _split(query: Query) -> NodeSplit:
    """Split what is looked up as the indices are, and the other dimensions of the table as they come.

    Rows of a table that is a weight are split over the axes of tables, or of weights: then the result owes a
    sum, since a rank has zeros for rows of others. Its columns are split where that is asked for; one that is
    copied is whole everywhere.
    """
    axis, policy = axis_of(query.node.attrs, need(query.types[0]).rank), query.policy
    table, indices = query.layouts
    assert table is not None and indices is not None
    at = indices.settled.dims
    kind = need(query.types[0])
    if not (query.free[0] and axis == 0 and kind.rank == 2):
        used = {a for axes in at for a in axes}
        kept = [WHOLE if i == axis or set(x) & used else x for i, x in enumerate(table.settled.dims)]
        return NodeSplit((Layout(tuple(kept)), Layout(at)), (Layout((*kept[:axis], *at, *kept[axis + 1 :])),))
    how = policy.kinds.get(query.node.inputs[0], policy.tables)
    over = policy.lookup if how else policy.model
    columns = policy.dividing(over, kind.shape[1]) if how == "column" else WHOLE
    rows = policy.dividing(over, kind.shape[0]) if how in ("", "row") else WHOLE
    split = {*rows, *columns}
    at = tuple(tuple(a for a in axes if a not in split) for axes in at)
    wanted = (Layout((rows, columns)), Layout(at))
    return NodeSplit(wanted, (Layout((*at, columns)).owing(rows),), lookup=rows)


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
