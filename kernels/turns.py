"""Turns of experts: how many rows there are of each, and blocks that follow a table of them.

The rows of an expert are cut into turns of `rows` at most. A table names each turn's expert and how many rows
it has; the turn's rows lie `rows` apart in a buffer that has room for all of each. Only as many turns have
rows as are needed; the others stand at the table's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import Any

import numpy as np

from mtia_emu.program.isa import Block, Opcode, join, select
from mtia_emu.program.routed import EXPERT, ROWS, Marks, Routed

from .builder import Builder, ceil_div

Array = np.ndarray[Any, Any]
SPARE = 3  # standard deviations of an expert's rows beyond their mean that a turn has room for: where all
# experts are alike, one in some hundreds needs another


@dataclass(frozen=True)
class Turns:
    """Turns of `rows` rows each for `routed` rows that go to `experts` experts."""

    experts: int
    routed: int
    rows: int

    @property
    def count(self) -> int:
        """Return the most turns that any routing needs: one an expert, and one for each further full turn."""
        begun = min(self.experts, self.routed)
        return begun + (self.routed - begun) // self.rows

    def table(self, loads: Sequence[int]) -> Array:
        """Return the table int32[count, 2] of turns, where expert e has loads[e] rows."""
        out = np.zeros((self.count, 2), np.int32)
        at = 0
        for expert, load in enumerate(loads):
            turns = ceil_div(load, self.rows)
            each = np.minimum(load - self.rows * np.arange(turns), self.rows)
            out[at : at + turns, EXPERT], out[at : at + turns, ROWS] = expert, each
            at += turns
        return out


def turns_of(experts: int, routed: int, most: int, among: int = 0) -> Turns:
    """Return the turns in which so many routed rows go to experts, each of which has `most` rows at most.

    A turn's rows have three leading binary digits, so that few kinds of blocks are made. With `among`, rows
    go to so many experts in all, and any number of them to these.
    """
    mean = routed / (among or experts)
    rows = ceil(mean + SPARE * sqrt(mean))  # of a binomial law with many experts the variance is the mean
    digit = 1 << max(rows.bit_length() - 3, 0)
    return Turns(experts, routed, max(1, min(ceil_div(rows, digit) * digit, most)))


@dataclass
class TurnsBuilder(Builder):
    """A builder whose commands may be parts of turns: `about` says so of all that are added after it.

    The table that says which is the last of the operands that it is made with.
    """

    marks: list[Array] = field(default_factory=list)
    mark: Array = field(default_factory=lambda: np.array([[-1], [-1], [0]]))

    def __post_init__(self) -> None:
        self.table = len(self.operands) - 1

    def about(self, turn: Array, first: Array, *, whole: bool = False) -> None:
        """Let the commands added next be of turn[n], their tiles from row first[n] of it on.

        `whole`: rows of their own are not the turn's, but of its expert.
        """
        self.mark = np.stack([turn, first, np.full_like(turn, whole)])

    def add(self, op: Opcode, order: Array | float, **fields: Any) -> None:
        """Add commands as a builder does, as parts of the turns that were named last."""
        super().add(op, order, **fields)
        self.marks.append(np.broadcast_to(self.mark, (3, len(self.parts[-1][1]))))

    def following(self, turns: Turns, strides: tuple[tuple[int, int], ...], loads: Sequence[int]) -> Block:
        """Return the block, which follows the table, for loads of experts: see `Routed`."""
        order = np.concatenate([np.zeros(0), *(o for o, _ in self.parts)])
        by_order = np.argsort(order, kind="stable")
        turn, first, whole = np.concatenate(self.marks, axis=1)[:, by_order]
        commands = select(join([c for _, c in self.parts]), by_order)
        table, none = turns.table(loads), np.zeros((turns.count, 2), np.int32)
        marks = Marks(turn, first, whole.astype(bool))
        routed = Routed(self.table, turns.experts, strides, commands, marks, none)
        plain = Block(
            self.kernel, self.operands, tuple(self.slots), commands[:0], mapping=self.mapping, routed=routed
        )
        return plain.following(table)
