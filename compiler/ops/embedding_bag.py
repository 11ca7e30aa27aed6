"""Pooled rows of an embedding table."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import UINT8, TensorType, dtype

from ..graph import Attrs
from .base import Array, Arrays, Count, Op, Types, array, index_dtype, need, register, wide, word

MODES = ("sum", "mean", "max")
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


def unpack(rows: Array) -> Array:
    """Return quantised rows as fp32: value * scale + offset, the row's last eight bytes being the two."""
    tail = np.ascontiguousarray(rows[:, -TAIL_BYTES:]).view(np.float32)
    return rows[:, :-TAIL_BYTES].astype(np.float32) * tail[:, :1] + tail[:, 1:]


def rows_of(indices: Array, rows: int, what: str = "index") -> Array:
    """Return indices with negative ones wrapped once; raise `UserError` for one outside the table."""
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
    return Count("embedding_bag", (lookups, results[0].shape[0], dim, rows), flops=flops, read_bytes=read)


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
    )
)
