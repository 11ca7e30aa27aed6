"""Loops written out, rolled up again: one scan for the state, all steps at once for what is around it.

Iterations of a loop are the same nodes on other values. What one value is in all of them is a *column*: a
name for each step. A column that no step hands on is computed for all steps at once, along a new first axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mtia_emu.machine.units.simd import FUNCTIONS

from ..build import NodeBuilder
from ..graph import Node
from ..nodes import freeze_attrs
from ..ops.base import integer, integers
from ..ops.trace import NoTape, traced

LEAST = 16  # steps of a loop that is rolled up; a shorter one is as well written out
MOST_ELEMENTS = 1 << 29  # of a value of all steps: written out, a step's are gone before the next one's come
Column = tuple[str, ...]


class NotAlike(Exception):
    """Iterations cannot be computed at once, and why."""


class All(NamedTuple):
    """A value of all steps: one `name`, the same in each, or `moving` along its first axis."""

    name: str
    moving: bool


def rolled(
    builder: NodeBuilder, states: Sequence[Column], results: Sequence[Column]
) -> tuple[list[str], list[str]] | None:
    """Return the last value of each state, and each result stacked along a first axis; None: steps differ.

    A state's column has its value before each step and the last one. One state at most may be made of the one
    before, element by element. Where constants were folded in the first step it may stand by itself.
    """
    whole = _at_once(builder, states, results)
    if whole is not None:
        return whole
    rest = _at_once(builder, [state[1:] for state in states], [column[1:] for column in results])
    if rest is None:
        return None
    last, stacks = rest
    firsts = (builder.add("reshape", c[0], shape=(1, *builder.type_of(c[0]).shape)) for c in results)
    return last, [builder.add("concat", *pair, axis=0) for pair in zip(firsts, stacks, strict=True)]


def _at_once(
    builder: NodeBuilder, states: Sequence[Column], results: Sequence[Column]
) -> tuple[list[str], list[str]] | None:
    steps = len(states[0]) - 1 if states else len(results[0]) if results else 0
    if steps < LEAST:
        return None
    try:
        roll = _Roll(builder, steps)
        for state in states:
            roll.add(state)
        stacked = [roll.stacked(column) for column in results]
    except (NotAlike, NoTape):
        return None
    return [roll.last(state) for state in states], stacked


@dataclass
class _Roll:
    builder: NodeBuilder
    steps: int
    known: dict[Column, All] = field(default_factory=dict)
    state: Column = ()
    ends: dict[Column, str] = field(default_factory=dict)
    depending: dict[Column, bool] = field(default_factory=dict)

    def add(self, state: Column) -> None:
        """Make the scan of a state that steps change; others are what they are."""
        old, new = state[:-1], state[1:]
        if len(set(state)) == 1 or all(self.builder.const_of(v) is not None for v in state):
            return
        if self.state:
            raise NotAlike("two states change")
        self.state = old
        stack = self._scan(old, new)
        self.known[new] = All(stack, True)
        self.ends[state] = self._element(stack, self.steps - 1)
        earlier = self._slice(stack, 0, 0, self.steps - 1)
        self.known[old] = All(self.builder.add("concat", self._row(old[0]), earlier, axis=0), True)

    def _scan(self, old: Column, new: Column) -> str:
        """Return the states behind all steps, one after the other."""
        leaves = sorted(dict.fromkeys(self._leaves(new)), key=lambda c: not self.of(c).moving)
        every = [self.of(column) for column in leaves]
        scanned = sum(x.moving for x in every)
        if not scanned:
            raise NotAlike("nothing is scanned")
        tapes = traced(self.builder, [old[1], *(column[1] for column in leaves)], [new[1]])
        names = [x.name for x in every]
        return self.builder.add("scan", old[0], *names, scanned=scanned, tapes=tuple(map(str, tapes)))

    def last(self, state: Column) -> str:
        """Return the last value of a state."""
        return self.ends.get(state, state[-1])

    def stacked(self, column: Column) -> str:
        """Return a column as one tensor, a step after the other along a new first axis."""
        value = self.of(column)
        if value.moving:
            return value.name
        shape = self.builder.type_of(value.name).shape
        return self.builder.add("expand", self._row(value.name), shape=(self.steps, *shape))

    def of(self, column: Column) -> All:
        """Return a column for all steps at once; raise `NotAlike`."""
        if column not in self.known:
            if self.steps * self.builder.type_of(column[0]).size > MOST_ELEMENTS:
                raise NotAlike("all steps at once take too much memory")
            self.known[column] = self._new(column)
        return self.known[column]

    def _leaves(self, column: Column) -> list[Column]:
        """Return the columns, free of the state, that the next state is made of."""
        if column == self.state:
            return []
        if not self._depends(column):
            const = self.builder.const_of(column[0])
            number = len(set(column)) == 1 and const is not None and const.type.size == 1
            return [] if number else [column]
        if self._node(column).op not in FUNCTIONS:
            raise NotAlike("a state goes through what is not elementwise")
        return [leaf for operand in self._operands(column) for leaf in self._leaves(operand)]

    def _depends(self, column: Column) -> bool:
        """Return whether a column is made of the state's old values."""
        if column == self.state:
            return True
        if column not in self.depending:
            made = len(set(column)) > 1 and self.builder.producer(column[0]) is not None
            self.depending[column] = made and any(map(self._depends, self._operands(column)))
        return self.depending[column]

    def _node(self, column: Column) -> Node:
        """Return the node that makes a column in its second step."""
        node = self.builder.producer(column[1])
        if node is None:
            raise NotAlike(f"%{column[1]} is no result")
        return node

    def _operands(self, column: Column) -> list[Column]:
        """Return the operands of a column's nodes, all of one op, as columns."""
        nodes = [self.builder.producer(v) for v in column]
        first = nodes[0]
        if first is None or any(n is None or n.op != first.op for n in nodes):
            raise NotAlike("steps differ")
        made = [n for n in nodes if n is not None]
        if any(n.types != first.types or len(n.inputs) != len(first.inputs) for n in made):
            raise NotAlike("steps differ in shape")
        places = {n.outputs.index(v) for n, v in zip(made, column, strict=True)}
        if len(places) > 1:
            raise NotAlike("steps differ in results")
        return [tuple(c) for c in zip(*(n.inputs for n in made), strict=True)]

    def _new(self, column: Column) -> All:
        if len(set(column)) == 1:
            return All(column[0], False)
        consts = [self.builder.const_of(v) for v in column]
        if all(c is not None and c.loaded is not None for c in consts):
            arrays = [c.array() for c in consts if c is not None]
            return All(self.builder.constant(np.stack(arrays)), True)
        operands, nodes = self._operands(column), [self.builder.producer(v) for v in column]
        made = [n for n in nodes if n is not None]
        picked = self._picked(made, operands)
        if picked:
            return All(picked, True)
        if any(n.attrs != made[0].attrs for n in made) or len(made[0].outputs) != 1:
            raise NotAlike(f"steps of {made[0].op} differ")
        return All(self._at_once(made[0], [self.of(c) if c[0] else All("", False) for c in operands]), True)

    def _picked(self, nodes: list[Node], operands: list[Column]) -> str:
        """Return what steps take of one tensor, each its own element of an axis; "" for anything else."""
        if nodes[0].op not in ("slice", "gather") or len(set(operands[0])) > 1:
            return ""
        source, kind = operands[0][0], self.builder.type_of(operands[0][0])
        if nodes[0].op == "gather":
            axis, places = integer(nodes[0].attrs, "axis"), self._numbers(operands[1])
        else:
            axis, places = self._starts(nodes)
        steps = {b - a for a, b in pairwise(places)}
        if len(steps) != 1 or not steps <= {1, -1} or min(places) < 0:
            return ""
        order = (axis, *(i for i in range(kind.rank) if i != axis))
        moved = self.builder.add("transpose", source, perm=order)
        part = self._slice(moved, 0, min(places), max(places) + 1)
        if steps == {-1}:
            part = self._backwards(part)
        return self.builder.add("reshape", part, shape=(self.steps, *nodes[0].type.shape))

    def _numbers(self, column: Column) -> list[int]:
        """Return a column of integers that are known; empty where it is something else."""
        known = [self.builder.known(v) for v in column]
        if any(k is None or k.size != 1 for k in known):
            return []
        return [int(k.reshape(-1)[0]) for k in known if k is not None]

    def _starts(self, nodes: list[Node]) -> tuple[int, list[int]]:
        """Return the one axis along which slices of one element differ, and where each begins."""
        starts = [integers(n.attrs, "starts") for n in nodes]
        differ = [i for i, column in enumerate(zip(*starts, strict=True)) if len(set(column)) > 1]
        if len(differ) != 1 or nodes[0].type.shape[differ[0]] != 1:
            return 0, []
        axis, kind = differ[0], self.builder.type_of(nodes[0].inputs[0])
        whole = all(
            n == m or i == axis for i, (n, m) in enumerate(zip(kind.shape, nodes[0].type.shape, strict=True))
        )
        return axis, [s[axis] for s in starts] if whole else []

    def _at_once(self, node: Node, operands: list[All]) -> str:
        """Return an op on the operands of all steps."""
        rule = self._broadcast if node.op in FUNCTIONS else self._rules().get(node.op)
        if rule is None:
            raise NotAlike(f"{node.op} has no form for all steps at once")
        return rule(node, operands)

    def _rules(self) -> dict[str, Callable[[Node, list[All]], str]]:
        shaped = dict.fromkeys(("reshape", "expand"), self._shaped)
        folds = {f"reduce_{kind}": self._fold for kind in ("sum", "mean", "max", "min", "prod")}
        rows = dict.fromkeys(("softmax", "log_softmax"), self._row_wise)
        return {
            "cast": self._broadcast,
            "matmul": self._matmul,
            "slice": self._cut,
            "transpose": self._transpose,
            **shaped,
            **folds,
            **rows,
        }

    def _make(self, node: Node, operands: Sequence[str], **attrs: object) -> str:
        changed = freeze_attrs({**node.attrs, **attrs})
        return self.builder.make(node.op, tuple(operands), changed)[0]

    def _ranked(self, value: All, rank: int) -> str:
        """Return an operand that broadcasts as it does in each step, where results have `rank` axes."""
        kind = self.builder.type_of(value.name)
        if not value.moving or kind.rank == rank + 1:
            return value.name
        shape = (self.steps, *(1,) * (rank + 1 - kind.rank), *kind.shape[1:])
        return self.builder.add("reshape", value.name, shape=shape)

    def _broadcast(self, node: Node, operands: list[All]) -> str:
        return self._make(node, [self._ranked(x, node.type.rank) for x in operands])

    def _matmul(self, node: Node, operands: list[All]) -> str:
        if len(operands) > 2:
            raise NotAlike("a product has a bias")
        return self._broadcast(node, operands)

    def _shaped(self, node: Node, operands: list[All]) -> str:
        name = self._ranked(operands[0], node.type.rank) if node.op == "expand" else operands[0].name
        return self._make(node, [name], shape=(self.steps, *node.type.shape))

    def _fold(self, node: Node, operands: list[All]) -> str:
        return self._make(node, [operands[0].name], axes=tuple(a + 1 for a in integers(node.attrs, "axes")))

    def _row_wise(self, node: Node, operands: list[All]) -> str:
        return self._make(node, [operands[0].name], axis=integer(node.attrs, "axis") + 1)

    def _transpose(self, node: Node, operands: list[All]) -> str:
        return self._make(node, [operands[0].name], perm=(0, *(p + 1 for p in integers(node.attrs, "perm"))))

    def _cut(self, node: Node, operands: list[All]) -> str:
        starts, ends, steps = (integers(node.attrs, x) for x in ("starts", "ends", "steps"))
        return self._make(
            node, [operands[0].name], starts=(0, *starts), ends=(self.steps, *ends), steps=(1, *steps)
        )

    def _row(self, value: str) -> str:
        """Return a value with a first axis of one element."""
        return self.builder.add("reshape", value, shape=(1, *self.builder.type_of(value).shape))

    def _slice(self, value: str, axis: int, start: int, end: int) -> str:
        shape = self.builder.type_of(value).shape
        starts = [start if i == axis else 0 for i in range(len(shape))]
        ends = [end if i == axis else n for i, n in enumerate(shape)]
        return self.builder.add("slice", value, starts=starts, ends=ends, steps=[1] * len(shape))

    def _element(self, value: str, at: int) -> str:
        shape = self.builder.type_of(value).shape
        return self.builder.add("reshape", self._slice(value, 0, at, at + 1), shape=shape[1:])

    def _backwards(self, value: str) -> str:
        """Return a value with its first axis reversed."""
        shape, rest = self.builder.type_of(value).shape, self.builder.type_of(value).rank - 1
        starts, ends = [shape[0] - 1, *[0] * rest], [-1, *shape[1:]]
        return self.builder.add("slice", value, starts=starts, ends=ends, steps=[-1, *[1] * rest])
