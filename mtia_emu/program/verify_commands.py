"""The law of a block's commands, held to all of them at once, column by column."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import UserError
from ..machine.chip import Chip
from ..machine.units.simd import FUNCTIONS
from ..types import DType
from .isa import (
    COMMAND,
    FIRST,
    FUNCTION_NAMES,
    IMMEDIATE,
    LOWEST,
    NO_SLOT,
    POOL_MODES,
    QUANTISED,
    REDUCTION_NAMES,
    VECTOR,
    Block,
    Cast,
    Opcode,
    Shape,
    Slot,
    dump_command,
    source_shape,
)

Array = np.ndarray[Any, Any]
MOST = 1 << 40  # elements of an operand, multiply-adds of a command
MOST_BYTES = 1 << 48  # of a memory
SLOT_FIELDS = ("dst", "src0", "src1", "src2")
_USES: dict[Opcode, tuple[str, ...]] = {  # the slots that a command names; others must be NO_SLOT
    Opcode.LOAD: ("dst",),
    Opcode.STORE: ("src0",),
    Opcode.STAGE: (),
    Opcode.GATHER: ("dst",),
    Opcode.POOL: ("dst",),
    Opcode.MATMUL: ("dst", "src0", "src1"),
    Opcode.REDUCE: ("dst",),
    Opcode.SIMD: SLOT_FIELDS,
    Opcode.FOLD: ("dst", "src0"),
    Opcode.SCALAR: (),
}


class CommandColumns:
    """The commands of one block as columns, and the tables that they refer to."""

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
        self.operand_rows = np.array([math.prod(x.shape[:-1]) for x in operands] or [0], np.int64)
        self.operand_cols = np.array([x.cols for x in operands] or [0], np.int64)

    def verify(self) -> None:
        """Raise `UserError` for the first kind of fault, naming its first command."""
        self._general()
        for op, check in (
            (Opcode.LOAD, self._load),
            (Opcode.STORE, self._store),
            (Opcode.STAGE, self._stage),
            (Opcode.GATHER, self._gather),
            (Opcode.POOL, self._pool),
            (Opcode.MATMUL, self._matmul),
            (Opcode.REDUCE, self._reduce),
            (Opcode.SIMD, self._simd),
            (Opcode.FOLD, self._fold),
            (Opcode.SCALAR, self._scalar),
        ):
            at = np.flatnonzero(self.op == op)
            if len(at):
                check(at, {name: column[at] for name, column in self.c.items()})
        self._written_before_read()

    def _refuse(self, wrong: Array, at: Array | None, what: str) -> None:
        if wrong.any():
            index = int(np.argmax(wrong))
            index = index if at is None else int(at[index])
            command = self.block.commands[index]
            raise UserError(f"command {index} `{describe(command, self.block)}`: {what}")

    def _general(self) -> None:
        c, pes = self.c, self.chip.pes
        self._refuse(self.op >= len(Opcode), None, f"unknown opcode; right: 0 to {len(Opcode) - 1}")
        self._refuse((c["pe"] < 0) | (c["pe"] >= pes), None, f"no such PE; right: 0 to {pes - 1}")
        self._refuse(c["cast"] >= np.where(self.op == Opcode.LOAD, len(Cast), 1), None, "no such cast")
        sizes = np.stack([c["rows"], c["cols"]])
        least = np.where(self.op == Opcode.SCALAR, 0, 1)
        self._refuse(np.any(sizes < least, axis=0), None, "a tile has at least one row and column")
        used = np.zeros((len(Opcode), len(SLOT_FIELDS)), bool)
        for op, names in _USES.items():
            used[op] = [n in names for n in SLOT_FIELDS]
        for i, name in enumerate(SLOT_FIELDS):
            wants = used[self.op, i]
            immediate = (self.op == Opcode.SIMD) & (name != "dst")
            self._refuse(
                ~wants & (c[name] != NO_SLOT), None, f"{name} names a slot that the command does not have"
            )
            self._refuse(
                wants & ~immediate & (c[name] < 0) | (c[name] >= len(self.block.slots)),
                None,
                f"{name} names no slot; right: 0 to {len(self.block.slots) - 1}",
            )
        staged = np.isin(self.op, (Opcode.LOAD, Opcode.STAGE))
        self._refuse(
            (c["stage"] >= self.block.stages) & staged | (c["stage"] < -1) | ~staged & (c["stage"] != -1),
            None,
            f"no such stage slot; right: below {self.block.stages}",
        )

    def _operand(self, at: Array, index: Array) -> None:
        self._refuse(
            (index < 0) | (index >= len(self.block.operands)),
            at,
            f"no such operand; right: 0 to {len(self.block.operands) - 1}",
        )

    def _tile(self, at: Array, index: Array, row: Array, rows: Array, col: Array, cols: Array) -> None:
        self._operand(at, index)
        outside = (
            (row < 0)
            | (col < 0)
            | (row + rows > self.operand_rows[index])
            | (col + cols > self.operand_cols[index])
        )
        self._refuse(outside, at, "the tile leaves its operand")

    def _held(self, at: Array, slot: Array, elements: Array, *, bank: bool | None = False) -> None:
        self._refuse(elements > self.room[slot], at, "the tile does not fit its slot")
        if bank is not None:
            self._refuse(
                self.bank[slot] != bank,
                at,
                f"the slot must be in {'an accumulator' if bank else 'local memory'}",
            )

    def _same(self, at: Array, slot: Array, operand: Array) -> None:
        self._refuse(
            self.slot_kind[slot] != self.operand_kind[operand], at, "slot and operand are of different types"
        )

    def _integers(self, at: Array, operand: Array) -> None:
        whole = np.array([not k.is_float and k.name != "bool" for k in self.kinds])
        self._refuse(~whole[self.operand_kind[operand]], at, "indices and offsets are integers")

    def _writable(self, at: Array, operand: Array) -> None:
        written = np.array([x.written for x in self.block.operands])
        self._refuse(~written[operand], at, "the operand is not an output")

    def _load(self, at: Array, c: dict[str, Array]) -> None:
        self._tile(at, c["operand"], c["row"], c["rows"], c["col"], c["cols"])
        self._held(at, c["dst"], c["rows"] * c["cols"])
        self._same(at, c["dst"], c["operand"])

    def _store(self, at: Array, c: dict[str, Array]) -> None:
        self._tile(at, c["operand"], c["row"], c["rows"], c["col"], c["cols"])
        self._held(at, c["src0"], c["rows"] * c["cols"])
        self._same(at, c["src0"], c["operand"])
        self._writable(at, c["operand"])

    def _stage(self, at: Array, c: dict[str, Array]) -> None:
        self._tile(at, c["operand"], c["row"], c["rows"], c["col"], c["cols"])
        self._tile(at, c["operand2"], c["row2"], c["rows"], c["col2"], c["cols"])
        space = np.array([x.space for x in self.block.operands])
        into = np.where(c["stage"] >= 0, "scratch", "sram")
        wrong = (space[c["operand2"]] != into) | (space[c["operand"]] == "scratch")
        self._refuse(wrong, at, "staging copies into scratch, and without a stage slot into SRAM")
        ahead = at[c["stage"] < 0]
        early = ahead < len(self.op) - len(ahead)
        self._refuse(early, ahead, "what is staged for a later launch stands behind all other commands")
        self._refuse(
            self.operand_kind[c["operand"]] != self.operand_kind[c["operand2"]], at, "the types differ"
        )
        self._writable(at, c["operand2"])

    def _gather(self, at: Array, c: dict[str, Array]) -> None:
        one = np.ones_like(at)
        self._tile(at, c["operand"], c["row"], c["k"], c["col"], c["cols"])
        self._tile(at, c["operand2"], 0 * one, one, c["row2"], c["rows"])
        self._refuse(c["k"] < 1, at, "the axis has at least one row")
        self._held(at, c["dst"], c["rows"] * c["cols"])
        self._same(at, c["dst"], c["operand"])
        self._integers(at, c["operand2"])

    def _pool(self, at: Array, c: dict[str, Array]) -> None:
        """Check what is known before it runs: the executor refuses look-ups outside indices and table."""
        zero, one = np.zeros_like(at), np.ones_like(at)
        quantised = (c["flags"] & QUANTISED) > 0
        self._refuse(c["fn"] >= len(POOL_MODES), at, f"unknown mode; right: 0 to {len(POOL_MODES) - 1}")
        self._tile(at, c["operand"], zero, one, zero, c["cols"] + 8 * quantised)
        offsets = c["operand2"] + 1
        self._tile(at, offsets, zero, one, c["row"], c["rows"] + 1)
        self._tile(at, c["operand2"], zero, one, zero, one)
        self._refuse(
            (c["k"] < 0) | (c["flags"] & ~(QUANTISED | LOWEST) > 0) | (c["row2"] < -1),
            at,
            "negative look-ups or unknown flags",
        )
        self._integers(at, c["operand2"])
        self._integers(at, offsets)
        names = np.array([k.name for k in self.kinds])
        self._refuse(
            quantised & (names[self.operand_kind[c["operand"]]] != "uint8"), at, "quantised rows are uint8"
        )
        self._operand(at, np.maximum(c["row2"], 0))
        short = np.array([x.cols for x in self.block.operands])[np.maximum(c["row2"], 0)]
        self._refuse(
            (c["row2"] >= 0) & (short < self.operand_cols[c["operand2"]]), at, "fewer weights than indices"
        )
        self._held(at, c["dst"], c["rows"] * c["cols"])
        self._one_pair(at, c)

    def _one_pair(self, at: Array, c: dict[str, Array]) -> None:
        _, first, table = np.unique(c["operand"], return_index=True, return_inverse=True)
        for name, what in (("operand2", "indices"), ("row2", "weights")):
            other = c[name] != c[name][first][table]
            self._refuse(other, at, f"all pools of a table of a block read the same {what}")

    def _matmul(self, at: Array, c: dict[str, Array]) -> None:
        m, n, k = c["rows"], c["cols"], c["k"]
        self._refuse(
            (k < 1) | (m.astype(float) * n * k > MOST), at, "a product has from 1 to 2^40 multiply-adds"
        )
        self._refuse(c["flags"] & ~(FIRST | VECTOR) > 0, at, "unknown flags")
        self._held(at, c["src0"], m * k)
        self._held(at, c["src1"], k * n)
        self._held(at, c["dst"], m * n, bank=True)
        vector = c["flags"] & VECTOR > 0
        for name in ("src0", "src1", "dst"):
            kind = self.slot_kind[c[name]]
            self._refuse(kind != kind[0], at, f"all products of a block have the same type of {name}")
        self._refuse(vector != vector[0], at, "all products of a block run on one unit")
        left, right, out = (self.kinds[int(self.slot_kind[c[x][0]])] for x in ("src0", "src1", "dst"))
        known = _multiplies(left) and _multiplies(right) and left.is_float == right.is_float
        fits = out.name == ("fp32" if left.is_float else "int32")
        self._refuse(
            np.full(len(at), not known or not fits), at, f"{left} x {right} cannot be summed in {out}"
        )
        can = bool(vector[0]) or self.chip.pe.matrix.supports(left.name)
        self._refuse(
            np.full(len(at), not can), at, f"the matrix unit of {self.chip.name} does not multiply {left}"
        )

    def _reduce(self, at: Array, c: dict[str, Array]) -> None:
        self._refuse(
            (c["src_pe"] < 0) | (c["src_pe"] >= self.chip.pes),
            at,
            f"no such PE; right: 0 to {self.chip.pes - 1}",
        )
        self._held(at, c["dst"], c["rows"] * c["cols"], bank=True)
        band = self.block.band_rows(self.chip.grid.rows)[:, 0]
        own, other = (band[c[name] // self.chip.grid.cols] for name in ("pe", "src_pe"))
        self._refuse(own != other, at, "the other PE is in another band")

    def _simd(self, at: Array, c: dict[str, Array]) -> None:
        self._refuse(
            c["fn"] >= len(FUNCTION_NAMES), at, f"unknown function; right: 0 to {len(FUNCTION_NAMES) - 1}"
        )
        arity = np.array([f.arity for f in FUNCTIONS.values()])[c["fn"]]
        for i, name in enumerate(SLOT_FIELDS[1:]):
            self._refuse((c[name] == NO_SLOT) == (i < arity), at, "the function takes more or fewer operands")
            self._source(at, c, i, name)
        self._refuse(c["flags"] >> 6 > 0, at, "unknown flags")
        self._held(at, c["dst"], c["rows"] * c["cols"])

    def _source(self, at: Array, c: dict[str, Array], i: int, name: str) -> None:
        self._refuse(c[name] < IMMEDIATE, at, f"{name} names no slot")
        shape, read = source_shape(c["flags"], i), c[name] >= 0
        rows = np.where((shape == Shape.FULL) | (shape == Shape.COL), c["rows"], 1)
        cols = np.where((shape == Shape.FULL) | (shape == Shape.ROW), c["cols"], 1)
        self._held(at, np.maximum(c[name], 0), rows * cols * read, bank=None)

    def _fold(self, at: Array, c: dict[str, Array]) -> None:
        self._refuse(
            c["fn"] >= len(REDUCTION_NAMES), at, f"unknown reduction; right: 0 to {len(REDUCTION_NAMES) - 1}"
        )
        self._refuse(c["flags"] >> 2 > 0, at, "unknown flags")
        self._source(at, c, 0, "src0")
        self._held(at, c["dst"], c["rows"])

    def _scalar(self, at: Array, c: dict[str, Array]) -> None:
        self._refuse(np.full(len(at), not self.block.scalar[0]), at, "the block names no op for the core")
        wide = [math.prod(x.shape) for x in self.block.operands]
        self._refuse(c["rows"] < 0, at, f"a negative number of elements; right: up to {sum(wide)}")

    def _written_before_read(self) -> None:
        """Refuse a slot that is read before it is written, and a stage that no command has filled."""
        first = self._first_writes()
        c, now = self.c, np.arange(len(self.op))
        for name in SLOT_FIELDS[1:]:
            read = c[name] >= 0
            self._refuse(
                read & (first[c["pe"], np.maximum(c[name], 0)] >= now), None, f"{name} was never written"
            )
        sums = (self.op == Opcode.MATMUL) & (c["flags"] & FIRST == 0) | (self.op == Opcode.REDUCE)
        slot = np.maximum(c["dst"], 0)
        self._refuse(sums & (first[c["pe"], slot] >= now), None, "the accumulator was never written")
        other = np.where(self.op == Opcode.REDUCE, c["src_pe"], 0)
        self._refuse(
            (self.op == Opcode.REDUCE) & (first[other, slot] >= now),
            None,
            "the other accumulator was never written",
        )
        filled = np.full(self.block.stages + 1, len(self.op))
        stages = np.flatnonzero((self.op == Opcode.STAGE) & (c["stage"] >= 0))[::-1]
        filled[c["stage"][stages]] = stages
        waits = (self.op == Opcode.LOAD) & (c["stage"] >= 0)
        self._refuse(waits & (filled[c["stage"]] >= now), None, "the stage was never filled")

    def _first_writes(self) -> Array:
        """Return [PEs, slots]: the first command that writes each slot, past the last where none does."""
        grid, lanes = self.chip.grid, max(1, len(self.block.slots))
        c = self.c
        first = np.full((grid.rows, grid.cols, lanes), len(self.op))
        writes = np.flatnonzero(
            (c["dst"] >= 0)
            & ((self.op != Opcode.MATMUL) | (c["flags"] & FIRST > 0))
            & (self.op != Opcode.REDUCE)
        )[::-1]  # the last to be set is the first to be issued
        for low, high in pairwise([0, *self.block.bands, grid.rows]):
            inside = (c["pe"][writes] >= low * grid.cols) & (c["pe"][writes] < high * grid.cols)
            self._band_writes(first[low:high], writes[inside], low)
        return first.reshape(grid.rows * grid.cols, lanes)

    def _band_writes(self, first: Array, writes: Array, low: int) -> None:
        """Put the earliest of one band's writes, which stand latest first, into first[row, col, slot]."""
        c, (_, cols, lanes), never = self.c, first.shape, len(self.op)
        row, col, cast = c["pe"] // cols - low, c["pe"] % cols, c["cast"]
        for kind, places in ((Cast.NONE, (row, col)), (Cast.ROW, (row,)), (Cast.COL, (col,)), (Cast.ALL, ())):
            mine = writes[cast[writes] == kind]
            axes = {Cast.NONE: (0, 1), Cast.ROW: (0,), Cast.COL: (1,), Cast.ALL: ()}[kind]
            small = np.full((*(first.shape[a] for a in axes), lanes), never)
            small[(*(p[mine] for p in places), c["dst"][mine])] = mine
            np.minimum(first, small[:, None, :] if kind is Cast.ROW else small, out=first)


def _multiplies(kind: DType) -> bool:
    return kind.bits <= 32 and kind.name not in ("uint32", "bool")


def describe(command: Any, block: Block) -> str:
    """Return a command as text even where its numbers mean nothing."""
    try:
        return dump_command(command, block)
    except (IndexError, ValueError):
        return " ".join(f"{name}={command[name]}" for name in _names())


def _names() -> Iterable[str]:
    return COMMAND.names or ()
