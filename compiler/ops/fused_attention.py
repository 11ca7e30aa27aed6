"""Attention as one op: products, softmax and what stands between them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from mtia_emu.kernels.attention.back_tape import back_tapes
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, FP64, AttentionWork, TensorType

from ..graph import Attrs, Graph, Node
from .backward import Back, gradient
from .base import Array, Arrays, Count, Op, Types, array, fits, integer, need, register, same_dtype, wide
from .layout import WHOLE, Layout, NodeSplit, Query, aligned, splits
from .map import unfolded
from .move import cut

SCORES = 1 << 24  # of queries by keys, in all heads, that are there at once on the way back
BLOCKS = 32  # parts that queries are cut into for that, at most


def sizes(types: Types) -> tuple[int, int, int, int, int, int, int]:
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
    b, h, m, n, _, e, _ = sizes(types)
    tape, mask = parse(str(attrs["tape"])), integer(attrs, "mask", 0)
    if tape.inputs != len(types) - 2 or len(tape.results) != 1 or tape.row_wise:
        raise UserError(
            f"the tape takes {tape.inputs} operands; there are {len(types) - 2}: scores and others"
        )
    if not all(fits(need(t).shape, (b, h, m, n)) for t in types[3:]):
        raise UserError(f"an operand of the tape does not broadcast to {[b, h, m, n]}")
    if not 0 <= mask < tape.inputs or integer(attrs, "diagonal", 0) < 0:
        raise UserError("the mask is an operand of the tape, 1 or more, its diagonal 0 or more")
    totals = (TensorType(FP32, (b, h, m, 1)),) if attrs.get("totals", False) else ()
    return (TensorType(same_dtype(types[:3]), (b, h, m, e)), *totals)


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    q, k, v = (array(x) for x in arrays[:3])
    shape = (*k.shape[:2], q.shape[1] // k.shape[1], *q.shape[2:])
    raw = np.matmul(wide(q).reshape(shape), wide(k)[:, :, None].swapaxes(-1, -2))
    raw = raw.reshape(*q.shape[:3], k.shape[2])
    tape = parse(str(attrs["tape"]))
    (scores,) = tape.evaluate(
        [raw, *(array(x) for x in arrays[3:])], [FP32 if raw.dtype == np.float32 else FP64]
    )
    most = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    powers = np.exp(scores - most)
    summed = powers.sum(axis=-1, keepdims=True)
    weights = powers / summed
    if attrs.get("guarded", False):
        weights = np.where(np.isnan(weights), 0, weights)
    weights = weights.reshape(*shape[:-1], k.shape[2])
    out = np.matmul(weights, wide(v)[:, :, None])
    totals = ((most + np.log(summed)).astype(np.float32),) if attrs.get("totals", False) else ()
    return (out.reshape(*q.shape[:3], v.shape[3]).astype(q.dtype), *totals)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    return count_attention(types, attrs)


def count_attention(types: Types, attrs: Attrs) -> Count:
    """Return the work of attention of such operands."""
    b, h, m, n, d, e, g = sizes(types)
    counts = {"batch": b, "kv_heads": g, "group": h // g, "queries": m, "keys": n, "key_size": d}
    mask = {"diagonal": integer(attrs, "diagonal")} if "diagonal" in attrs else {}
    return Count(AttentionWork, {**counts, "value_size": e, **mask})


register(
    Op(
        "attention",
        "softmax(tape(q k^T, ...)) v of q[b,h,m,d], k[b,g,n,d], v[b,g,n,e]; input `mask` of the tape hides "
        "keys j > i + `diagonal`; with `guarded` rows with no key to see are 0; "
        "with `totals` also the logarithm of each row's sum of powers",
        (3, 64),
        _infer,
        _reference,
        _count,
        ("tape",),
        ("mask", "diagonal", "guarded", "totals"),
    )
)


@splits("attention")
def _split(query: Query) -> NodeSplit:
    each, extras = split_attention(query, 3)
    return NodeSplit((each, each, each, *extras), (each,) * (1 + bool(query.node.attrs.get("totals", False))))


def split_attention(query: Query, extras: int) -> tuple[Layout, tuple[Layout | None, ...]]:
    """Split the batch, and heads where those of keys divide as those of queries do.

    Return the layout of q, k and v, and those of the operands from `extras` on.
    """
    b, h, m, n, _, _, groups = sizes(query.types)
    first = query.layouts[0]
    assert first is not None
    batch, heads = first.dims[:2]
    if query.policy.dividing(heads, groups) != heads:
        heads = WHOLE
    dims, each = (batch, heads, WHOLE, WHOLE), Layout((batch, heads, WHOLE, WHOLE))
    rest = tuple(None if t is None else aligned(t, dims, (b, h, m, n)) for t in query.types[extras:])
    return each, rest


@gradient("attention")
def _back(b: Back) -> tuple[str, ...]:
    """Compute the scores again, some queries at a time, and go back through them: none is kept for it.

    Queries that see no key behind theirs (`diagonal`) leave those keys out. Where the node gives its totals,
    one op does all of it.
    """
    if len(b.node.outputs) > 1 and not any(b.wanted[3:]):
        return _at_once(b)
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


def with_totals(graph: Graph) -> Graph:
    """Return the graph whose attention also gives the totals of its rows, where their way back is one op.

    That is so where all scores are more than would be there at once, and their tape is one that it takes.
    """
    nodes = []
    for node in graph.nodes:
        if node.op == "attention" and len(node.outputs) == 1 and _is_large(graph, node):
            b, h, m, _ = node.type.shape
            name, kind = f"{node.output}.totals", TensorType(FP32, (b, h, m, 1))
            attrs = {**node.attrs, "totals": True}
            node = replace(node, outputs=(node.output, name), types=(node.type, kind), attrs=attrs)
        nodes.append(node)
    return graph.with_nodes(nodes)


def _is_large(graph: Graph, node: Node) -> bool:
    scores = math.prod(node.type.shape[:3]) * graph.type_of(node.inputs[1]).shape[2]
    return scores > SCORES and back_tapes(parse(str(node.attrs["tape"])), 0) is not None


def _at_once(b: Back) -> tuple[str, ...]:
    """Return the gradients by one op, which makes the scores again from the totals of their rows."""
    given = b.cast(b.grad, b.type(0))
    delta = b.add("mul", b.wide(given), b.wide(b.out))
    delta = b.add("reduce_sum", delta, axes=(3,), keepdims=True)
    attrs = {name: x for name, x in b.node.attrs.items() if name != "totals"}
    operands = (b[0], b[1], b[2], given, b.node.outputs[1], delta, *b.node.inputs[3:])
    made = b.builder.adds("attention_back", *operands, hint=f"{b.node.name}.grad", **attrs)
    return (*made, *("" for _ in b.node.inputs[3:]))


def _some(b: Back, start: int, end: int) -> str:
    """Return the attention of queries `start` to `end`, by ops of their own."""
    batch, heads, _, keys, dim, size, groups = sizes([b.type(i) for i in range(3)])
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
