"""Rotary position embedding: rotate the halves of the last axis."""

from __future__ import annotations

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import RotaryWork, TensorType

from ..graph import Attrs
from .backward import Back, gradient
from .base import Array, Arrays, Count, Op, Types, array, fits, need, register, wide
from .layout import Layout, NodeSplit, Query, aligned, joint, splits
from .move import cut
from .spelling import Call, Unsupported, counted, onnx


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, cos, sin = (need(t) for t in types)
    if x.rank < 1 or x.shape[-1] % 2:
        raise UserError(f"needs a last axis of even size, not {x}")
    for angle in (cos, sin):
        if not fits(angle.shape, x.shape):
            raise UserError(f"cos and sin must broadcast to {x}, got {angle}")
    return (x,)


def _rotary(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, cos, sin = (array(a) for a in arrays)
    full = wide(x)
    half = x.shape[-1] // 2
    turned = np.concatenate([-full[..., half:], full[..., :half]], axis=-1)
    return ((full * wide(cos) + turned * wide(sin)).astype(x.dtype),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    size = max(need(t).size for t in types)
    return Count(RotaryWork, {"elements": size}, 3 * size)


register(
    Op(
        "rotary",
        "x*cos + cat(-x2, x1)*sin over the last axis of x, cos, sin",
        (3, 3),
        _infer,
        _rotary,
        _count,
    )
)


def rotate(c: Call, x: str, cos: str, sin: str, width: int) -> str:
    """Return x[.., s, d] with its first `width` elements rotated by half-width tables."""
    size = c.type(x).shape[-1]
    cos, sin = (c.add("concat", v, v, axis=c.type(v).rank - 1) for v in (cos, sin))
    if width == size:
        return c.add("rotary", x, cos, sin)
    turned = c.add("rotary", _last(c, x, 0, width), cos, sin)
    return c.add("concat", turned, _last(c, x, width, size), axis=c.type(x).rank - 1)


def rotate_pairs(c: Call, x: str, cos: str, sin: str, width: int) -> str:
    """Return `rotate` where a pair is two neighbours: they are moved into halves, and back."""
    shape = c.type(x).shape
    rank, half, lead = len(shape), width // 2, tuple(range(len(shape) - 1))
    pairs = c.reshape(_last(c, x, 0, width), (*shape[:-1], half, 2))
    halves = c.reshape(c.add("transpose", pairs, perm=(*lead, rank, rank - 1)), (*shape[:-1], width))
    turned = c.reshape(rotate(c, halves, cos, sin, width), (*shape[:-1], 2, half))
    result = c.reshape(c.add("transpose", turned, perm=(*lead, rank, rank - 1)), (*shape[:-1], width))
    return (
        result
        if width == shape[-1]
        else c.add("concat", result, _last(c, x, width, shape[-1]), axis=rank - 1)
    )


def _last(c: Call, x: str, start: int, end: int) -> str:
    shape = c.type(x).shape
    zeros = (0,) * (len(shape) - 1)
    return c.add("slice", x, starts=(*zeros, start), ends=(*shape[:-1], end), steps=(1,) * len(shape))


def _embed(c: Call, cos: str, sin: str, positions: str) -> str:
    """Return operand 0, [b,h,s,d] or [b,s,h*d], rotated by tables of rows by position, or per token."""
    shape = c.type(0).shape
    if positions:
        cos, sin = (c.add("gather", v, positions, axis=0) for v in (cos, sin))
    half = c.type(cos).shape[-1]
    x = c[0]
    if len(shape) == 3:
        heads = c.attr("num_heads", 0) or shape[2] // (2 * half)
        split = c.reshape(x, (shape[0], shape[1], heads, shape[2] // max(heads, 1)))
        x = c.add("transpose", split, perm=(0, 2, 1, 3))
    table = c.type(cos).shape
    cos, sin = (c.reshape(v, (*table[:-2], 1, *table[-2:])) for v in (cos, sin))
    width = c.attr("rotary_embedding_dim", 0) or 2 * half
    result = (rotate_pairs if c.attr("interleaved", 0) else rotate)(c, x, cos, sin, width)
    if len(shape) == 3:
        result = c.reshape(c.add("transpose", result, perm=(0, 2, 1, 3)), shape)
    return result


@onnx("RotaryEmbedding")
def _spell(c: Call) -> str:
    return _embed(c, c[1], c[2], c.optional(3))


@onnx("com.microsoft::RotaryEmbedding")
def _spell_microsoft(c: Call) -> str:
    shape, positions = c.type(0).shape, c.type(1).shape
    if positions not in ((1,), shape[:1] + shape[-2:-1]) and len(positions) != 2:
        raise Unsupported(f"its position_ids are of shape {list(positions)}")
    if len(positions) == 1:  # the position of the first token
        steps = counted(shape[-2]).reshape(1, -1)
        return _embed(c, c[2], c[3], c.add("add", c.reshape(c[1], (1, 1)), c.constant(steps)))
    return _embed(c, c[2], c[3], c[1])


@splits("rotary")
def _split(query: Query) -> NodeSplit:
    """Split all but the last axis, whose halves are turned into each other."""
    shape = query.node.type.shape
    dims = joint(query, shape, [len(shape) - 1])
    wanted = tuple(None if t is None else aligned(t, dims, shape) for t in query.types)
    return NodeSplit(wanted, (Layout(dims),))


@gradient("rotary")
def _back(b: Back) -> tuple[str, str, str]:
    """Of x c + t(x) s, t(x) = (-x2, x1): g c - t(g s), and g x, g t(x)."""
    x = ""
    if b.wants(0):
        x = b.add("sub", b.times(b.grad, b[1]), _turned(b, b.times(b.grad, b[2])))
    cos = b.times(b.grad, b[0]) if b.wants(1) else ""
    return x, cos, b.times(b.grad, _turned(b, b[0])) if b.wants(2) else ""


def _turned(b: Back, x: str) -> str:
    """Return (-x2, x1) of the halves of the last axis."""
    kind = b.type(x)
    axis, half = kind.rank - 1, kind.shape[-1] // 2
    first, second = cut(b, x, axis, 0, half), cut(b, x, axis, half, 2 * half)
    return b.add("concat", b.add("neg", second), first, axis=axis)
