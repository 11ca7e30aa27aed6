"""What a loop does to the rows of one bag, read as what it would do to the rows of all bags at once.

An iteration cuts lists and matrices at two elements of its offsets. What it then does row by row is the same
as cutting what is done to the whole; so that is done, outside the loop, and the cut alone is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..ops.elementwise import BINARY, UNARY
from .bag_body import SAME, Body, NoBag, Place, need
from .scope import graph_attr

SHAPING = ("Unsqueeze", "Squeeze", "Reshape", "Flatten")
BY_ROW = {*UNARY, *BINARY, *SAME, "Where", "Mod", "Pow", "Min", "Max", "Clip", "DequantizeLinear"}
BRANCHES = ("then_branch", "else_branch")
LAST = ""  # the list of a place that is a number: as many rows as there are


@dataclass(frozen=True)
class Cut:
    """Rows of one of our values from one place to another; where `keep` is given, those that it marks."""

    value: str
    start: Place
    end: Place
    keep: str = ""

    @property
    def bounds(self) -> tuple[Place, Place, str]:
        """Return which rows they are."""
        return self.start, self.end, self.keep


class Rows:
    """Reads the rows of a loop's body."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.builder = body.importer.builder
        self.cuts: dict[str, Cut] = {}

    def length(self, value: str) -> int:
        """Return how many rows a value of ours has."""
        kind = self.builder.type_of(value)
        need(kind.rank, f"%{value} is one number")
        return kind.shape[0]

    def cut(self, name: str) -> Cut:
        """Return what a name is of a value of ours; raise `NoBag` for what is not made row by row."""
        if name not in self.cuts:
            node = self.body.node(name)
            need(self.body.invariant(name) is None, f"%{name} is not cut at offsets")
            special = {"Slice": self._slice, "Gather": self._gather, "GatherND": self._gather}
            special |= {"Compress": self._compress, "If": self._chosen, "Loop": self._kept}
            self.cuts[name] = special.get(node.op_type, self._by_row)(node, name)
        return self.cuts[name]

    def _slice(self, node: Any, name: str) -> Cut:
        need(len(node.input) > 2 and self.body.is_plain(node), "it slices another axis, or in steps")
        value = self.body.tensor(node.input[0])
        start, end = self.bound(node.input[1], value), self.bound(node.input[2], value)
        need(start is not None and end is not None and start[0] != LAST, "its offsets are not read in turn")
        assert start is not None and end is not None
        return Cut(value, start, end)

    def _chosen(self, node: Any, name: str) -> Cut:
        """Return the rows of both branches, one of them for the last bag: it may end where all rows end."""
        at, equal = list(node.output).index(name), self.body.find(node.input[0], "Equal")
        asked = equal is not None and any(self.body.index(n) is not None for n in equal.input)
        need(asked, "its condition is not on the number of a bag")
        ends = [graph_attr(node, branch).output[at].name for branch in BRANCHES]
        last, other = sorted(map(self.cut, ends), key=lambda cut: cut.end[0] != LAST)
        same = (last.value, last.start, last.keep) == (other.value, other.start, other.keep)
        need(same and last.end == (LAST, self.length(last.value)), "its branches take different rows")
        return other

    def bound(self, name: str, value: str) -> Place | None:
        """Return the element of the offsets that a name is, or the `LAST` row of a value; None for others."""
        place, number = self.body.element(name), self.body.number(name)
        if place is None and number is not None and number >= self.length(value):
            return LAST, self.length(value)
        return place

    def _by_row(self, node: Any, name: str) -> Cut:
        need(node.op_type in BY_ROW, f"{node.op_type} in it is not done row by row")
        fixed = {n: self.body.invariant(n) for n in node.input if n}
        cuts = {n: self.cut(n) for n, value in fixed.items() if value is None}
        uncut = self._whole(
            node, name, {n: c.value for n, c in cuts.items()} | {n: v for n, v in fixed.items() if v}
        )
        first = next(iter(cuts.values()))
        need(all(c.bounds == first.bounds for c in cuts.values()), "rows that differ are put together")
        need(
            len({self.length(v) for v in (uncut, *(c.value for c in cuts.values()))}) == 1,
            "its rows are mixed",
        )
        if node.op_type in SHAPING:
            shape = self.body.known(node.input[1]) if node.op_type == "Reshape" else None
            need(shape is None or shape.reshape(-1)[0] in (-1, 0), "its rows are mixed")
        elif node.op_type != "CastLike":
            kinds = {n: self.builder.type_of(c.value) for n, c in cuts.items()}
            rank = self.builder.type_of(uncut).rank
            others = [self.builder.type_of(v) for v in fixed.values() if isinstance(v, str) and v]
            whole = all(k.rank == rank for k in kinds.values())
            need(whole and all(k.rank < rank or k.shape[0] == 1 for k in others), "its rows are mixed")
        return replace(first, value=uncut)

    def _whole(self, node: Any, name: str, given: dict[str, Any]) -> str:
        """Return what a node makes of whole values."""
        value = self.body.evaluate([node], given, name)
        need(isinstance(value, str) and value, f"{node.op_type} in it cannot be done to all rows at once")
        return str(value)

    def _gather(self, node: Any, name: str) -> Cut:
        need(
            self.body.attr(node, "axis", 0) == 0 and not self.body.attr(node, "batch_dims", 0),
            "it does not gather rows",
        )
        data, picks = node.input[0], node.input[1]
        marked = self._marked(picks)
        if marked is not None:
            return self._only(self.cut(data), marked)
        need(node.op_type == "Gather", "it does not gather rows")
        table, places = self.body.tensor(data), self.cut(picks)
        known = self.builder.known(places.value)
        if known is not None and np.array_equal(known, np.arange(self.length(table))):
            return replace(places, value=table)
        return replace(places, value=self._whole(node, name, {data: table, picks: places.value}))

    def _marked(self, picks: str) -> Cut | None:
        """Return the marks behind the places of those that are set."""
        node = self.body.makers.get(self.body.source(picks, (*SAME, "Transpose")))
        return self.cut(node.input[0]) if node is not None and node.op_type == "NonZero" else None

    def _compress(self, node: Any, name: str) -> Cut:
        rows, marks = self.cut(node.input[0]), self.cut(node.input[1])
        flat = self.builder.type_of(rows.value).rank == 1
        need(self.body.attr(node, "axis", 0 if flat else None) == 0, "it leaves out other than rows")
        return self._only(rows, marks)

    def _only(self, rows: Cut, marks: Cut) -> Cut:
        kind = self.builder.type_of(marks.value)
        need(rows.bounds == marks.bounds and not rows.keep, "it leaves out rows of other bags")
        need(
            kind.dtype.name == "bool" and kind.shape == (self.length(rows.value),),
            "its marks are not one a row",
        )
        return replace(rows, keep=marks.value)

    def _kept(self, node: Any, name: str) -> Cut:
        """Return the places of a bag's rows that an inner loop collects: those of another index than one."""
        inner, at = graph_attr(node, "body"), list(node.output).index(name)
        ins, outs = [i.name for i in inner.input], [o.name for o in inner.output]
        start, end, step = self._steps(node, ins, outs)
        choice = self.body.maker(outs[1 + at], "If")
        branches = [graph_attr(choice, name).output[0].name for name in BRANCHES]
        grows = next((i for i, name in enumerate(branches) if self.body.find(name, "Concat")), None)
        need(grows is not None, "it collects something else")
        assert grows is not None
        join, other = self.body.maker(branches[grows], "Concat"), self.body.source(branches[1 - grows])
        parts = [self.body.source(n) for n in join.input]
        need(parts == [ins[2 + at], step] and other == ins[2 + at], "it collects something else")
        first = self.body.known(node.input[2 + at])
        need(first is not None and not first.size, "what it collects is not empty at first")
        taken = self._each(choice.input[0], step)
        keep = self.builder.add("not", taken) if grows else taken
        kind = self.builder.type_of(keep)
        need(kind.rank == 1, "it does not ask for each index")
        return Cut(self.builder.constant(np.arange(kind.shape[0], dtype=np.int64)), start, end, keep)

    def _each(self, name: str, step: str) -> str:
        """Return what an inner loop computes of elements of lists, one by one, for all of them."""
        fixed = self.body.invariant(name)
        if fixed is not None:
            return self.body.tensor(name)
        node = self.body.node(name)
        if node.op_type == "Gather" and self.body.source(node.input[1]) == step:
            each = self.body.tensor(node.input[0])
            need(self.builder.type_of(each).rank == 1, "its indices are not read in turn")
            return each
        if node.op_type == "If":
            ends = [graph_attr(node, branch).output[0].name for branch in BRANCHES]
            return self.builder.add("where", *(self._each(n, step) for n in (node.input[0], *ends)))
        need(node.op_type in BY_ROW, f"{node.op_type} in it is not done index by index")
        return self._whole(node, name, {n: self._each(n, step) for n in node.input if n})

    def _steps(self, node: Any, ins: Sequence[str], outs: Sequence[str]) -> tuple[Place, Place, str]:
        """Return where an inner loop starts and ends, and what it counts by 1 in between."""
        need(not node.input[0], "an inner loop in it has a length of its own")
        for i, name in enumerate(ins[2:]):
            start = self.body.element(node.input[2 + i])
            if start is not None and self.body.plus(outs[1 + i]) == (name, 1):
                going, first = (self.body.maker(n, "Less") for n in (outs[0], node.input[1]))
                end = self.body.element(going.input[1])
                starts = self.body.plus(going.input[0]) == (name, 1)
                whole = end is not None and [self.body.element(n) for n in first.input] == [start, end]
                need(starts and whole, "an inner loop in it does not run over a bag")
                assert end is not None
                return start, end, name
        raise NoBag("an inner loop in it does not count")
