"""A block's commands as columns, and what the law of commands asks of tiles, slots and operands."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..types import DType
from .isa import COMMAND, Block, Slot

Array = np.ndarray[Any, Any]
MOST = 1 << 40  # elements of an operand, multiply-adds of a command


class CommandFault(ValueError):
    """A command that says what none may: its number, and what is wrong."""

    def __init__(self, command: int, what: str) -> None:
        super().__init__(what)
        self.command, self.what = command, what


class CommandColumns:
    """The commands of one block as columns, and the tables that they refer to.

    Each question raises `CommandFault` for the first command that it must refuse. `at` are the numbers of
    the commands that are asked about, None for all.
    """

    def __init__(self, block: Block, chip: Chip) -> None:
        self.block, self.chip = block, chip
        self.c: dict[str, Array] = {
            n: block.commands[n].astype(np.int64) for n in COMMAND.names or () if n != "imm"
        }
        self.op = block.commands["op"]
        none = Slot(DType("none", np.dtype(np.uint8), 8), 0, 0)
        slots = block.slots or (none,)
        self.room = np.array([s.bytes // s.dtype.bytes for s in slots])
        self.bank = np.array([s.accumulator for s in slots])
        kinds = {s.dtype.name: s.dtype for s in slots} | {x.dtype.name: x.dtype for x in block.operands}
        self.kinds = list(kinds.values())
        self.slot_kind = np.array([list(kinds).index(s.dtype.name) for s in slots])
        operands = block.operands
        self.operand_kind = np.array([list(kinds).index(x.dtype.name) for x in operands] or [0])
        self.operand_rows = np.array([x.rows for x in operands] or [0], np.int64)
        self.operand_cols = np.array([x.cols for x in operands] or [0], np.int64)

    def refuse(self, wrong: Array, at: Array | None, what: str) -> None:
        """Refuse the first command that is wrong[n]."""
        if wrong.any():
            index = int(np.argmax(wrong))
            raise CommandFault(index if at is None else int(at[index]), what)

    def refuse_all(self, wrong: bool, at: Array, what: str) -> None:
        """Refuse all commands of a kind where something about their block is wrong."""
        self.refuse(np.full(len(at), wrong), at, what)

    def operand(self, at: Array, index: Array) -> None:
        """Refuse operands [n] that the block does not have."""
        many = len(self.block.operands)
        self.refuse((index < 0) | (index >= many), at, f"no such operand; right: 0 to {many - 1}")

    def tile(self, at: Array, index: Array, row: Array, rows: Array, col: Array, cols: Array) -> None:
        """Refuse tiles, [n] each, that leave their operand."""
        self.operand(at, index)
        outside = (
            (row < 0)
            | (col < 0)
            | (row + rows > self.operand_rows[index])
            | (col + cols > self.operand_cols[index])
        )
        self.refuse(outside, at, "the tile leaves its operand")

    def held(self, at: Array, slot: Array, elements: Array, *, bank: bool | None = False) -> None:
        """Refuse tiles [n] that their slot cannot hold, or that lie in the other memory (None: in either)."""
        self.refuse(elements > self.room[slot], at, "the tile does not fit its slot")
        if bank is not None:
            where = "an accumulator" if bank else "local memory"
            self.refuse(self.bank[slot] != bank, at, f"the slot must be in {where}")

    def same(self, at: Array, slot: Array, operand: Array) -> None:
        """Refuse moves [n] between different types."""
        unlike = self.slot_kind[slot] != self.operand_kind[operand]
        self.refuse(unlike, at, "slot and operand are of different types")

    def integers(self, at: Array, operand: Array) -> None:
        """Refuse operands [n] that are no whole numbers."""
        whole = np.array([not k.is_float and k.name != "bool" for k in self.kinds])
        self.refuse(~whole[self.operand_kind[operand]], at, "indices and offsets are integers")

    def counts(self, at: Array, slot: Array) -> None:
        """Refuse slots [n] that hold no whole numbers."""
        whole = np.array([not k.is_float and k.name != "bool" for k in self.kinds])
        self.refuse(~whole[self.slot_kind[slot]], at, "places are integers")

    def writable(self, at: Array, operand: Array) -> None:
        """Refuse operands [n] that the block only reads."""
        written = np.array([x.written for x in self.block.operands])
        self.refuse(~written[operand], at, "the operand is not an output")
