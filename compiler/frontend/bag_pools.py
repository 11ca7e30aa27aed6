"""How a loop pools the rows of one bag: which reduction, and what becomes of a bag without rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .bag_body import SAME, Body, NoBag, Place, need
from .bag_rows import BRANCHES, LAST, Cut, Rows
from .scope import graph_attr

MODES = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max"}
EMPTY = {"Equal": True, "LessOrEqual": True, "Greater": False}  # a bag's end, compared so with its start
FLIPPED = {"Less": "Greater", "GreaterOrEqual": "LessOrEqual", "Equal": "Equal"}
FLIPPED |= {after: before for before, after in FLIPPED.items()}
Bounds = tuple[Place, Place, str]


@dataclass(frozen=True)
class BagResult:
    """Rows reduced to one, and the nodes that shape it behind; `zero`: where there are no rows, it is 0."""

    mode: str
    cut: Cut
    keepdims: bool
    tail: tuple[Any, ...] = ()
    zero: bool = False


class Pools:
    """Reads the pooled row of a loop's body."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.rows = Rows(body)

    def pooled(self, name: str) -> BagResult:
        """Return the reduction behind a name; raise `NoBag` where there is none that we know."""
        node = self.body.node(name)
        if node.op_type in SAME:
            inner = self.pooled(node.input[0])
            return replace(inner, tail=(*inner.tail, node))
        if node.op_type in MODES:
            return self._reduced(node)
        if node.op_type == "If":
            return self._chosen(node, list(node.output).index(name))
        if node.op_type == "Div":
            return self._mean(node)
        raise NoBag(f"%{name} is not made by {' or '.join(MODES)}")

    def _reduced(self, node: Any) -> BagResult:
        need(self.body.reduces_rows(node), "it does not reduce over rows")
        cut = self.rows.cut(node.input[0])
        need(self.body.importer.builder.type_of(cut.value).rank == 2, "its rows are no matrix")
        return BagResult(MODES[node.op_type], cut, bool(self.body.attr(node, "keepdims", 1)))

    def _mean(self, node: Any) -> BagResult:
        """Return a mean that is spelt as a sum over how many rows there are."""
        total = self.pooled(node.input[0])
        need(
            total.mode == "sum" and self._same(self._count(node.input[1]), total.cut),
            "it divides by another number",
        )
        return replace(total, mode="mean", zero=False)

    def _count(self, name: str) -> Bounds | None:
        """Return the rows whose number a name is."""
        node = self.body.find(name, "Sub", "Size", "Gather", "Shape")
        if node is None:
            return None
        if node.op_type == "Sub":
            start, end = self.body.element(node.input[1]), self.body.element(node.input[0])
            number = self.body.number(node.input[0])
            end = (LAST, number) if end is None and number is not None else end
            return None if start is None or end is None else (start, end, "")
        if node.op_type == "Gather":
            first = self.body.number(node.input[1]) == 0
            node = self.body.find(node.input[0], "Shape") if first else None
        try:
            return None if node is None else self.rows.cut(node.input[0]).bounds
        except NoBag:
            return None

    def _same(self, bounds: Bounds | None, cut: Cut) -> bool:
        """Return whether bounds are those of a cut; the last bag may be said to end where all rows end."""
        if bounds is None or (bounds[0], bounds[2]) != (cut.start, cut.keep):
            return False
        return cut.end == bounds[1] or (LAST, self.rows.length(cut.value)) in (cut.end, bounds[1])

    def _chosen(self, node: Any, at: int) -> BagResult:
        """Return what an If pools: where there are rows, if it asks for that; else in both branches."""
        branches = [graph_attr(node, name).output[at].name for name in BRANCHES]
        asked = self._empty(node.input[0])
        if asked is None:
            return self._alike(node, *branches)
        bounds, when = asked
        nothing, full = branches if when else reversed(branches)
        pooled = self.pooled(full)
        need(any(self._same(each, pooled.cut) for each in bounds), "it asks whether another bag is empty")
        known = self.body.known(nothing)
        need(not known.any() if known is not None else self._sums(nothing, pooled), "an empty bag is not 0")
        return replace(pooled, zero=True)

    def _sums(self, name: str, like: BagResult) -> bool:
        """Return whether a name is the sum of the same rows: 0, where there are none."""
        other = self.pooled(name)
        return other.mode == "sum" and other.cut == like.cut

    def _empty(self, name: str) -> tuple[list[Bounds], bool] | None:
        """Return the rows that a condition asks for, and whether it holds where there are none; else None.

        Of two numbers that are equal either may be the bag's start.
        """
        node = self.body.find(name, "Not", *FLIPPED)
        if node is None:
            return None
        if node.op_type == "Not":
            asked = self._empty(node.input[0])
            return None if asked is None else (asked[0], not asked[1])
        left, right = node.input
        ways = [
            way
            for way in ((node.op_type, left, right), (FLIPPED[node.op_type], right, left))
            if way[0] in EMPTY
        ]
        for way in ways:
            bounds = self._compared(*way)
            if bounds is not None:
                return ([b for w in ways if (b := self._compared(*w)) is not None], EMPTY[way[0]])
        return None

    def _compared(self, op: str, end: str, start: str) -> Bounds | None:
        """Return the rows of which one name is the end, or the number, and another the start, or 0."""
        places = self.body.element(start), self.body.element(end)
        if places[0] is not None and places[1] is not None:
            return places[0], places[1], ""
        return self._count(end) if self.body.number(start) == 0 else None

    def _alike(self, node: Any, first: str, second: str) -> BagResult:
        """Return what both branches pool, one of them for the last bag: it may end where all rows end."""
        equal = self.body.find(node.input[0], "Equal")
        asked = equal is not None and any(self.body.index(n) is not None for n in equal.input)
        need(asked, "its condition is neither on the rows of a bag nor on its number")
        last, other = sorted(map(self.pooled, (first, second)), key=lambda p: p.cut.end[0] != LAST)
        same = (last.mode, last.cut.value, last.keepdims) == (other.mode, other.cut.value, other.keepdims)
        need(same and self._same(last.cut.bounds, other.cut), "its branches pool in different ways")
        return replace(other, zero=last.zero and other.zero)
