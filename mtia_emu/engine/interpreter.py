"""One block in execution: each kind of command, on operands as arrays and slots as parts of local memory."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import UserError
from ..machine.chip import Chip
from ..machine.units.simd import compute, fold
from ..numerics import tile_matmul, zero_products
from ..program.isa import (
    COMMAND,
    FIRST,
    FUNCTION_NAMES,
    IMMEDIATE,
    LOWEST,
    POOL_MODES,
    QUANTISED,
    REDUCTION_NAMES,
    VECTOR,
    Block,
    Opcode,
)
from .memory import MarkedMemory, MemoryView, put_tile, rows_of, tile_of
from .recurrence import receivers

Array = np.ndarray[Any, Any]
Library = Mapping[str, Callable[[Sequence[Array], Mapping[str, Any]], Sequence[Array]]]
Command = tuple[Any, ...]  # the record's fields, in order
(
    OP,
    CAST,
    FN,
    FLAGS,
    PE,
    SRC_PE,
    OPERAND,
    OPERAND2,
    DST,
    SRC0,
    SRC1,
    SRC2,
    STAGE,
    ROW,
    COL,
    ROWS,
    COLS,
    ROW2,
    COL2,
    K,
    IMM,
) = range(len(COMMAND.names or ()))
SOURCES = (SRC0, SRC1, SRC2)


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
        self.chunk: dict[str, int] = {name: unit.lanes(name) for name in fits}
        self.actions: dict[int, Callable[[Command], None]] = {
            Opcode.LOAD: self.load,
            Opcode.STORE: self.store,
            Opcode.STAGE: self.stage,
            Opcode.GATHER: self.gather,
            Opcode.POOL: self.pool,
            Opcode.MATMUL: self.matmul,
            Opcode.REDUCE: self.reduce,
            Opcode.SIMD: self.simd,
            Opcode.FOLD: self.fold,
            Opcode.SCALAR: self.scalar,
        }

    def step(self, c: Command) -> None:
        """Execute one command."""
        self.actions[c[OP]](c)

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
        """Return a tile of an operand."""
        return tile_of(self.views[operand].values, row, rows, col, cols)

    def put(self, operand: int, row: int, col: int, data: Array) -> None:
        """Write a tile of an operand."""
        put_tile(self.views[operand].values, row, col, data)

    def rows(self, operand: int, at: Array) -> Array:
        """Return rows of an operand, by number."""
        return rows_of(self.views[operand].values, at)

    # The commands.

    def receivers(self, pe: int, cast: int) -> range:
        """Return the PEs that a load feeds."""
        return range(*receivers.function(cast, pe, *self.bands[pe // self.cols], self.cols))

    def load(self, c: Command) -> None:
        data = self.tile(c[OPERAND], c[ROW], c[ROWS], c[COL], c[COLS])
        for pe in self.receivers(c[PE], c[CAST]):
            self.give(pe, c[DST], c[ROWS], c[COLS])[...] = data

    def store(self, c: Command) -> None:
        self.put(c[OPERAND], c[ROW], c[COL], self.take(c[PE], c[SRC0], c[ROWS], c[COLS]))

    def stage(self, c: Command) -> None:
        self.put(c[OPERAND2], c[ROW2], c[COL2], self.tile(c[OPERAND], c[ROW], c[ROWS], c[COL], c[COLS]))

    def matmul(self, c: Command) -> None:
        pe, m, n, k = c[PE], c[ROWS], c[COLS], c[K]
        a, b = self.take(pe, c[SRC0], m, k), self.take(pe, c[SRC1], k, n)
        if c[FLAGS] & FIRST:
            acc = self.give(pe, c[DST], m, n)
            acc[...] = 0
        else:
            acc = self.take(pe, c[DST], m, n)
        name = "fp32" if c[FLAGS] & VECTOR else self.block.slots[c[SRC0]].dtype.name
        chunk = int(k) if c[FLAGS] & VECTOR else self.chunk.get(name, int(k))
        tile_matmul(a, b, acc, chunk)
        if zeros := zero_products(a, b):
            mine = self.zero_macs[bisect_right(self.block.bands, pe // self.cols)]
            mine[name] = mine.get(name, 0) + zeros

    def reduce(self, c: Command) -> None:
        acc = self.take(c[PE], c[DST], c[ROWS], c[COLS])
        acc += self.take(c[SRC_PE], c[DST], c[ROWS], c[COLS])

    def sources(self, c: Command) -> list[Array]:
        """Return the SIMD operands, each in its own shape."""
        out = []
        for i, name in enumerate(SOURCES):
            index, shape = c[name], c[FLAGS] >> (2 * i) & 3
            if index == IMMEDIATE:
                out.append(np.float32(c[IMM]).reshape(1, 1))
            elif index >= 0:
                out.append(
                    self.take(c[PE], index, c[ROWS] if shape % 2 == 0 else 1, c[COLS] if shape <= 1 else 1)
                )
        return out

    def simd(self, c: Command) -> None:
        sources = self.sources(c)
        out = self.give(c[PE], c[DST], c[ROWS], c[COLS])
        out[...] = compute(FUNCTION_NAMES[c[FN]], sources, out.dtype)

    def fold(self, c: Command) -> None:
        (x,) = self.sources(c)
        out = self.give(c[PE], c[DST], c[ROWS], 1)
        out[...] = fold(REDUCTION_NAMES[c[FN]], x, out.dtype)

    def indices(self, operand: int, start: int, stop: int, axis: int) -> Array:
        """Return indices start..stop of a one-row operand, counted from 0; refuse those outside the axis."""
        found = self.tile(operand, 0, 1, start, stop - start)[0].astype(np.int64)
        wrong = (found < -axis) | (found >= axis)
        if wrong.any():
            where = start + int(np.argmax(wrong))
            raise UserError(f"index {found[wrong][0]} at position {where} is outside 0 .. {axis - 1}")
        return np.where(found < 0, found + axis, found)

    def gather(self, c: Command) -> None:
        at = self.indices(c[OPERAND2], c[ROW2], c[ROW2] + c[ROWS], c[K]) + c[ROW]
        data = self.rows(c[OPERAND], at)[:, c[COL] : c[COL] + c[COLS]]
        self.give(c[PE], c[DST], c[ROWS], c[COLS])[...] = data

    def pool(self, c: Command) -> None:
        row, rows, cols, weights = c[ROW], c[ROWS], c[COLS], c[ROW2]
        offsets = self.tile(c[OPERAND2] + 1, 0, 1, row, rows + 1)[0].astype(np.int64)
        count = self.block.operands[c[OPERAND2]].cols
        if (np.diff(offsets) < 0).any() or offsets[0] < 0 or offsets[-1] > count:
            raise UserError(
                f"offsets of bags {row} .. {row + rows} must rise from 0 to at most {count}, "
                f"got {offsets[:8]}"
            )
        low, high = int(offsets[0]), int(offsets[-1])
        at = self.indices(c[OPERAND2], low, high, self.block.operands[c[OPERAND]].rows)
        values = widen_rows(self.rows(c[OPERAND], at), cols, quantised=bool(c[FLAGS] & QUANTISED))
        if weights >= 0:
            values = values * self.tile(weights, 0, 1, low, high - low)[0].astype(np.float32)[:, None]
        self.lookups.append(at)
        self.give(c[PE], c[DST], rows, cols)[...] = pool_bags(
            values, offsets - low, POOL_MODES[c[FN]], -np.inf if c[FLAGS] & LOWEST else 0.0
        )

    def scalar(self, c: Command) -> None:
        name, attrs = self.block.scalar
        if name not in self.library:
            raise UserError(f"op {name} has no reference to run on a core")
        operands = list(enumerate(self.block.operands))
        reads = [self._whole(i) for i, x in operands if not x.written]
        writes = [i for i, x in operands if x.written]
        try:
            results = self.library[name](reads, dict(attrs))
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            raise UserError(f"op {name} refuses its operands: {error}") from error
        if len(results) != len(writes):
            raise UserError(f"op {name} gives {len(results)} results for {len(writes)} operands")
        for i, value in zip(writes, results, strict=True):
            self._put_whole(i, value, name)

    def _whole(self, operand: int) -> Array:
        x = self.block.operands[operand]
        if 0 in x.shape:
            return self.views[operand].values
        return self.tile(operand, 0, x.rows, 0, x.cols).reshape(x.shape)

    def _put_whole(self, operand: int, value: Array, name: str) -> None:
        x = self.block.operands[operand]
        if value.size != math.prod(x.shape):
            raise UserError(f"op {name} gives {value.size} elements for an operand of shape {list(x.shape)}")
        if value.size:
            self.put(operand, 0, 0, value.reshape(x.rows, x.cols).astype(x.dtype.numpy))


def widen_rows(raw: Array, cols: int, *, quantised: bool) -> Array:
    """Return table rows as fp32; a quantised row is `cols` uint8 values, an fp32 scale, an fp32 offset."""
    if not quantised:
        return raw[:, :cols].astype(np.float32)
    tail = np.ascontiguousarray(raw[:, cols : cols + 8]).view(np.float32)
    return raw[:, :cols].astype(np.float32) * tail[:, :1] + tail[:, 1:2]


def pool_bags(values: Array, offsets: Array, mode: str, empty: float = 0.0) -> Array:
    """Return the pooled bags in fp32, rows added in order; an empty bag gives `empty`."""
    out = np.full((len(offsets) - 1, values.shape[1]), empty, np.float32)
    for bag, (low, high) in enumerate(pairwise(offsets)):
        if high > low:
            rows = values[low:high]
            out[bag] = rows.max(axis=0) if mode == "max" else np.add.reduce(rows, axis=0)
            if mode == "mean":
                out[bag] /= np.float32(high - low)
    return out
