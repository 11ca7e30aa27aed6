"""Rotary position embedding as one op."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..graph import Match, Node, Rewrite, Skip
from .base import Rule, Rules, become, building, either


@dataclass(frozen=True)
class FuseRotary(Rules):
    """Fuse x * cos + concat(-x2, x1) * sin, x1 and x2 the halves of the last axis, into rotary."""

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_rotary,)


def _rotary(node: Node, match: Match) -> Rewrite | Skip | None:
    """x * cos + turned(x) * sin, each operand order."""
    if node.op != "add":
        return None
    for left, right in either(node):
        straight, turned = match.producer(left, "mul"), match.producer(right, "mul")
        if straight is None or turned is None:
            continue
        for half, sin in either(turned):
            x = _turned(half, match)
            if x is None or x not in straight.inputs:
                continue
            if match.type_of(x) != node.type:
                return Skip(f"the angles make {node.type} of {match.type_of(x)}")
            cos = straight.inputs[1] if straight.inputs[0] == x else straight.inputs[0]
            b = building(node, match)
            return become(node, b, b.add("rotary", x, cos, sin))
    return None


def _turned(value: str, match: Match) -> str | None:
    """Return x where the value is concat(-x[half:], x[:half]) along the last axis."""
    joined = match.producer(value, "concat")
    if joined is None or len(joined.inputs) != 2 or joined.attrs["axis"] != joined.type.rank - 1:
        return None
    negative, low = match.producer(joined.inputs[0], "neg"), match.producer(joined.inputs[1], "slice")
    high = match.producer(negative.inputs[0], "slice") if negative is not None else None
    if low is None or high is None or low.inputs[0] != high.inputs[0]:
        return None
    x = match.type_of(low.inputs[0])
    half, rank = x.shape[-1] // 2, x.rank
    if x != joined.type or low.type.shape[-1] != half or high.type.shape != low.type.shape:
        return None
    zeros = (0,) * rank
    right = low.attrs["starts"] == zeros and high.attrs["starts"] == (*zeros[:-1], half)
    plain = low.attrs["steps"] == high.attrs["steps"] == (1,) * rank
    return low.inputs[0] if right and plain else None
