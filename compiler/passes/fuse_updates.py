"""Rows of tables and of an optimiser's states, changed where they lie by one kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from mtia_emu.kernels.rows.tape import Source, TapeBuilder

from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.types import FP32

from ..graph import Match, Node, Rewrite, Skip
from ..ops.base import integers
from .base import Rule, Rules, building

VANISHING = ("neg", "cast", "reduce_mean", "reduce_sum")  # of zeros they make zeros
MOST_STEPS = 64


@dataclass(frozen=True)
class FuseUpdates(Rules):
    """Make of an optimiser's step on rows that were looked up one op: `update_rows`.

    What it finds is as training steps write it: rows of tables that are replaced, or added to, where the same
    indices say, by elementwise work (and means of rows) on old rows, numbers, and the sum of each row's
    gradients. Gradients that are gathered, and scaled by a number, are read where they come from, and scaled
    when they are summed.
    """

    prunes: ClassVar[bool] = True
    rounds: ClassVar[int] = 1  # what it makes, it does not match

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (self._fuse,)

    def _fuse(self, node: Node, match: Match) -> Rewrite | Skip | None:
        if not _changes(node, match):
            return None
        alike = [
            n for n in match.nodes("scatter_rows") if _changes(n, match) and n.inputs[1] == node.inputs[1]
        ]
        update = _Update(match, tuple(alike))
        try:
            results = [update.next_rows(n) for n in alike]
        except _Other as other:
            return Skip(str(other))
        b = building(node, match)
        attrs: dict[str, Any] = {"tape": str(update.tape.done(*results)), "tables": len(alike)}
        made = b.adds("update_rows", *update.operands, fold=False, **attrs)
        return b.rewrite({n.output: value for n, value in zip(alike, made, strict=True)})


class _Other(Exception):
    """What is no step of an optimiser; its text says why."""


def _changes(node: Node, match: Match) -> bool:
    """Return whether a node gives the next value of a table that is an input."""
    reduction = node.attrs.get("reduction", "none") if node.op == "scatter_rows" else ""
    return reduction in ("none", "add") and match.is_input(node.inputs[0]) and match.is_output(node.output)


@dataclass
class _Update:
    """The tape of an update while it is found, and what it reads besides tables."""

    match: Match
    nodes: tuple[Node, ...]
    numbers: list[str] = field(default_factory=list)
    gradient: str = ""
    known: dict[str, Source] = field(default_factory=dict)
    scales: list[tuple[str, str]] = field(default_factory=list)  # ops and numbers, first to last
    places: str = ""

    def __post_init__(self) -> None:
        self.tables = [n.inputs[0] for n in self.nodes]
        self.indices = self.nodes[0].inputs[1]
        self.rows = self.match.type_of(self.indices).size
        self.tape = TapeBuilder(0)
        self.whole: bool | None = None

    @property
    def operands(self) -> tuple[str, ...]:
        """Return the operands of the op."""
        return (*self.tables, self.indices, self.gradient, self.places, *self.numbers)

    def next_rows(self, node: Node) -> Source:
        """Return the source of the rows that a node puts, or of old ones with those that it adds."""
        adds = node.attrs.get("reduction", "none") == "add"
        self.whole, rows = not adds, node.inputs[2]
        if adds and not self._vanishes(rows):
            raise _Other(f"%{rows} may not be 0 where the gradient is")
        if adds and self.match.type_of(rows).dtype != FP32:
            raise _Other(f"%{rows} is no fp32")
        new = self._source(rows)
        result = self.tape.call("add", 1 + self.tables.index(node.inputs[0]), new) if adds else new
        self.tape.inputs = 1 + len(self.tables) + len(self.numbers)
        return result

    def _source(self, value: str) -> Source:
        """Return the source of a value that has a row for each index, or of a number."""
        if value not in self.known:
            self.known[value] = self._found(value)
            if len(self.tape.steps) > MOST_STEPS:
                raise _Other(f"it takes more than {MOST_STEPS} steps")
        return self.known[value]

    def _found(self, value: str) -> Source:
        kind, node = self.match.type_of(value), self.match.producer(value)
        if (kind.size == 1 and self.rows > 1) or kind.rank == 0:
            return self._number(value)
        if node is None:
            raise _Other(f"%{value} has no row for each index")
        if (summed := self._sum_of(node)) is not None:
            return summed
        if node.op == "gather" and node.inputs[1] == self.indices and node.inputs[0] in self.tables:
            return 1 + self.tables.index(node.inputs[0])
        if kind.rank != 2 or kind.shape[0] != self.rows:
            raise _Other(f"%{value} has no row for each index")
        return self._step(node)

    def _number(self, value: str) -> Source:
        if value not in self.numbers:
            self.numbers.append(value)
        return 1 + len(self.tables) + self.numbers.index(value)

    def _sum_of(self, node: Node) -> Source | None:
        """Return the source of a gradient's sum: once, at the first index, or whole, at each."""
        whole = node.op == "gather" and self._is_first(node.inputs[1])
        once = self.match.producer(node.inputs[0], "scatter_rows") if whole else node
        if once is None or once.op != "scatter_rows" or not self._is_first(once.inputs[1]):
            return None
        if (
            whole != self.whole
            or once.attrs.get("reduction", "none") != "add"
            or not _zero(self.match, once.inputs[0])
        ):
            raise _Other(f"%{node.output} is no sum of rows, of each at one place")
        if not self.gradient:
            self._gather(once.inputs[2])
            self.given = once.inputs[2]
        if once.inputs[2] != self.given:
            raise _Other(f"%{node.output} sums other rows than %{self.given}")
        source: Source = 0
        for op, number in reversed(self.scales):
            source = self.tape.call(op, source, self._source(number))
        return source

    def _is_first(self, value: str) -> bool:
        node = self.match.producer(value, "first_equal")
        return node is not None and node.inputs[0] == self.indices

    def _gather(self, value: str) -> None:
        """Find where rows of a gradient come from, through casts to wider floats, numbers and places."""
        match, shape = self.match, self.match.type_of(value).shape
        node = match.producer(value)
        while node is not None and match.type_of(node.inputs[0]).shape == shape:
            before = match.type_of(node.inputs[0]).dtype
            if node.op in ("mul", "div") and match.type_of(node.inputs[1]).size == 1:
                self.scales.append((node.op, node.inputs[1]))
            elif node.op != "cast" or not before.is_float or before.bits > node.type.dtype.bits:
                break
            value = node.inputs[0]
            node = match.producer(value)
        if node is not None and node.op == "gather" and match.type_of(node.inputs[0]).rank == 2:
            where = match.type_of(node.inputs[1])
            if where.shape == (self.rows,) and not node.attrs.get("axis", 0):
                value, self.places = node.inputs
        self.gradient = value

    def _step(self, node: Node) -> Source:
        """Append what a node does to the tape."""
        to = node.type.dtype
        if node.op in ("reduce_mean", "reduce_sum") and self._folds(node):
            cols = self.match.type_of(node.inputs[0]).shape[1]
            total = self.tape.call("fold_sum", self._source(node.inputs[0]), to=to)
            return self.tape.call("div", total, float(cols), to=to) if node.op == "reduce_mean" else total
        if node.op == "cast" and to.is_float and to.bits > 8:
            return self.tape.call("copy", self._source(node.inputs[0]), to=to)
        if node.op not in FUNCTIONS or not (to.is_float or to.name == "bool"):
            raise _Other(f"{node.op} is no elementwise work on floats")
        return self.tape.call(node.op, *map(self._source, node.inputs), to=to)

    def _folds(self, node: Node) -> bool:
        return integers(node.attrs, "axes") in ((1,), (-1,)) and bool(node.attrs.get("keepdims", True))

    def _vanishes(self, value: str) -> bool:
        """Return whether a value is 0 where the gradient is."""
        node = self.match.producer(value)
        if node is None:
            return False
        if node.op == "scatter_rows":
            return self._is_first(node.inputs[1])
        every: dict[str, Callable[[list[bool]], bool]] = {"mul": any, "add": all, "sub": all}
        if node.op in every:
            return every[node.op]([self._vanishes(v) for v in node.inputs])
        return node.op in ("div", *VANISHING) and self._vanishes(node.inputs[0])


def _zero(match: Match, value: str) -> bool:
    """Return whether a value is made of zeros alone."""
    node = match.producer(value, "expand")
    const = match.const(value if node is None else node.inputs[0])
    return const is not None and const.present and not np.any(const.array(value))
