"""Grouped-query attention: keys and values that several query heads share are read once, not repeated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..graph import Match, Node, Rewrite, Skip
from .base import Rule, Rules, become, building, is_row


@dataclass(frozen=True)
class GroupHeads(Rules):
    """Make matmul(q[b,g*r,m,k], repeat(kv[b,g,..], r)) one product of r*m rows for each shared head."""

    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_unrolled, _shared)


def _unrolled(node: Node, match: Match) -> Rewrite | None:
    """Make keys that exporters turn in three dimensions, [b*h,s,d], turn in four, where heads are seen."""
    turned = match.producer(node.inputs[0], "transpose") if node.op == "reshape" else None
    if turned is None or turned.type.rank != 3 or node.type.rank != 4 or turned.attrs["perm"] != (0, 2, 1):
        return None
    batch, heads, d, s = node.type.shape
    if turned.type.shape != (batch * heads, d, s):
        return None
    b = building(node, match)
    keys = b.add("reshape", turned.inputs[0], shape=(batch, heads, s, d))
    return become(node, b, b.add("transpose", keys, perm=(0, 1, 3, 2)))


def _shared(node: Node, match: Match) -> Rewrite | Skip | None:
    if node.op != "matmul" or any(match.type_of(v).rank != 4 for v in node.inputs[:2]):
        return None
    turned = match.producer(node.inputs[1], "transpose")
    if turned is not None and turned.attrs["perm"] != (0, 1, 3, 2):
        return None
    repeated = turned.inputs[0] if turned is not None else node.inputs[1]
    repeat = _repeat(repeated, match)
    if repeat is None:
        return None
    extras = [match.type_of(v) for v in node.inputs[2:] if v]
    if any(t.size != 1 and not is_row(t, node.type.shape[3]) for t in extras):
        return Skip("the product has a bias or scale that is neither a number nor a row")
    kv, groups, times = repeat
    batch, heads, m, k = match.type_of(node.inputs[0]).shape
    if batch != match.type_of(kv).shape[0] or heads != groups * times:
        return Skip(f"{heads} query heads on {groups} shared heads repeated {times} times")
    b = building(node, match)
    q = b.add("reshape", node.inputs[0], shape=(batch, groups, times * m, k))
    right = b.add("transpose", kv, perm=(0, 1, 3, 2)) if turned is not None else kv
    product = b.add("matmul", q, right, *node.inputs[2:], **node.attrs)
    return become(node, b, b.add("reshape", product, shape=node.type.shape))


def _repeat(value: str, match: Match) -> tuple[str, int, int] | None:
    """Return (kv[b,g,s,d], g, r) where the value is kv with each head repeated r times in place."""
    for_all = match.producer(value, "expand")
    if for_all is not None:
        return _one_for_all(for_all, match)
    merged = match.producer(value, "reshape")
    spread = match.producer(merged.inputs[0], "expand") if merged is not None else None
    if merged is None or spread is None or merged.type.rank != 4 or spread.type.rank != 5:
        return None
    narrow = match.type_of(spread.inputs[0]).shape
    batch, groups, times, s, d = spread.type.shape
    if narrow != (batch, groups, 1, s, d) or merged.type.shape != (batch, groups * times, s, d):
        return None
    wide = match.producer(spread.inputs[0], "reshape")
    if wide is None or match.type_of(wide.inputs[0]).shape != (batch, groups, s, d):
        return None
    return (wide.inputs[0], groups, times) if math.prod(spread.type.shape) else None


def _one_for_all(node: Node, match: Match) -> tuple[str, int, int] | None:
    """Return (kv[b,1,s,d], 1, r) where an expand gives each of r heads the only one there is."""
    narrow = match.type_of(node.inputs[0]).shape
    if len(narrow) != 4 or narrow[1] != 1 or not math.prod(node.type.shape):
        return None
    batch, _, s, d = narrow
    times = node.type.shape[1]
    return (node.inputs[0], 1, times) if node.type.shape == (batch, times, s, d) and times > 1 else None
