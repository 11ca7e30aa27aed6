"""Attention as one kernel: both products, what stands between them, and the moves around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mtia_emu.types import AttentionWork

from ...graph import Match, Node
from ..fuse_attention import HIDDEN, AttentionNodes, Diagonals, attention_at, mask_use
from .base import Flow, MarkedGraph, Marking, NodeGroup
from .masks import Array, Bounds, MaskBounds

LAYOUT = ("transpose", "concat", "expand", "slice", "pad")
"""Moves that a kernel takes as strides or does in place: heads, the cache's new rows, shared heads."""


@dataclass(frozen=True)
class MarkAttention(Marking):
    """Mark what the pass `fuse-attention` would make one op, with the moves of elements before and after it.

    The work has the heads that share keys, and the diagonal of a causal mask, as the compiler knows them. Of
    a mask that inputs of the model are part of, it knows what is hidden whatever they are (`masks.py`).
    """

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        masks, taken, groups = _Masks(marked.match), set[str](), list[NodeGroup]()
        for node in marked.graph.nodes:
            nodes = attention_at(node, marked.match)
            if isinstance(nodes, AttentionNodes):
                work = _work(nodes, masks.diagonal(nodes), marked.match)
                inside = _inside(nodes, work, marked) - taken  # a move that two read goes with the first
                taken |= inside
                groups.append(NodeGroup(marked.flow.in_order(inside), node.name, work))
        return marked.with_groups(groups)


@dataclass
class _Masks:
    """What is known of the masks of one graph: the diagonals of constant ones, the bounds of others."""

    match: Match
    diagonals: Diagonals = field(default_factory=Diagonals)
    known: dict[tuple[str, bool, tuple[int, ...]], int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bounds = MaskBounds(self.match)

    def diagonal(self, nodes: AttentionNodes) -> int | None:
        """Return the least diagonal behind which a mask of an attention hides all keys; None for none."""
        exact = self.diagonals.of(nodes, self.match)
        if exact is not None:
            return exact[1]
        each = [self._of(nodes, index, name) for index, name in enumerate(nodes.scores.extras, 1)]
        return min((d for d in each if d is not None), default=None)

    def _of(self, nodes: AttentionNodes, index: int, name: str) -> int | None:
        """Return the diagonal behind which an operand of the scores' tape hides all keys, for certain."""
        by_truth = mask_use(nodes.scores.tape, index, nodes.scores.extras, self.match)
        shape = nodes.softmax.type.shape[2], nodes.softmax.type.shape[3]
        if by_truth is None or self.match.type_of(name).shape[-2:] != shape:
            return None
        key = (name, by_truth, shape)
        if key not in self.known:
            self.known[key] = self.bounds.diagonal(name, shape, _untrue if by_truth else _lowest)
        return self.known[key]


def _untrue(bounds: Bounds) -> Array:
    return (bounds.low == 0) & (bounds.high == 0)


def _lowest(bounds: Bounds) -> Array:
    return bounds.high <= HIDDEN


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
        shared_size=_shared(nodes, match),
    )


def _shared(nodes: AttentionNodes, match: Match) -> int:
    """Return how many elements of a value are some of its key: keys are values with more joined to them."""
    keys = _source(nodes.scores.product.inputs[1], match, "transpose")
    values = _source(nodes.values.inputs[1], match)
    joined = match.producer(keys, "concat")
    size = match.type_of(nodes.values.inputs[1]).shape[3]
    if joined is None or joined.attrs["axis"] % joined.type.rank != joined.type.rank - 1:
        return 0
    return size if any(_source(part, match) == values for part in joined.inputs) else 0


def _source(value: str, match: Match, *moves: str) -> str:
    """Return what a value is a view of, through changes of shape (and other `moves`)."""
    node = match.producer(value, "reshape", *moves)
    while node is not None:
        value = node.inputs[0]
        node = match.producer(value, "reshape", *moves)
    return value


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
