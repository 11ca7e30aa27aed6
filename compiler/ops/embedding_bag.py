"""Pooled rows of an embedding table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import INT32, INT64, UINT8, BagWork, TensorType, dtype

from ..graph import Attrs
from .backward import Back, gradient
from .base import Array, Arrays, Count, Op, Types, array, index_dtype, need, register, wide, word
from .layout import WHOLE, Layout, NodeSplit, Query, splits
from .move import cut

T = TypeVar("T")
MODES = ("sum", "mean", "max")
PARTS = ("table", "indices", "offsets", "weights")
MANY = 1 << 14  # operands of one node, at most: a command names one by 16 bits
FEW_PAIRS = 1 << 18  # of an index and an offset: all compared in less time than sums run
TAIL_BYTES = 8  # a quantised row ends in an fp32 scale and an fp32 offset


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    table, indices, offsets = (need(t) for t in types[:3])
    if table.rank != 2:
        raise UserError(f"the table must be [rows, dim], not {table}")
    if indices.rank != 1 or offsets.rank != 1 or offsets.shape[0] < 1:
        raise UserError(f"needs indices [l] and offsets [bags+1], got {indices} and {offsets}")
    index_dtype(indices)
    index_dtype(offsets)
    weights = types[3] if len(types) > 3 else None
    mode = word(attrs, "mode", "", MODES)
    if weights is not None and (weights.shape != indices.shape or mode != "sum"):
        raise UserError(f"weights {weights} must have a value per index {indices}, and mode sum, not {mode}")
    if not attrs.get("quantised", False):
        return (TensorType(table.dtype, (offsets.shape[0] - 1, table.shape[1])),)
    if table.dtype != UINT8 or table.shape[1] <= TAIL_BYTES:
        raise UserError(f"a quantised table is uint8[rows, dim + {TAIL_BYTES}], not {table}")
    to = dtype(str(attrs.get("to", "fp32")))
    return (TensorType(to, (offsets.shape[0] - 1, table.shape[1] - TAIL_BYTES)),)


def bag_operand(op: str, attrs: Attrs, position: int) -> tuple[str, int]:
    """Return what an operand is (table, indices, offsets, weights), and where its table's operands begin.

    The name is "" for an op that pools no rows.
    """
    if op not in ("embedding_bag", "embedding_bags"):
        return "", 0
    each = len(PARTS) if op == "embedding_bag" else _each(attrs)
    return PARTS[position % each], position - position % each


def _each(attrs: Attrs) -> int:
    """Return how many operands `embedding_bags` has for each table."""
    return len(PARTS) - (not attrs.get("weighted", False))


def _tables(values: Sequence[T], attrs: Attrs) -> list[Sequence[T]]:
    """Return the operands of each table."""
    each = _each(attrs)
    if len(values) % each:
        raise UserError(f"needs {each} operands for each table, got {len(values)}")
    return [values[i : i + each] for i in range(0, len(values), each)]


def unpack(rows: Array) -> Array:
    """Return rows[n, dim + 8] of bytes as fp32[n, dim]: value * scale + offset, the last 8 bytes."""
    tail = np.ascontiguousarray(rows[:, -TAIL_BYTES:]).view(np.float32)
    return rows[:, :-TAIL_BYTES].astype(np.float32) * tail[:, :1] + tail[:, 1:]


def rows_of(indices: Array, rows: int, what: str = "index") -> Array:
    """Return indices of any shape, negative ones wrapped; raise `UserError` for one outside the table."""
    wrapped = np.where(indices < 0, indices.astype(np.int64) + rows, indices)
    wrong = (wrapped < 0) | (wrapped >= rows)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise UserError(
            f"{what} {int(indices[at])} at {list(at)} is outside the {rows} rows (right: 0 to {rows - 1})"
        )
    return wrapped


def _pool(rows: Array, mode: str) -> Array:
    if mode == "max":
        return rows.max(axis=0)
    total = rows.sum(axis=0)
    return total / len(rows) if mode == "mean" else total


def _embedding_bag(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    table, indices, offsets = (array(a) for a in arrays[:3])
    weights = arrays[3] if len(arrays) > 3 else None
    mode = word(attrs, "mode", "", MODES)
    quantised = bool(attrs.get("quantised", False))
    values = unpack if quantised else wide
    kind = values(table[:0]).dtype
    empty = -np.inf if attrs.get("empty", "zero") == "lowest" else 0.0
    out = np.full((len(offsets) - 1, values(table[:0]).shape[1]), empty, kind)
    for bag, (start, end) in enumerate(pairwise(offsets.tolist())):
        if not 0 <= start <= end <= len(indices):
            raise UserError(f"bag {bag} is {start} to {end}, outside the {len(indices)} indices")
        if start == end:
            continue
        rows = values(table[rows_of(indices[start:end], len(table))])
        if weights is not None:
            rows = rows * wide(weights[start:end])[:, None]
        out[bag] = _pool(rows, mode)
    return (out.astype(dtype(str(attrs.get("to", "fp32"))).numpy if quantised else table.dtype),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    table, indices, offsets = (need(t) for t in types[:3])
    rows, dim = table.shape[0], results[0].shape[1]
    lookups = indices.shape[0]
    weights = types[3] if len(types) > 3 else None
    read = min(lookups, rows) * table.shape[1] * table.dtype.bytes + indices.bytes + offsets.bytes
    if weights is not None:
        read += weights.bytes
    flops = lookups * dim * (1 if weights is None else 2)
    sizes = {"lookups": lookups, "bags": results[0].shape[0], "dim": dim, "rows": rows}
    return Count(BagWork, sizes, flops, read_bytes=read)


register(
    Op(
        "embedding_bag",
        "rows table[indices], pooled from offsets[i] to offsets[i+1], weights?; empty ones give 0 or -inf, "
        "quantised rows `to`",
        (3, 4),
        _infer,
        _embedding_bag,
        _count,
        ("mode",),
        ("empty", "quantised", "to"),
        looks_up=True,
    )
)


def _infer_all(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    results = [_infer(t, attrs)[0] for t in _tables(types, attrs)]
    kinds = {(need(t[0]).dtype, need(t[0]).shape[-1]) for t in _tables(types, attrs)}
    if len(kinds) > 1:
        raise UserError(f"tables must have one type and one width, not {sorted(map(str, kinds))}")
    return tuple(results)


def _embedding_bags(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    return tuple(_embedding_bag(t, attrs)[0] for t in _tables(arrays, attrs))


def _count_all(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    """Count one look-up in a table of all rows: what a kernel for batched tables does."""
    parts = [_count(t, (r,), attrs) for t, r in zip(_tables(types, attrs), results, strict=True)]
    sizes = {name: sum(p.sizes[name] for p in parts) for name in ("lookups", "bags", "rows")}
    read = sum(p.read_bytes or 0 for p in parts)
    flops = sum(p.flops for p in parts)
    return Count(BagWork, {**sizes, "dim": parts[0].sizes["dim"]}, flops, read_bytes=read)


register(
    Op(
        "embedding_bags",
        "embedding_bag of several tables of one width: table, indices, offsets (and weights where "
        "`weighted`) of each, a result of each",
        (3, MANY),
        _infer_all,
        _embedding_bags,
        _count_all,
        ("mode",),
        ("empty", "quantised", "to", "weighted"),
        looks_up=True,
    )
)


@gradient("embedding_bag")
def _back(b: Back) -> tuple[str, ...]:
    """Add each bag's gradient to the rows that it pooled; rows that are equally large share it."""
    if b.node.attrs.get("quantised", False):
        raise UserError("its table is quantised (right: train in floats, then quantise)")
    mode, rows = str(b.node.attrs["mode"]), b.add("gather", b[0], b[1], axis=0)
    bag, lengths = _bags(b)
    g, weights = b.grad, ""
    if mode == "mean":
        g = b.add("div", g, b.cast(b.reshape(lengths, (b.type(lengths).size, 1)), b.type(g)))
    each = _hit(b, rows, bag) if mode == "max" else _by_bag(b, g, bag)
    if b.has(3):
        weights = b.add("reduce_sum", b.times(rows, each), axes=(1,), keepdims=False)
        each = b.times(each, b.reshape(b[3], (b.type(3).size, 1)))
    table = b.add("scatter_rows", b.zeros(b.type(0)), b[1], each, reduction="add")
    return table, "", "", weights


