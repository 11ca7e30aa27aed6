"""The way back of attention as one op, which makes the scores again from each row's total."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from mtia_emu.kernels.attention.back_tape import back_tapes
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, AttentionWork, TensorType

from ..graph import Attrs
from .backward import no_gradient
from .base import Array, Arrays, Count, Op, Types, array, fits, need, register, wide
from .fused_attention import count_attention, sizes, split_attention
from .layout import NodeSplit, Query, splits

OPERANDS = 6  # before the extras


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    b, h, m, n, _, e, _ = sizes(types)
    for index, last in ((3, e), (4, 1), (5, 1)):
        if need(types[index]).shape != (b, h, m, last):
            raise UserError(f"operand {index} is {types[index]} (right: {[b, h, m, last]})")
    tape = parse(str(attrs["tape"]))
    if tape.inputs != len(types) - OPERANDS + 1 or back_tapes(tape, 0) is None:
        raise UserError("the tape takes the scores and all extras, and scales, adds or chooses")
    if not all(fits(need(t).shape, (b, h, m, n)) for t in types[OPERANDS:]):
        raise UserError(f"an operand of the tape does not broadcast to {[b, h, m, n]}")
    q, k, v = (need(t) for t in types[:3])
    return q, k, v


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    q, k, v, do, total, delta, *extras = (array(x) for x in arrays)
    (b, h, m, d), (g, n), e = q.shape, k.shape[1:3], v.shape[3]
    split = (b, g, h // g, m)
    wide_q, wide_do = wide(q).reshape(*split, d), wide(do).reshape(*split, e)
    wide_k, wide_v = wide(k)[:, :, None], wide(v)[:, :, None]
    raw = np.matmul(wide_q, wide_k.swapaxes(-1, -2))
    shares = np.matmul(wide_do, wide_v.swapaxes(-1, -2))
    tapes = back_tapes(parse(str(attrs["tape"])), 0)
    assert tapes is not None
    rows = [x.reshape(*split, 1) for x in (total, delta)]
    full = [np.broadcast_to(x, (b, h, m, n)).reshape(*split, n) for x in extras]
    p, ds = tapes.masked.evaluate([raw, shares, *rows, *full], [FP32, FP32])
    ds = ds * np.float32(tapes.factors[1])
    dq = np.matmul(ds, wide_k).reshape(q.shape)
    dk = np.matmul(ds.swapaxes(-1, -2), wide_q).sum(axis=2)
    dv = np.matmul(p.swapaxes(-1, -2), wide_do).sum(axis=2)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    count = count_attention(types, attrs)
    assert count.kind is AttentionWork
    return replace(count, sizes={**count.sizes, "back": True})


@splits("attention_back")
def _split(query: Query) -> NodeSplit:
    """Split as the attention is."""
    each, extras = split_attention(query, OPERANDS)
    return NodeSplit((*(each,) * OPERANDS, *extras), (each, each, each))


register(
    Op(
        "attention_back",
        "gradients of q, k and v of q[b,h,m,d], k[b,g,n,d], v[b,g,n,e], the result's gradient "
        "do[b,h,m,e], the rows' total [b,h,m,1] that `attention` gives with `totals`, "
        "delta [b,h,m,1] = sum(do o), and extras",
        (OPERANDS, 64),
        _infer,
        _reference,
        _count,
        ("tape",),
        ("mask", "diagonal", "guarded"),
    )
)
no_gradient("it is a gradient", "attention_back")
