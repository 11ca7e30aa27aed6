"""Attention as one op: products, softmax and what stands between them."""

from __future__ import annotations

import numpy as np
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, FP64, AttentionWork, TensorType

from ..graph import Attrs
from .base import Array, Arrays, Count, Op, Types, array, fits, integer, need, register, same_dtype, wide


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