def _bags(b: Back) -> tuple[str, str]:
    """Return the bag of each index, counted from 1, and the indices of each bag, at least 1.

    An index before the first bag is in bag 0, one behind the last in a bag more than there are.
    """
    offsets, bags = b[2], b.type(2).size - 1
    bag = _bag_of_each(b, offsets, b.type(1).size)
    low, high = cut(b, offsets, 0, 0, bags), cut(b, offsets, 0, 1, bags + 1)
    lengths = b.add("sub", high, low)
    return bag, b.add("max", lengths, b.scalar(1, lengths))


def _bag_of_each(b: Back, offsets: str, count: int) -> str:
    """Return how many of the offsets are at each of the first `count` places, or before."""
    known, size = b.builder.known(offsets), b.type(offsets).size
    if known is not None:
        return b.builder.constant(np.searchsorted(known, np.arange(count), "right"), np.dtype(np.int64))
    if count * size <= FEW_PAIRS:
        place = b.builder.constant(np.arange(count).reshape(-1, 1), b.type(offsets).dtype.numpy)
        behind = b.add("greater_equal", place, b.reshape(offsets, (1, size)))
        return b.add("reduce_sum", b.add("cast", behind, to=INT64.name), axes=(1,), keepdims=False)
    ones = b.builder.constant(np.ones((size, 1)), np.dtype(np.int32))
    marks = b.add("scatter_rows", b.zeros(TensorType(INT32, (count + 1, 1))), offsets, ones, reduction="add")
    sums = b.add("cumsum", cut(b, marks, 0, 0, count), axis=0)
    return b.add("cast", b.reshape(sums, (count,)), to=INT64.name)


