"""The attention operators of onnxruntime's domain, as matmuls, softmax and constant masks."""

from __future__ import annotations

from itertools import pairwise

import ml_dtypes
import numpy as np

from mtia_emu.errors import UserError

from .matmul import swapped
from .rotary import rotate, rotate_pairs
from .spelling import Call, Unsupported, onnx


def heads(c: Call, x: str, count: int) -> str:
    """Return [b,s,h*d] as [b,h,s,d]."""
    shape = c.type(x).shape
    if len(shape) != 3 or count < 1 or shape[2] % count:
        raise UserError(
            f"{c.op}: {c.type(x)} does not split into {count} heads (right: [batch, length, heads*size])"
        )
    split = c.reshape(x, (shape[0], shape[1], count, shape[2] // count))
    return c.add("transpose", split, perm=(0, 2, 1, 3))


def joined(c: Call, x: str) -> str:
    """Return [b,h,s,d] as [b,s,h*d]."""
    b, h, s, d = c.type(x).shape
    return c.reshape(c.add("transpose", x, perm=(0, 2, 1, 3)), (b, s, h * d))


def causal(past: int, queries: int, keys: int, window: int) -> np.ndarray | None:
    """Return which keys each query may see, [queries, keys]; None when it is all of them."""
    query, key = np.ogrid[past : past + queries, 0:keys]
    seen = (key <= query) & ((key > query - window) if window >= 0 else True)
    return None if seen.all() else seen


def attend(
    c: Call,
    q: str,
    k: str,
    v: str,
    scale: float,
    seen: np.ndarray | None,
    bias: str = "",
    softcap: float = 0.0,
) -> str:
    """Return softmax(q @ k^T * scale + bias) @ v of q[b,h,s,d], k, v[b,g,t,d]: heads share keys by groups."""
    b, h, s, d = c.type(q).shape
    groups, t = c.type(k).shape[1:3]
    if groups < 1 or h % groups or c.type(v).shape[:3] != (b, groups, t):
        raise UserError(f"{c.op}: {h} heads of queries do not share {c.type(k)} and {c.type(v)}")
    rows = c.reshape(q, (b, groups, h // groups * s, d))
    scores = c.reshape(c.add("matmul", rows, swapped(c, k)), (b, h, s, t))
    scores = c.add("mul", scores, c.scalar(scale, scores))
    if softcap:
        cap = c.scalar(softcap, scores)
        scores = c.add("mul", c.add("tanh", c.add("div", scores, cap)), cap)
    if bias:
        scores = c.add("add", scores, bias)
    if seen is not None:
        least = float(ml_dtypes.finfo(c.type(scores).dtype.numpy).min)
        scores = c.add("where", c.constant(seen), scores, c.scalar(least, scores))
    weights = c.reshape(c.add("softmax", scores, axis=3), (b, groups, h // groups * s, t))
    return c.reshape(c.add("matmul", weights, v), (b, h, s, c.type(v).shape[3]))


def _split(c: Call, queries: int, keys: int) -> tuple[str, str, str]:
    """Return q, k, v by heads, from three operands or from one that packs them."""
    if c.has(1):
        return heads(c, c[0], queries), heads(c, c[1], keys), heads(c, c[2], keys)
    packed = heads(c, c[0], queries + 2 * keys)
    b, _, s, d = c.type(packed).shape
    ends = (0, queries, queries + keys, queries + 2 * keys)
    parts = [
        c.add("slice", packed, starts=(0, low, 0, 0), ends=(b, high, s, d), steps=(1, 1, 1, 1))
        for low, high in pairwise(ends)
    ]
    return parts[0], parts[1], parts[2]


def _appended(c: Call, past: str, new: str, before: int) -> str:
    """Return the cache after the new keys: grown by them, or overwritten where it has room already."""
    if not past:
        return new
    size, added = c.type(past).shape[2], c.type(new).shape[2]
    kept = [_rows(c, past, 0, before), new, _rows(c, past, before + added, max(size, before + added))]
    return c.add("concat", *(v for v in kept if v), axis=2)


def _rows(c: Call, cache: str, start: int, end: int) -> str:
    b, h, size, d = c.type(cache).shape
    if start >= min(end, size):
        return ""
    return c.add("slice", cache, starts=(0, 0, start, 0), ends=(b, h, min(end, size), d), steps=(1, 1, 1, 1))


def _rotated(c: Call, x: str, before: int) -> str:
    """Return queries or keys turned by their positions: given ones, or counted on from those before."""
    length = c.type(x).shape[2]
    cos, sin = c[7], c[8]
    positions = c.optional(9) or c.constant(np.arange(before, before + length, dtype=np.int64).reshape(1, -1))
    tables = [c.add("gather", v, positions, axis=0) for v in (cos, sin)]
    cos, sin = (c.reshape(v, (c.type(v).shape[0], 1, *c.type(v).shape[1:])) for v in tables)
    turn = rotate_pairs if c.attr("rotary_interleaved", 0) else rotate
    return turn(c, x, cos, sin, 2 * c.type(cos).shape[-1])


@onnx("com.microsoft::GroupQueryAttention")
def _group_query(c: Call) -> tuple[str, str, str]:
    """Return the attention and the caches, all sequences taken to be as long as the total (no padding)."""
    if c.attr("smooth_softmax", 0) > 0 or any(c.has(i) for i in range(11, len(c.inputs))):
        raise Unsupported("it has sinks, smooth softmax or a quantised cache")
    q, k, v = _split(c, c.attr("num_heads", 0), c.attr("kv_num_heads", 0))
    added, size = c.type(k).shape[2], c.type(q).shape[3]
    past = c.type(3).shape[2] if c.has(3) else 0
    total = c.builder.known(c[6]) if c.has(6) else None
    length = past + added if total is None or c.has(9) else int(total.reshape(-1)[0])
    before = length - added
    if not 0 <= before <= past:
        raise UserError(
            f"{c.op}: a total length of {length} does not fit {past} past and {added} new positions"
        )
    if c.attr("do_rotary", 0):
        q, k = _rotated(c, q, before), _rotated(c, k, before)
    keys, values = (_appended(c, c.optional(i), new, before) for i, new in ((3, k), (4, v)))
    seen = causal(before, c.type(q).shape[2], length, c.attr("local_window_size", -1))
    scale = c.attr("scale", 0.0) or size**-0.5
    visible = [_rows(c, x, 0, length) for x in (keys, values)]
    result = attend(c, q, visible[0], visible[1], scale, seen, c.optional(10), c.attr("softcap", 0.0))
    return joined(c, result), keys, values


@onnx("com.microsoft::MultiHeadAttention")
def _multi_head(c: Call) -> tuple[str, str, str]:
    if c.has(4) or any(c.has(i) for i in range(8, len(c.inputs))) or c.type(0).rank != 3:
        raise Unsupported("it has a key padding mask, a cache indirection, or packed operands")
    count = c.attr("num_heads", 0)
    operands = [c[i] for i in range(3)]
    if c.has(3):
        ends = np.cumsum([c.type(v).shape[-1] for v in operands]).tolist()
        cuts = zip([0, *ends], ends, strict=False)
        biases = [c.add("slice", c[3], starts=(a,), ends=(b,), steps=(1,)) for a, b in cuts]
        operands = [c.add("add", v, b) for v, b in zip(operands, biases, strict=True)]
    q = heads(c, operands[0], count)
    k, v = (heads(c, x, count) if c.type(x).rank == 3 else x for x in operands[1:])
    past = c.type(6).shape[2] if c.has(6) else 0
    k, v = (_appended(c, c.optional(i), new, past) for i, new in ((6, k), (7, v)))
    s, t = c.type(q).shape[2], c.type(k).shape[2]
    seen = causal(t - s, s, t, -1) if c.attr("unidirectional", 0) else None
    scale = c.attr("scale", 0.0) or c.type(q).shape[3] ** -0.5
    return joined(c, attend(c, q, k, v, scale, seen, c.optional(5))), k, v
