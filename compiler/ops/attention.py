"""The attention operators of onnxruntime's domain, as matmuls, softmax and constant masks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import ml_dtypes
import numpy as np

from mtia_emu.errors import UserError

from .matmul import swapped
from .rotary import rotate, rotate_pairs
from .shapes import take
from .spelling import Call, Unsupported, bounded, counted, onnx


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


@dataclass(frozen=True)
class Scores:
    """What happens to q @ k^T before its product with v.

    `seen` is bool and says which keys count; `bias` is added; `sink` is [heads] of one more score for each
    head, which takes its share of the weights and gives nothing.
    """

    scale: float
    seen: str = ""
    bias: str = ""
    softcap: float = 0.0
    sink: str = ""


def attend(c: Call, q: str, k: str, v: str, scoring: Scores) -> str:
    """Return softmax(q @ k^T * scale + bias) @ v of q[b,h,s,d], k, v[b,g,t,d]: heads share keys by groups."""
    b, h, s, d = c.type(q).shape
    groups, t = c.type(k).shape[1:3]
    if groups < 1 or h % groups or c.type(v).shape[:3] != (b, groups, t) or c.type(k).shape[3] != d:
        raise UserError(f"{c.op}: {h} heads of queries do not share {c.type(k)} and {c.type(v)}")
    rows = c.reshape(q, (b, groups, h // groups * s, d))
    scores = c.reshape(c.add("matmul", rows, swapped(c, k)), (b, h, s, t))
    scores = c.add("mul", scores, c.scalar(scoring.scale, scores))
    if scoring.softcap:
        cap = c.scalar(scoring.softcap, scores)
        scores = c.add("mul", c.add("tanh", c.add("div", scores, cap)), cap)
    if scoring.bias:
        scores = c.add("add", scores, scoring.bias)
    if scoring.seen:
        least = float(ml_dtypes.finfo(c.type(scores).dtype.numpy).min)
        scores = c.add("where", scoring.seen, scores, c.scalar(least, scores))
    weights = _softmax(c, scores, scoring.sink)
    weights = c.reshape(weights, (b, groups, h // groups * s, t))
    return c.reshape(c.add("matmul", weights, v), (b, h, s, c.type(v).shape[3]))


def _softmax(c: Call, scores: str, sink: str) -> str:
    if not sink:
        return c.add("softmax", scores, axis=3)
    b, h, s, t = c.type(scores).shape
    column = c.reshape(c.cast(sink, c.type(scores).dtype.name), (1, h, 1, 1))
    column = c.add("expand", column, shape=(b, h, s, 1))
    return take(c, c.add("softmax", c.add("concat", scores, column, axis=3), axis=3), 3, 0, t)


def _split(c: Call, queries: int, keys: int) -> tuple[str, str, str]:
    """Return q, k, v by heads, from three operands or from one that packs them."""
    if c.has(1):
        return heads(c, c[0], queries), heads(c, c[1], keys), heads(c, c[2], keys)
    packed = heads(c, c[0], queries + 2 * keys)
    ends = (0, queries, queries + keys, queries + 2 * keys)
    q, k, v = (take(c, packed, 1, low, high) for low, high in pairwise(ends))
    return q, k, v


def appended(c: Call, past: str, new: str, before: int) -> str:
    """Return the cache after the new keys: grown by them, or overwritten where it has room already."""
    if not past:
        return new
    size, added = c.type(past).shape[2], c.type(new).shape[2]
    kept = [_rows(c, past, 0, before), new, _rows(c, past, before + added, max(size, before + added))]
    return c.add("concat", *(v for v in kept if v), axis=2)


def _rows(c: Call, cache: str, start: int, end: int) -> str:
    end = min(end, c.type(cache).shape[2])
    return take(c, cache, 2, start, end) if start < end else ""


def _placed(c: Call, past: str, new: str, before: str, size: int) -> str:
    """Return `appended` where each sequence has `before` [b,1,1,1] rows already, as the data say."""
    (b, _, held, _), added = c.type(past).shape, c.type(new).shape[2]
    at = c.constant(counted(size).reshape(1, 1, size, 1))
    if added == 1:
        grown = c.add("pad", past, pads=(0,) * 6 + (size - held, 0), value=0.0)
        return c.add("where", c.add("equal", at, before), new, grown)
    after = c.add("sub", at, before)
    fresh = c.add(
        "and", *(c.add(f, after, c.scalar(n, after)) for f, n in (("greater_equal", 0), ("less", added)))
    )
    held_row = c.add("min", at, c.scalar(held - 1, at))
    rows = c.add("where", fresh, c.add("add", after, c.scalar(held, after)), held_row)
    both = c.add("concat", past, new, axis=2)
    index = [c.reshape(take(c, rows, 0, i, i + 1), (size,)) for i in range(b)]
    parts = [c.add("gather", take(c, both, 0, i, i + 1), row, axis=2) for i, row in enumerate(index)]
    return c.add("concat", *parts, axis=0)


def _rotated(c: Call, x: str, before: str) -> str:
    """Return queries or keys turned by their positions: given ones, or counted on from those before."""
    length = c.type(x).shape[2]
    cos, sin = c[7], c[8]
    steps = c.constant(counted(length).reshape(1, -1))
    positions = c.optional(9) or c.add("add", c.reshape(before, (c.type(before).size, 1)), steps)
    tables = [c.add("gather", v, positions, axis=0) for v in (cos, sin)]
    cos, sin = (c.reshape(v, (c.type(v).shape[0], 1, *c.type(v).shape[1:])) for v in tables)
    turn = rotate_pairs if c.attr("rotary_interleaved", 0) else rotate
    return turn(c, x, cos, sin, 2 * c.type(cos).shape[-1])


UNBOUNDED = 1 << 40  # rows of a cache that drops the oldest


@dataclass(frozen=True)
class Lengths:
    """Of a call of grouped-query attention: rows of the cache in use before, by sequence, and after at most.

    `before` is [b,1,1,1] (or one for all); `known` is its number where that is the same for all.
    """

    before: str
    known: int | None
    total: int


def _lengths(c: Call, batch: int, added: int, past: int) -> Lengths:
    """Return the lengths; those of one sequence, and of all in a prompt, follow from the total alone."""
    total = c.builder.known(c[6]) if c.has(6) else None
    length = past + added if total is None else int(total.reshape(-1)[0])
    ends = c.builder.known(c[5]) if c.has(5) else None
    if total is None and ends is not None:
        length = int(ends.max()) + 1
    known: int | None = length - added
    if (ends is not None and length != added and (ends + 1 != length).any()) or (
        ends is None and c.has(5) and batch > 1 and length != added
    ):
        known = None
    if not 0 <= length - added <= past:
        raise UserError(
            f"{c.op}: a total length of {length} does not fit {past} past and {added} new positions"
        )
    if known is not None:
        return Lengths(c.constant(np.full((1, 1, 1, 1), known, np.int64)), known, length)
    ends_after = c.reshape(c.cast(c[5], "int64"), (batch, 1, 1, 1))
    return Lengths(c.add("sub", ends_after, c.scalar(added - 1, ends_after)), None, length)


def _visible(c: Call, lengths: Lengths, queries: int) -> str:
    """Return which keys each query sees: [queries, keys], or [b,1,queries,keys]; "" when it is all."""
    window = c.attr("local_window_size", -1)
    if lengths.known is not None:
        bounded(queries * lengths.total)
        seen = causal(lengths.known, queries, lengths.total, window)
        return "" if seen is None else c.constant(seen)
    key = c.constant(counted(lengths.total).reshape(1, 1, 1, -1))
    steps = c.constant(counted(queries).reshape(1, 1, -1, 1))
    query = c.add("add", lengths.before, steps)
    inside = c.add("less_equal", key, query)
    if window < 0:
        return inside
    return c.add("and", inside, c.add("greater", key, c.add("sub", query, c.scalar(window, query))))


@onnx("com.microsoft::GroupQueryAttention")
def _group_query(c: Call) -> tuple[str, str, str]:
    """Return the attention and the caches.

    Rows of a prompt behind a sequence's end are computed as if they belonged to it.
    """
    if any(c.has(i) for i in range(12, len(c.inputs))) or c.wants(3):
        raise Unsupported("its cache is quantised, or its scores are read")
    q, k, v = _split(c, c.attr("num_heads", 0), c.attr("kv_num_heads", 0))
    batch, added, past = c.type(q).shape[0], c.type(k).shape[2], c.type(3).shape[2] if c.has(3) else 0
    slides = bool(c.attr("sliding_window_cache", 0)) and past > 0
    lengths = _lengths(c, batch, added, UNBOUNDED if slides else past)
    if c.attr("do_rotary", 0):
        q, k = _rotated(c, q, lengths.before), _rotated(c, k, lengths.before)
    if slides:
        return _sliding(c, lengths, q, k, v)
    if lengths.known is not None:
        keys, values = (appended(c, c.optional(i), new, lengths.known) for i, new in ((3, k), (4, v)))
    else:
        room = max(past, lengths.total)
        keys, values = (_placed(c, c[i], new, lengths.before, room) for i, new in ((3, k), (4, v)))
    visible = [_rows(c, x, 0, lengths.total) for x in (keys, values)]
    scores = _scores(c, q, _visible(c, lengths, added))
    return joined(c, attend(c, q, visible[0], visible[1], scores)), keys, values


def _scores(c: Call, q: str, seen: str) -> Scores:
    """Return how grouped-query attention makes its scores, with the keys that queries q see."""
    _, count, _, size = c.type(q).shape
    sink = c.optional(11)
    if c.attr("smooth_softmax", 0) > 0 and not sink:
        sink = c.constant(np.zeros(count, np.float32))
    return Scores(c.attr("scale", 0.0) or size**-0.5, seen, c.optional(10), c.attr("softcap", 0.0), sink)


def _sliding(c: Call, lengths: Lengths, q: str, k: str, v: str) -> tuple[str, str, str]:
    """Return the attention and the caches where a cache of few rows keeps the latest ones."""
    room, window, added = c.type(3).shape[2], c.attr("local_window_size", -1), c.type(k).shape[2]
    if lengths.known is None or c.has(10):
        raise Unsupported(
            "its cache slides, and how far each sequence is depends on the data, or it has a bias"
        )
    if not 0 < window <= room:
        raise UserError(f"{c.op}: a cache of {room} rows slides over a window of {window}")
    held = rows_held(lengths.known, room, window)
    both = [joined_rows(c, _rows(c, c[i], 0, held), new) for i, new in ((3, k), (4, v))]
    bounded(added * (held + added))
    seen = causal(held, added, held + added, window)
    attended = attend(c, q, both[0], both[1], _scores(c, q, "" if seen is None else c.constant(seen)))
    kept = min(rows_held(lengths.total, room, window), held + added)
    latest = [take(c, x, 2, held + added - kept, held + added) for x in both]
    padded = [c.add("pad", x, pads=(0,) * 6 + (room - kept, 0), value=0.0) for x in latest]
    return joined(c, attended), padded[0], padded[1]


def rows_held(total: int, room: int, window: int) -> int:
    """Return how many rows a cache of `room` rows holds after `total`: all, or the latest ones.

    A full one keeps the last `window` rows and fills up again from there, as onnxruntime does it.
    """
    return total if total <= room else window + (total - window) % (room - window + 1)


def joined_rows(c: Call, past: str, new: str) -> str:
    """Return the rows of both along axis 2; `past` may be none."""
    return c.add("concat", past, new, axis=2) if past else new


def padding(c: Call, mask: str, queries: int, keys: int) -> str:
    """Return what a mask adds to scores [b,h,queries,keys]: lengths [b] or of ones [b,(queries,)keys].

    Masked scores fall by `mask_filter_value`, as onnxruntime has it.
    """
    shape = c.type(mask).shape
    if len(shape) == 1:
        if shape[0] != c.type(0).shape[0]:
            raise Unsupported(f"its mask {c.type(mask)} is of cumulated lengths")
        at = c.constant(counted(keys).astype(c.type(mask).dtype.numpy).reshape(1, 1, 1, -1))
        seen = c.add("less", at, c.reshape(mask, (shape[0], 1, 1, 1)))
    elif shape[-1] != keys or len(shape) not in (2, 3):
        raise Unsupported(f"its mask {c.type(mask)} is not of {keys} keys")
    else:
        middle = (1, 1) if len(shape) == 2 else (1, shape[1])
        seen = c.cast(c.reshape(mask, (shape[0], *middle, keys)), "bool")
    low = c.scalar(c.attr("mask_filter_value", -10000.0), c[0] if c.type(0).dtype.is_float else c[2])
    return c.add("where", seen, c.scalar(0, low), low)


def summed(c: Call, *values: str) -> str:
    """Return the sum of the values that there are, "" for none."""
    total = ""
    for value in filter(None, values):
        total = c.add("add", total, value) if total else value
    return total


@onnx("com.microsoft::MultiHeadAttention")
def _multi_head(c: Call) -> tuple[str, str, str]:
    if any(c.has(i) for i in range(8, len(c.inputs))) or c.wants(3) or not (c.has(1) and c.has(2)):
        raise Unsupported("it has packed operands or a cache indirection, or its scores are read")
    count, operands = c.attr("num_heads", 0), [c[i] for i in range(3)]
    if c.has(3):
        operands = _biased(c, operands, count)
    q, k, v = (heads(c, x, count) if c.type(x).rank == 3 else x for x in operands)
    past = c.type(6).shape[2] if c.has(6) else 0
    k, v = (appended(c, c.optional(i), new, past) for i, new in ((6, k), (7, v)))
    s, t = c.type(q).shape[2], c.type(k).shape[2]
    seen = causal(t - s, s, t, -1) if c.attr("unidirectional", 0) else None
    mask = padding(c, c[4], s, t) if c.has(4) else ""
    scores = Scores(
        c.attr("scale", 0.0) or c.type(q).shape[3] ** -0.5,
        "" if seen is None else c.constant(seen),
        summed(c, mask, c.optional(5)),
    )
    return joined(c, attend(c, q, k, v, scores)), k, v


def _biased(c: Call, operands: list[str], count: int) -> list[str]:
    """Return q, k, v with their shares of one bias added."""
    sizes = [c.type(v).shape[-1] * (1 if c.type(v).rank == 3 else count) for v in operands]
    ends, out = np.cumsum([0, *sizes]).tolist(), []
    for value, (low, high) in zip(operands, pairwise(ends), strict=True):
        bias = take(c, c[3], 0, low, high)
        if c.type(value).rank == 4:
            bias = c.reshape(bias, (1, count, 1, (high - low) // count))
        out.append(c.add("add", value, bias))
    return out