def _by_bag(b: Back, values: str, bag: str) -> str:
    """Return the row [bags, d] of each index's bag, zeros for an index of no bag."""
    known = b.builder.known(bag)
    if known is not None and known.size and known.min() > 0 and known.max() <= b.type(values).shape[0]:
        return b.add("gather", values, b.builder.constant(known - 1, np.dtype(np.int64)), axis=0)
    none = b.zeros(TensorType(b.type(values).dtype, (1, b.type(values).shape[1])))
    return b.add("gather", b.add("concat", none, values, none, axis=0), bag, axis=0)


def _hit(b: Back, rows: str, bag: str) -> str:
    """Return the gradients of elements that are their bag's largest, shared by as many as there are."""
    hit = b.cast(b.add("equal", rows, _by_bag(b, b.out, bag)), b.type(rows))
    places = b.builder.constant(np.arange(b.type(1).size, dtype=np.int64))
    ties = b.add("embedding_bag", hit, places, b[2], mode="sum")
    share = b.add("div", b.grad, b.add("max", ties, b.scalar(1, ties)))
    return b.times(hit, _by_bag(b, share, bag))


@splits("embedding_bag")
def _split(query: Query) -> NodeSplit:
    """Split the columns of a table that is a weight where that is asked for, else as they come."""
    policy, table, (kind, *rest) = query.policy, query.layouts[0], query.types
    assert table is not None and kind is not None
    columns = table.settled.dims[-1]
    if query.free[0] and policy.kinds.get(query.node.inputs[0], policy.tables) == "column":
        columns = policy.dividing(policy.lookup, kind.shape[-1])
    if query.node.attrs.get("quantised", False):
        columns = WHOLE
    wanted = (Layout((WHOLE, columns)), *(None if t is None else Layout.whole(t.rank) for t in rest))
    return NodeSplit(wanted, (Layout((WHOLE, columns)),))


@gradient("embedding_bags")
def _back_all(b: Back) -> tuple[str, ...]:
    """Go back through each table by itself."""
    each, attrs = _each(b.node.attrs), {k: v for k, v in b.node.attrs.items() if k != "weighted"}
    tables = [b.node.inputs[i : i + each] for i in range(0, b.count, each)]
    given = [(b.add("embedding_bag", *t, **attrs), g) for t, g in zip(tables, b.given, strict=True) if g]
    return b.through_each(given)
