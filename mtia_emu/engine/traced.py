"""A block in execution that notes who wrote what: from which commands each command has what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..program.commands import COMMANDS
from ..program.fields import DST, OP, PE, Fields
from .interpreter import BlockRun
from .memory import put_rows, put_tile, rows_of, tile_of

Array = np.ndarray[Any, Any]
NOBODY = -1
_IN_PLACE = {int(opcode) for opcode, kind in COMMANDS.items() if kind.adds}  # they write what they have read


@dataclass(frozen=True)
class Held:
    """What an operand should hold when a block begins, and of which of its elements that is known."""

    values: Array
    there: Array


class TracedRun(BlockRun):
    """A block run whose reads are held to what operands should `hold`, by the operand's number.

    `feeds` has, for each command so far, the commands whose results it read; `writers`, for each operand,
    the command that wrote each element last; `wrong` what is wrong with what a command read, by its number.
    """

    def __init__(self, *args: Any, hold: Mapping[int, Held]) -> None:
        super().__init__(*args)
        self.hold = hold
        self.feeds: list[set[int]] = []
        self.writers = [np.full(view.values.shape, NOBODY, np.int32) for view in self.views]
        self.wrong: dict[int, str] = {}
        self._last: dict[tuple[int, int], int] = {}

    def step(self, c: Fields) -> None:
        self.feeds.append(set())
        super().step(c)
        if c[OP] in _IN_PLACE:
            self._last[c[PE], c[DST]] = len(self.feeds) - 1

    def take(self, pe: int, index: int, rows: int, cols: int) -> Array:
        writer = self._last.get((pe, index))
        if writer is None:
            self._note(f"reads s{index} of pe {pe}, which no command of the block has written")
        else:
            self.feeds[-1].add(writer)
        return super().take(pe, index, rows, cols)

    def give(self, pe: int, index: int, rows: int, cols: int) -> Array:
        self._last[pe, index] = len(self.feeds) - 1
        return super().give(pe, index, rows, cols)

    def tile(self, operand: int, row: int, rows: int, col: int, cols: int) -> Array:
        values, across = super().tile(operand, row, rows, col, cols), self.block.operands[operand].across
        if operand in self.hold:
            hold = self.hold[operand]
            there = tile_of(hold.there, row, rows, col, cols, across)
            self._compare(operand, values, tile_of(hold.values, row, rows, col, cols, across), there)
        self._from(tile_of(self.writers[operand], row, rows, col, cols, across))
        return values

    def rows(self, operand: int, at: Array) -> Array:
        values = super().rows(operand, at)
        if operand in self.hold:
            hold = self.hold[operand]
            self._compare(operand, values, rows_of(hold.values, at), rows_of(hold.there, at))
        self._from(rows_of(self.writers[operand], at))
        return values

    def put(self, operand: int, row: int, col: int, data: Array) -> None:
        put_tile(self.writers[operand], row, col, np.full(data.shape, len(self.feeds) - 1, np.int32))
        super().put(operand, row, col, data)

    def put_rows(self, operand: int, at: Array, data: Array) -> None:
        put_rows(self.writers[operand], at, np.full(data.shape, len(self.feeds) - 1, np.int32))
        super().put_rows(operand, at, data)

    def _compare(self, operand: int, values: Array, right: Array, there: Array) -> None:
        off = there & (values != right) & ~((values != values) & (right != right))
        if off.any():
            self._note(
                f"reads %{operand}, where {np.count_nonzero(off)} of {off.size} elements are not its own"
            )

    def _from(self, writers: Array) -> None:
        self.feeds[-1].update(np.unique(writers[writers != NOBODY]).tolist())

    def _note(self, what: str) -> None:
        self.wrong.setdefault(len(self.feeds) - 1, what)

    def chain(self, index: int) -> Sequence[int]:
        """Return the commands from whose results a command's own come, itself last, in order."""
        commands, todo = {index}, [index]
        while todo:
            new = self.feeds[todo.pop()] - commands
            commands |= new
            todo += new
        return sorted(commands)
