"""Attention as one kernel: both products, what stands between them, and the moves around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mtia_emu.types import AttentionWork

from ...graph import Match, Node
from ..fuse_attention import AttentionNodes, Diagonals, attention_at
from .base import Flow, MarkedGraph, Marking, NodeGroup

LAYOUT = ("transpose", "concat", "expand", "slice", "pad")
"""Moves that a kernel takes as strides or does in place: heads, the cache's new rows, shared heads."""


@dataclass(frozen=True)
class MarkAttention(Marking):
    """Mark what the pass `fuse-attention` would make one op, with the moves of elements before and after it.

    The work has the heads that share keys, and the diagonal of a causal mask, as the compiler knows them.
    """

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        diagonals, taken, groups = Diagonals(), set[str](), list[NodeGroup]()
        for node in marked.graph.nodes:
            nodes = attention_at(node, marked.match)
            if isinstance(nodes, AttentionNodes):
                mask = diagonals.of(nodes, marked.match)
                work = _work(nodes, None if mask is None else mask[1], marked.match)
                inside = _inside(nodes, work, marked) - taken  # a move that two read goes with the first
                taken |= inside
                groups.append(NodeGroup(marked.flow.in_order(inside), node.name, work))
        return marked.with_groups(groups)


def _work(nodes: AttentionNodes, diagonal: int | None, match: Match) -> AttentionWork:
    batch, heads, queries, keys = nodes.softmax.type.shape
    left, right = (match.type_of(v) for v in nodes.scores.product.inputs[:2])
    shared = right.shape[1]
    return AttentionWork(
        nodes.softmax.name,
        "attention",
        left.dtype,
        batch=batch,
        kv_heads=shared,
        group=heads // shared,
        queries=queries,
        keys=keys,
        key_size=left.shape[3],
        value_size=match.type_of(nodes.values.inputs[1]).shape[3],
        diagonal=diagonal,
    )


def _inside(nodes: AttentionNodes, work: AttentionWork, marked: MarkedGraph) -> set[str]:
    """Return the names of the nodes that the kernel of an attention stands for."""
    size = work.batch * work.kv_heads * max(work.keys, work.group * work.queries)
    moves = _moves(nodes, marked.flow, size * max(work.key_size, work.value_size))
    between = (n for n in _between(nodes, marked.match) if n.name in marked.flow.works)
    return {node.name for node in (*between, *moves)}


def _between(nodes: AttentionNodes, match: Match) -> Iterator[Node]:
    """Yield the nodes from one product to the other, each read by the next alone."""
    node = nodes.scores.product
    while node.name != nodes.values.name:
        yield node
        (node,) = match.users(node.output)
    yield node


def _moves(nodes: AttentionNodes, flow: Flow, most: int) -> Iterator[Node]:
    """Yield the moves of `most` elements between the products and the kernels before; a transpose behind."""
    seen: set[str] = set()
    frontier = [n for product in (nodes.scores.product, nodes.values) for n in flow.writers(product)]
    while frontier:
        node = frontier.pop()
        if node.name not in seen and node.op in LAYOUT and sum(t.size for t in node.types) <= most:
            seen.add(node.name)
            frontier += flow.writers(node)
            yield node
    after = flow.sole_reader(nodes.values)
    if after is not None and after.op == "transpose":
        yield after
