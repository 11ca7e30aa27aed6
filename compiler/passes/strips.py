"""Attention a few heads at a time, so that the scores stay in SRAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtia_emu.types import TensorType
from mtia_emu.units.simd import FUNCTIONS

from ..build import Builder
from ..graph import Match, Node, Rewrite, Skip
from .base import Rule, Rules, become, building

BETWEEN = ("map", "cast", "softmax", *FUNCTIONS)  # what may stand between the two products of attention


@dataclass(frozen=True)
class Strips(Rules):
    """Split softmax(q k + mask) v over heads until the scores of a strip take at most `max_bytes`; 0 splits nothing."""

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    max_bytes: int = 0

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self._split,) if self.max_bytes > 0 else ()

    def _split(self, node: Node, match: Match) -> Rewrite | Skip | None:
        chain = _chain(node, match)
        if chain is None:
            return None
        heads = match.type_of(chain[0].inputs[0]).shape[1]
        most = max(n.type.bytes for n in chain)
        strips = next((s for s in range(1, heads + 1) if heads % s == 0 and most <= self.max_bytes * s), heads)
        if strips == 1:
            return Skip(f"the scores take {most} bytes, {self.max_bytes} are allowed" if heads > 1 else "one head")
        b = building(node, match)
        parts = [_strip(b, match, chain, node, i, heads // strips) for i in range(strips)]
        return become(node, b, b.add("concat", *parts, axis=1))


def _chain(node: Node, match: Match) -> list[Node] | None:
    """Return the nodes from the scores' product to the probabilities that `node` multiplies by the values."""
    if node.op != "matmul" or node.type.rank != 4 or len(node.inputs) != 2:
        return None
    chain: list[Node] = []
    value = node.inputs[0]
    while True:
        maker = match.producer(value)
        if maker is None or maker.type.rank != 4 or match.only_user(value) is None:
            return None
        chain.append(maker)
        if maker.op in ("matmul", "matmul_map"):
            break
        if maker.op == "reshape" and not _keeps_heads(maker, match):
            return None
        if maker.op not in ("reshape", *BETWEEN):
            return None
        if maker.op == "softmax" and maker.attrs["axis"] != 3:
            return None
        value = _main(maker, match)
    left, right = (match.type_of(v) for v in chain[-1].inputs[:2])
    heads = left.shape[1] if left.rank == right.rank == 4 else 0
    if not heads or heads != right.shape[1] or chain[-1].type.shape[1] % heads:
        return None
    return chain[::-1] if any(n.op == "softmax" for n in chain) else None


def _main(node: Node, match: Match) -> str:
    """Return the operand of an elementwise node that is as large as its result and made by a node."""
    same = [v for v in node.inputs if v and match.type_of(v).shape == node.type.shape and match.producer(v) is not None]
    return same[0] if same else node.inputs[0]


def _keeps_heads(node: Node, match: Match) -> bool:
    """Return whether a reshape only regroups heads and rows: [b, g, r*m, k] and [b, g*r, m, k]."""
    before, after = match.type_of(node.inputs[0]).shape, node.type.shape
    if len(before) != 4 or (before[0], before[3]) != (after[0], after[3]):
        return False
    return before[1] % after[1] == 0 or after[1] % before[1] == 0


def _strip(b: Builder, match: Match, chain: list[Node], last: Node, index: int, width: int) -> str:
    """Return the attention of one strip: `width` heads of the scores' product, from index * width on."""
    scores = chain[0]
    heads = match.type_of(scores.inputs[0]).shape[1]

    def part(value: str, of: int) -> str:
        """Return the strip's share of a value of which the whole has `of` heads."""
        return _heads(b, value, of, index, width * of // heads)

    def shape(node: Node) -> tuple[int, ...]:
        whole = node.type.shape
        return (whole[0], whole[1] * width // heads, *whole[2:])

    extras = [part(v, scores.type.shape[1]) if v else v for v in scores.inputs[2:]]
    attrs = dict(scores.attrs) | ({"shape": shape(scores)} if scores.op == "matmul_map" else {})
    value = b.add(scores.op, part(scores.inputs[0], heads), part(scores.inputs[1], heads), *extras, **attrs)
    old = scores.output
    for node in chain[1:]:
        if node.op == "reshape":
            value = b.add("reshape", value, shape=shape(node))
        else:
            inputs = [value if v == old else part(v, node.type.shape[1]) for v in node.inputs]
            value = b.add(node.op, *inputs, **node.attrs)
        old = node.output
    return b.add("matmul", value, part(last.inputs[1], heads), **last.attrs)


def _heads(b: Builder, value: str, heads: int, index: int, width: int) -> str:
    """Return the heads of a strip; what is broadcast over heads stays whole."""
    kind: TensorType = b.type_of(value)
    if kind.rank < 4 or kind.shape[1] == 1 or kind.shape[1] != heads:
        return value
    starts = (0, index * width, 0, 0)
    ends = (kind.shape[0], (index + 1) * width, *kind.shape[2:])
    return b.add("slice", value, starts=starts, ends=ends, steps=(1, 1, 1, 1), fold=False)
