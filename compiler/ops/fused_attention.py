"""Attention as one op: products, softmax and what stands between them."""

from __future__ import annotations

import math

import numpy as np
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, FP64, AttentionWork, TensorType

from ..graph import Attrs
from .backward import Back, gradient
from .base import Array, Arrays, Count, Op, Types, array, fits, integer, need, register, same_dtype, wide
from .layout import WHOLE, Layout, NodeSplit, Query, aligned, splits
from .map import unfolded
from .move import cut

SCORES = 1 << 24  # of queries by keys, in all heads, that are there at once on the way back
BLOCKS = 32  # parts that queries are cut into for that, at most


def _sizes(types: Types) -> tuple[int, int, int, int, int, int, int]:
    """Return batch, heads, queries, keys, dim, dim of values, groups; raise `UserError` for a misfit."""
    q, k, v = (need(t) for t in types[:3])
    if not q.rank == k.rank == v.rank == 4:
        raise UserError(f"takes q[b,h,m,d], k[b,g,n,d], v[b,g,n,e], not {q}, {k}, {v}")
    b, h, m, d = q.shape
    g, n = k.shape[1:3]
    if k.shape != (b, g, n, d) or v.shape[:3] != (b, g, n) or g < 1 or h % g:
        raise UserError(f"{h} heads of {q} do not share keys {k} and values {v}")
    return b, h, m, n, d, v.shape[3], g


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    b, h, m, n, _, e, _ = _sizes(types)
    tape, mask = parse(str(attrs["tape"])), integer(attrs, "mask", 0)
    if tape.inputs != len(types) - 2 or len(tape.results) != 1 or tape.row_wise:
        raise UserError(
            f"the tape takes {tape.inputs} operands; there are {len(types) - 2}: scores and others"
        )
    if not all(fits(need(t).shape, (b, h, m, n)) for t in types[3:]):
        raise UserError(f"an operand of the tape does not broadcast to {[b, h, m, n]}")
    if not 0 <= mask < tape.inputs or integer(attrs, "diagonal", 0) < 0:
        raise UserError("the mask is an operand of the tape, 1 or more, its diagonal 0 or more")
    return (TensorType(same_dtype(types[:3]), (b, h, m, e)),)


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    q, k, v = (array(x) for x in arrays[:3])
    shape = (*k.shape[:2], q.shape[1] // k.shape[1], *q.shape[2:])
    raw = np.matmul(wide(q).reshape(shape), wide(k)[:, :, None].swapaxes(-1, -2))
    raw = raw.reshape(*q.shape[:3], k.shape[2])
    tape = parse(str(attrs["tape"]))
    (scores,) = tape.evaluate(
        [raw, *(array(x) for x in arrays[3:])], [FP32 if raw.dtype == np.float32 else FP64]
    )
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
    weights = powers / powers.sum(axis=-1, keepdims=True)
    if attrs.get("guarded", False):
        weights = np.where(np.isnan(weights), 0, weights)
    weights = weights.reshape(*shape[:-1], k.shape[2])
    out = np.matmul(weights, wide(v)[:, :, None])
    return (out.reshape(*q.shape[:3], v.shape[3]).astype(q.dtype),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    b, h, m, n, d, e, g = _sizes(types)
    sizes = {"batch": b, "kv_heads": g, "group": h // g, "queries": m, "keys": n, "key_size": d}
    mask = {"diagonal": integer(attrs, "diagonal")} if "diagonal" in attrs else {}
    return Count(AttentionWork, {**sizes, "value_size": e, **mask})


register(
    Op(
        "attention",
        "softmax(tape(q k^T, ...)) v of q[b,h,m,d], k[b,g,n,d], v[b,g,n,e]; input `mask` of the tape hides "
        "keys j > i + `diagonal`; with `guarded` rows with no key to see are 0",
        (3, 64),
        _infer,
        _reference,
        _count,
        ("tape",),
        ("mask", "diagonal", "guarded"),
    )
)


@splits("attention")
def _split(query: Query) -> NodeSplit:
    """Split the batch, and heads where those of keys divide as those of queries do."""
    b, h, m, n, _, _, groups = _sizes(query.types)
    first = query.layouts[0]
    assert first is not None
    batch, heads = first.dims[:2]
    if query.policy.dividing(heads, groups) != heads:
        heads = WHOLE
    dims, each = (batch, heads, WHOLE, WHOLE), Layout((batch, heads, WHOLE, WHOLE))
    rest = tuple(None if t is None else aligned(t, dims, (b, h, m, n)) for t in query.types[3:])
    return NodeSplit((each, each, each, *rest), (each,))


@gradient("attention")
def _back(b: Back) -> tuple[str, ...]:
    """Compute the scores again, some queries at a time, and go back through them: none is kept for it.

    Queries that see no key behind theirs (`diagonal`) leave those keys out.
    """
    queries = b.type(0).shape[2]
    rows = max(
        1, min(queries, SCORES * queries // max(math.prod((*b.type(0).shape[:3], b.type(1).shape[2])), 1))
    )
    count = min(-(-queries // rows), BLOCKS)
    rows = -(-queries // count)
    return b.through_each(
        (_some(b, start, min(start + rows, queries)), cut(b, b.grad, 2, start, min(start + rows, queries)))
        for start in range(0, queries, rows)
    )


def _some(b: Back, start: int, end: int) -> str:
    """Return the attention of queries `start` to `end`, by ops of their own."""
    batch, heads, _, keys, dim, size, groups = _sizes([b.type(i) for i in range(3)])
    seen = min(keys, end + integer(b.node.attrs, "diagonal")) if "diagonal" in b.node.attrs else keys
    q, k, v = cut(b, b[0], 2, start, end), cut(b, b[1], 2, 0, seen), cut(b, b[2], 2, 0, seen)
    rows = (batch, groups, heads // groups * (end - start))
    scores = b.add("matmul", b.reshape(q, (*rows, dim)), b.swapped(k))
    scores = b.reshape(scores, (batch, heads, end - start, seen))
    scores = unfolded(b, [scores, *(_slice(b, e, start, end, seen) for e in b.node.inputs[3:])])
    scores = b.add("expand", b.wide(scores), shape=(batch, heads, end - start, seen))
    shares = b.add("softmax", scores, axis=3)
    if b.node.attrs.get("guarded", False):
        shares = b.add("where", b.add("isnan", shares), b.scalar(0, shares), shares)
    result = b.add("matmul", b.reshape(b.cast(shares, b.type(0)), (*rows, seen)), v)
    return b.reshape(result, (batch, heads, end - start, size))


def _slice(b: Back, extra: str, start: int, end: int, seen: int) -> str:
    """Return the part of an operand of the tape that is of some queries and of the keys that they see."""
    shape = b.type(extra).shape
    if len(shape) > 0 and shape[-1] > 1:
        extra = cut(b, extra, len(shape) - 1, 0, seen)
    return cut(b, extra, len(shape) - 2, start, end) if len(shape) > 1 and shape[-2] > 1 else extra
