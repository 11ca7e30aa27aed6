"""Attention a few heads at a time, so that the scores stay in SRAM."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from mtia_emu.machine.units.simd import FUNCTIONS

from ..build import NodeBuilder
from ..graph import Match, Node, Rewrite, Skip
from .base import Rule, Rules, become, building

BETWEEN = ("map", "cast", "softmax", *FUNCTIONS)  # what may stand between the two products of attention
HEADS = 3  # heads are the third dimension from the right: [batch, heads, rows, columns]


@dataclass(frozen=True)
class SplitIntoStrips(Rules):
    """Split softmax(q k + mask) v over heads until a strip's scores take at most `max_bytes`; 0: never."""

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    max_bytes: int = 0

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self._split,) if self.max_bytes > 0 else ()

    def _split(self, node: Node, match: Match) -> Rewrite | Skip | None:
        chain = _chain(node, match)
        if chain is None:
            return None
        sizes = {match.type_of(v).shape[1] for v in chain[0].inputs[:2]} | {n.type.shape[1] for n in chain}
        heads = math.gcd(*sizes)  # before and after regrouping
        if heads < 2:
            return Skip(
                "there is one head" if sizes == {1} else f"no number divides the heads, {sorted(sizes)}"
            )
        most = max(n.type.bytes for n in chain)
        strips = next(
            (s for s in range(1, heads + 1) if heads % s == 0 and most <= self.max_bytes * s), heads
        )
        if strips == 1:
            return Skip(f"the scores take {most} bytes, {self.max_bytes} are allowed")
        b = building(node, match)
        parts = [_strip(b, match, chain, node, i, strips) for i in range(strips)]
        return become(node, b, b.add("concat", *parts, axis=1))


def _chain(node: Node, match: Match) -> list[Node] | None:
    """Return the nodes from the scores' product to the probabilities that `node` multiplies by the values."""
    if node.op != "matmul" or len(node.inputs) != 2:
        return None
    left, right = (match.type_of(v) for v in node.inputs)
    if left.rank != 4 or right.rank != 4 or right.shape[:2] != left.shape[:2]:
        return None
    chain = _back(node.inputs[0], match)
    return chain if chain is not None and any(n.op == "softmax" for n in chain) else None


def _back(value: str, match: Match) -> list[Node] | None:
    """Return the nodes from a product to `value`, each the only user of the one before, or None."""
    maker = match.producer(value)
    if maker is None or maker.type.rank != 4 or match.only_user(value) is None:
        return None
    if maker.op in ("matmul", "matmul_map"):
        shapes = [match.type_of(v).shape for v in maker.inputs[:2]]
        return [maker] if all(len(s) == 4 for s in shapes) and shapes[0][:2] == shapes[1][:2] else None
    if maker.op not in ("reshape", *BETWEEN) or (maker.op == "softmax" and maker.attrs["axis"] != 3):
        return None
    if maker.op == "reshape" and not _keeps_heads(maker, match):
        return None
    for operand in maker.inputs:
        if maker.op == "reshape" or match.type_of(operand).shape == maker.type.shape:
            chain = _back(operand, match)
            if chain is not None:
                return [*chain, maker]
    return None


def _keeps_heads(node: Node, match: Match) -> bool:
    """Return whether a reshape only regroups heads and rows: [b, g, r*m, k] and [b, g*r, m, k]."""
    before, after = match.type_of(node.inputs[0]).shape, node.type.shape
    if len(before) != 4 or 0 in before or (before[0], before[3]) != (after[0], after[3]):
        return False
    return before[1] % after[1] == 0 or after[1] % before[1] == 0


def _strip(b: NodeBuilder, match: Match, chain: list[Node], last: Node, index: int, strips: int) -> str:
    """Return the attention of strip `index` of `strips`."""

    def part(value: str) -> str:
        return _share(b, value, index, strips) if value else value

    def shape(node: Node) -> tuple[int, ...]:
        whole = node.type.shape
        return (whole[0], whole[1] // strips, *whole[2:])

    scores = chain[0]
    attrs = dict(scores.attrs) | ({"shape": shape(scores)} if scores.op == "matmul_map" else {})
    value, old = b.add(scores.op, *map(part, scores.inputs), **attrs), scores.output
    for node in chain[1:]:
        if node.op == "reshape":
            value = b.add("reshape", value, shape=shape(node))
        else:
            value = b.add(node.op, *(value if v == old else part(v) for v in node.inputs), **node.attrs)
        old = node.output
    return b.add("matmul", value, part(last.inputs[1]), **last.attrs)


def _share(b: NodeBuilder, value: str, index: int, strips: int) -> str:
    """Return a strip's share of a value's heads; what is broadcast over heads stays whole."""
    shape = b.type_of(value).shape
    axis = len(shape) - HEADS
    if axis < 0 or shape[axis] == 1:
        return value
    width = shape[axis] // strips
    starts = [0] * len(shape)
    starts[axis] = index * width
    ends = [(index + 1) * width if i == axis else n for i, n in enumerate(shape)]
    return b.add("slice", value, starts=starts, ends=ends, steps=(1,) * len(shape), fold=False)
