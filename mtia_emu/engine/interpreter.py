"""One block in execution: the doors by which commands reach operands as arrays and slots of local memory."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..program.commands import COMMANDS
from ..program.commands.base import Library
from ..program.fields import OP, Fields
from ..program.geometry import receivers
from ..program.isa import Block
from .memory import MarkedMemory, MemoryView, put_rows, put_tile, rows_of, tile_of

Array = np.ndarray[Any, Any]
EXECUTE = {int(opcode): kind.execute for opcode, kind in COMMANDS.items()}


class BlockRun:
    """A block on its operands (`views`), on local memories and accumulators, with ops for the core."""

    def __init__(
        self,
        block: Block,
        views: list[MemoryView],
        local: list[MarkedMemory],
        banks: list[MarkedMemory],
        chip: Chip,
        library: Library,
    ) -> None:
        self.block, self.views, self.local, self.banks = block, views, local, banks
        self.library, self.cols = library, chip.grid.cols
        self.bands: list[list[int]] = block.band_rows(chip.grid.rows).tolist()
        self.slots: dict[tuple[int, int], MemoryView] = {}
        self.lookups: list[Array] = []  # the rows that each POOL command looked up
        # band by band: dtype -> multiply-adds with a zero operand
        self.zero_macs: list[dict[str, int]] = [{} for _ in range(len(block.bands) + 1)]
        unit = chip.pe.matrix
        fits = {s.dtype.name for s in block.slots if unit.supports(s.dtype.name) and unit.dataflow != "os"}
        self.chunks: dict[str, int] = {name: unit.lanes(name) for name in fits}

    def step(self, c: Fields) -> None:
        """Execute one command."""
        EXECUTE[c[OP]](self, c)

    # The doors to memory: all that a command reads or writes goes through one of these.

    def slot(self, pe: int, index: int) -> MemoryView:
        """Return slot `index` of a PE, flat; it is looked up once."""
        view = self.slots.get((pe, index))
        if view is None:
            s = self.block.slots[index]
            memory = (self.banks if s.accumulator else self.local)[pe]
            view = self.slots[pe, index] = memory.flat(s.dtype, s.offset, s.bytes)
        return view

    def take(self, pe: int, index: int, rows: int, cols: int) -> Array:
        """Return what slot `index` of a PE holds, as [rows, cols]."""
        return self.slot(pe, index).values[: rows * cols].reshape(rows, cols)

    def give(self, pe: int, index: int, rows: int, cols: int) -> Array:
        """Return slot `index` of a PE as [rows, cols], for the caller to write whole."""
        return self.slot(pe, index).values[: rows * cols].reshape(rows, cols)

    def tile(self, operand: int, row: int, rows: int, col: int, cols: int) -> Array:
        """Return a tile [rows, cols] of an operand."""
        across = self.block.operands[operand].across
        return tile_of(self.views[operand].values, row, rows, col, cols, across)

    def put(self, operand: int, row: int, col: int, data: Array) -> None:
        """Write a tile [rows, cols] of an operand."""
        put_tile(self.views[operand].values, row, col, data)

    def rows(self, operand: int, at: Array) -> Array:
        """Return rows [n, cols] of an operand, by number at[n]."""
        return rows_of(self.views[operand].values, at)

    def put_rows(self, operand: int, at: Array, data: Array) -> None:
        """Write rows [n, cols] of an operand, by number at[n]."""
        put_rows(self.views[operand].values, at, data)

    def whole(self, operand: int) -> Array:
        """Return an operand in its own shape."""
        x = self.block.operands[operand]
        if 0 in x.shape:
            return self.views[operand].values
        return self.tile(operand, 0, x.rows, 0, x.cols).reshape(x.shape)

    # What commands ask of the chip, and what they note.

    def receivers(self, pe: int, cast: int) -> range:
        """Return the PEs that a load feeds."""
        return range(*receivers.function(cast, pe, *self.bands[pe // self.cols], self.cols))

    def chunk(self, dtype: str, k: int) -> int:
        """Return how many products of k the matrix unit sums before it adds them to the accumulator."""
        return self.chunks.get(dtype, k)

    def note_zeros(self, pe: int, dtype: str, count: int) -> None:
        """Note multiply-adds with a zero operand."""
        mine = self.zero_macs[bisect_right(self.block.bands, pe // self.cols)]
        mine[dtype] = mine.get(dtype, 0) + count

    def note_lookups(self, rows: Array) -> None:
        """Note rows[n] of a table that a command looked up."""
        self.lookups.append(rows)
