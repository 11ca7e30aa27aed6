"""The SIMD engine: functions of elements, and folds of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UserError
from ...machine.units.selection import first_places, heap_steps
from ...machine.units.simd import FUNCTIONS, compute, fold
from ..columns import CommandColumns
from ..events import Events
from ..fields import COLS, DST, FLAGS, FN, IMM, PE, ROWS, SRC0, SRC1, SRC2, Fields, K
from ..isa import (
    FUNCTION_NAMES,
    IMMEDIATE,
    NAN_LEAST,
    NO_SLOT,
    REDUCTION_NAMES,
    SMALLEST,
    Block,
    Opcode,
    Shape,
    source_shape,
)
from .base import Array, Batch, CommandCost, CommandKind, MemoryDoors, Queue

SIMD = Queue("simd", "simd", "the SIMD engine of a PE", "simd", chains=True)
SOURCE_NAMES, SOURCES = ("src0", "src1", "src2"), (SRC0, SRC1, SRC2)
PASSES = np.array([FUNCTIONS[name].passes for name in FUNCTION_NAMES])


class ApplyFunction(CommandKind):
    """A function of up to three sources, element by element."""

    opcode, queue = Opcode.SIMD, SIMD
    unit, text = "simd", "dst[rows, cols] = FUNCTIONS[fn](src0, src1, src2)"
    reads, writes, operands = SOURCE_NAMES, ("dst",), ()
    optional = True

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        last = len(FUNCTION_NAMES) - 1
        columns.refuse(c["fn"] > last, at, f"unknown function; right: 0 to {last}")
        arity = np.array([f.arity for f in FUNCTIONS.values()])[c["fn"]]
        for i, name in enumerate(SOURCE_NAMES):
            unlike = (c[name] == NO_SLOT) == (i < arity)
            columns.refuse(unlike, at, "the function takes more or fewer operands")
            _verify_source(columns, at, c, i)
        columns.refuse(c["flags"] >> 6 > 0, at, "unknown flags")
        columns.held(at, c["dst"], c["rows"] * c["cols"])

    def count(self, batch: Batch, ev: Events) -> None:
        ev.simd_passes[batch.at] += batch.elements * PASSES[batch.c["fn"]]
        _read_sources(batch, ev)
        ev.local_write_bytes[batch.at] += batch.elements * batch.slot_bytes[batch.c["dst"]]

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        return _cost(batch, PASSES[batch.c["fn"]])

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        operands = _sources(run, c)
        out = run.give(c[PE], c[DST], c[ROWS], c[COLS])
        out[...] = compute(FUNCTION_NAMES[c[FN]], operands, out.dtype)

    def show(self, c: Any, block: Block) -> str:
        return _text(c, FUNCTION_NAMES)


class FoldRows(CommandKind):
    """A reduction of each row of a source to one element."""

    opcode, queue = Opcode.FOLD, SIMD
    unit, text = "simd", "dst[rows, 1] = REDUCTIONS[fn] of src0[rows, cols] along its rows"
    reads, writes, operands = ("src0",), ("dst",), ()

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        last = len(REDUCTION_NAMES) - 1
        columns.refuse(c["fn"] > last, at, f"unknown reduction; right: 0 to {last}")
        columns.refuse(c["flags"] >> 2 > 0, at, "unknown flags")
        _verify_source(columns, at, c, 0)
        columns.held(at, c["dst"], c["rows"])

    def count(self, batch: Batch, ev: Events) -> None:
        ev.simd_passes[batch.at] += batch.elements
        _read_sources(batch, ev)
        rows = batch.c["rows"].astype(float)
        ev.local_write_bytes[batch.at] += rows * batch.slot_bytes[batch.c["dst"]]

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        return _cost(batch, np.ones(1, np.int64))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        (x,) = _sources(run, c)
        out = run.give(c[PE], c[DST], c[ROWS], 1)
        out[...] = fold(REDUCTION_NAMES[c[FN]], x, out.dtype)

    def show(self, c: Any, block: Block) -> str:
        return _text(c, REDUCTION_NAMES)


class FindFirst(CommandKind):
    """Where the first elements of each row stand: those that pass a bound enter a heap."""

    opcode, queue = Opcode.TOP, SIMD
    unit, text = "simd and core", "dst[rows, k] = the places of the k largest of each row of src0[rows, cols]"
    reads, writes, operands = ("src0",), ("dst",), ()

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        columns.refuse((c["k"] < 1) | (c["k"] > c["cols"]), at, "k is from 1 to the columns of the rows")
        columns.refuse(c["flags"] >> 2 > 0, at, "unknown flags")
        columns.held(at, c["src0"], c["rows"] * c["cols"])
        columns.held(at, c["dst"], c["rows"] * c["k"])
        columns.counts(at, c["dst"])

    def count(self, batch: Batch, ev: Events) -> None:
        at, c, rows = batch.at, batch.c, batch.c["rows"].astype(float)
        ev.simd_passes[at] += batch.elements
        ev.scalar_elements[at] += rows * heap_steps(c["cols"], c["k"])
        ev.local_read_bytes[at] += batch.elements * batch.slot_bytes[c["src0"]]
        ev.local_write_bytes[at] += rows * c["k"] * batch.slot_bytes[c["dst"]]

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        c, pe = batch.c, batch.chip.pe
        scanned, late = pe.simd.cost(batch.elements, batch.slot_bytes[c["src0"]], 1)
        kept, _ = pe.core.cost(ev.scalar_elements[batch.at], 0)
        return CommandCost(scanned + kept, late)

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        x = run.take(c[PE], c[SRC0], c[ROWS], c[COLS])
        places = first_places(x, c[K], not c[FLAGS] & SMALLEST, bool(c[FLAGS] & NAN_LEAST))
        run.give(c[PE], c[DST], c[ROWS], c[K])[...] = places

    def show(self, c: Any, block: Block) -> str:
        kind = "least" if c["flags"] & SMALLEST else "largest"
        return f"s{c['dst']} = places of the {c['k']} {kind} of s{c['src0']} ({c['rows']}x{c['cols']})"


class PickElements(CommandKind):
    """Elements of each row, by their places."""

    opcode, queue = Opcode.PICK, SIMD
    unit, text = "core", "dst[rows, k] = the elements of each row of src0[rows, cols] at src1[rows, k]"
    reads, writes, operands = ("src0", "src1"), ("dst",), ()

    def verify(self, columns: CommandColumns, at: Array, c: dict[str, Array]) -> None:
        columns.refuse(c["k"] < 1, at, "at least one element is picked")
        columns.held(at, c["src0"], c["rows"] * c["cols"])
        for name in ("src1", "dst"):
            columns.held(at, c[name], c["rows"] * c["k"])
        columns.counts(at, c["src1"])
        unlike = columns.slot_kind[c["src0"]] != columns.slot_kind[c["dst"]]
        columns.refuse(unlike, at, "what is picked goes into a slot of its own type")

    def count(self, batch: Batch, ev: Events) -> None:
        at, c = batch.at, batch.c
        picked = c["rows"].astype(float) * c["k"]
        ev.scalar_elements[at] += picked
        ev.local_read_bytes[at] += picked * (batch.slot_bytes[c["src0"]] + batch.slot_bytes[c["src1"]])
        ev.local_write_bytes[at] += picked * batch.slot_bytes[c["dst"]]

    def cost(self, batch: Batch, ev: Events) -> CommandCost:
        return CommandCost(*batch.chip.pe.core.cost(ev.scalar_elements[batch.at], 0))

    def execute(self, run: MemoryDoors, c: Fields) -> None:
        x, places = run.take(c[PE], c[SRC0], c[ROWS], c[COLS]), run.take(c[PE], c[SRC1], c[ROWS], c[K])
        if places.size and not 0 <= places.min() <= places.max() < c[COLS]:
            raise UserError(f"place {places.max()} is outside a row of {c[COLS]}")
        run.give(c[PE], c[DST], c[ROWS], c[K])[...] = np.take_along_axis(x, places, axis=-1)

    def show(self, c: Any, block: Block) -> str:
        return f"s{c['dst']} = s{c['src0']} ({c['rows']}x{c['cols']}) at s{c['src1']} ({c['k']} a row)"


def _verify_source(columns: CommandColumns, at: Array, c: dict[str, Array], i: int) -> None:
    name = SOURCE_NAMES[i]
    columns.refuse(c[name] < IMMEDIATE, at, f"{name} names no slot")
    shape, read = source_shape(c["flags"], i), c[name] >= 0
    rows = np.where((shape == Shape.FULL) | (shape == Shape.COL), c["rows"], 1)
    cols = np.where((shape == Shape.FULL) | (shape == Shape.ROW), c["cols"], 1)
    columns.held(at, np.maximum(c[name], 0), rows * cols * read, bank=None)


def _read_sources(batch: Batch, ev: Events) -> None:
    """Count what sources take from local memory; accumulators have ports of their own."""
    c, rows, cols = batch.c, batch.c["rows"].astype(float), batch.c["cols"].astype(float)
    accumulators = np.array([s.accumulator for s in batch.block.slots] or [False])
    local = np.append(np.where(accumulators, 0, batch.slot_bytes), (0, 0))  # last: IMMEDIATE and NO_SLOT
    for i, name in enumerate(SOURCE_NAMES):
        if (c[name] < 0).all():
            continue
        shape = source_shape(c["flags"], i)
        size = np.where(shape <= Shape.ROW, cols, 1) * np.where(shape % 2 == 0, rows, 1)
        ev.local_read_bytes[batch.at] += size * local[c[name]]


def _cost(batch: Batch, passes: Array) -> CommandCost:
    """Return what commands take: the widest operand or result passes the lanes passes[command] times."""
    c, simd = batch.c, batch.chip.pe.simd
    sizes = np.array([*(s.dtype.bytes for s in batch.block.slots), 0, 0], np.float32)  # last: of no slot
    width = sizes[c["dst"]]
    for i, name in enumerate(SOURCE_NAMES):
        if (c[name] >= 0).any():
            whole = source_shape(c["flags"], i) == Shape.FULL
            width = np.maximum(width, sizes[c[name]] * whole)
    return CommandCost(*simd.cost(batch.elements, width, passes))


def _sources(run: MemoryDoors, c: Fields) -> list[Array]:
    """Return the SIMD operands, each in its own shape."""
    out = []
    for i, name in enumerate(SOURCES):
        index, shape = c[name], c[FLAGS] >> (2 * i) & 3
        if index == IMMEDIATE:
            out.append(np.float32(c[IMM]).reshape(1, 1))
        elif index >= 0:
            rows, cols = c[ROWS] if shape % 2 == 0 else 1, c[COLS] if shape <= 1 else 1
            out.append(run.take(c[PE], index, rows, cols))
    return out


def _text(c: Any, names: tuple[str, ...]) -> str:
    shown = []
    for i, name in enumerate(SOURCE_NAMES):
        if c[name] == IMMEDIATE:
            shown.append(repr(float(c["imm"])))
        elif c[name] != NO_SLOT:
            shape = Shape(int(source_shape(c["flags"], i)))
            shown.append(f"s{c[name]}" + ("" if shape is Shape.FULL else f".{shape.name.lower()}"))
    return f"s{c['dst']} = {names[c['fn']]}({', '.join(shown)}) ({c['rows']}x{c['cols']})"
