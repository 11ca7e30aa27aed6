"""Attention of onnxruntime's domain that projects its operand itself, in floats or in bytes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mtia_emu.errors import UserError

from .attention import Scores, appended, attend, causal, heads, joined, padding, summed
from .shapes import take
from .spelling import Call, Unsupported, onnx


def _parts(c: Call, projected: str, sizes: tuple[int, ...]) -> tuple[str, str, str]:
    """Return q, k, v by heads from what the projection gave, [b,s,sum of sizes]."""
    if len(sizes) != 3 or c.type(projected).shape[-1] != sum(sizes):
        raise UserError(f"{c.op}: {c.type(projected)} does not split into {list(sizes)}")
    cuts = pairwise(np.cumsum([0, *sizes]).tolist())
    q, k, v = (heads(c, take(c, projected, 2, a, b), c.attr("num_heads", 0)) for a, b in cuts)
    return q, k, v


def _attention(
    c: Call, projected: str, sizes: tuple[int, ...], mask: str, past: str, bias: str
) -> tuple[str, str]:
    if c.attr("do_rotary", 0) or c.attr("past_present_share_buffer", 0):
        raise Unsupported("it rotates, or shares its cache's buffer")
    q, k, v = _parts(c, projected, sizes)
    before = c.type(past).shape[3] if past else 0
    if past:
        held = [c.reshape(take(c, past, 0, i, i + 1), c.type(past).shape[1:]) for i in (0, 1)]
        k, v = (appended(c, old, new, before) for old, new in zip(held, (k, v), strict=True))
    s, t = c.type(q).shape[2], c.type(k).shape[2]
    seen = causal(before, s, t, -1) if c.attr("unidirectional", 0) else None
    scores = Scores(
        c.attr("scale", 0.0) or c.type(q).shape[3] ** -0.5,
        "" if seen is None else c.constant(seen),
        summed(c, padding(c, mask, s, t) if mask else "", bias),
    )
    result = joined(c, attend(c, q, k, v, scores))
    if not c.wants(1):
        return result, ""
    if c.type(k).shape != c.type(v).shape:
        raise Unsupported("keys and values of different size make no cache")
    rows = [c.reshape(x, (1, *c.type(x).shape)) for x in (k, v)]
    return result, c.add("concat", *rows, axis=0)


@onnx("com.microsoft::Attention")
def _spell(c: Call) -> tuple[str, str]:
    width = c.type(1).shape[-1]
    sizes = tuple(c.attr("qkv_hidden_sizes", ())) or (width // 3,) * 3
    projected = c.add("matmul", c[0], c[1], c.optional(2))
    return _attention(c, projected, sizes, c.optional(3), c.optional(4), c.optional(5))


@onnx("com.microsoft::QAttention")
def _spell_quantised(c: Call) -> tuple[str, str]:
    """Return attention whose projection multiplies bytes."""
    total = c.compose("MatMulInteger", c[0], c[1], c.optional(6), c.optional(7))
    scale = c.add("mul", c[3], c[4])
    projected = c.add("add", c.add("mul", c.cast(total, c.type(scale).dtype.name), scale), c[2])
    sizes = (c.type(1).shape[-1] // 3,) * 3
    return _attention(c, projected, sizes, c.optional(5), c.optional(8), "")
