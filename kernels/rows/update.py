"""Rows of tables changed in place by the sums of their gradients: one launch, whatever rule changes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import NONE_BELOW, Block, Opcode, Operand, Shape
from mtia_emu.types import FP32, FP64, DType

from ..builder import LINE, Builder, NoRoom, ceil_div
from ..estimates import RINGS
from ..kernel import Kernel
from ..phases import Phases
from .emit_tape import PeTiles, TapeSite, allocate, elements, emit_steps, reserve
from .tape import Tape, finish, parse

Array = np.ndarray[Any, Any]
T = TypeVar("T")
TURNS = (
    4  # tiles of a PE, where there are rows for as many: the first fetch and the last put are hidden by none
)
NAMED = 2  # operands from the sources of runs to the rows that they name

# Each PE has a tile a round.
ISSUE = Phases(
    fetch=0,  # sums and old rows come beside the work on the tile before
    put=2,
    compute=1,
    shared=-2,  # numbers that all tiles read, and the sort
    sort=-1,
)


def wide(values: Operand) -> DType:
    """Return the type that gradients are summed in."""
    return FP64 if values.dtype == FP64 else FP32


@dataclass(frozen=True)
class RowTables:
    """What an update works on: gradients' rows of `values`, and `tables` whose rows it changes.

    Input 0 of the tape is a row's summed gradient, then come its rows of the tables, then numbers; its
    results are the next rows of the tables.
    """

    tape: Tape
    values: Operand
    tables: tuple[Operand, ...]

    @cached_property
    def finished(self) -> Tape:
        """Return the tape whose results are steps of their own."""
        return finish(self.tape, [x.dtype for x in self.tables])

    @property
    def width(self) -> int:
        """Return the elements of a gradient's row."""
        return self.values.cols

    def shape(self, table: Operand) -> Shape:
        """Return how a table's rows meet a tile of gradients."""
        return Shape.FULL if table.cols == self.width else Shape.COL

    @cached_property
    def read(self) -> tuple[int, ...]:
        """Return the tables whose old rows the tape reads."""
        used = {s for step in self.finished.steps for s in step.sources if isinstance(s, int)}
        return tuple(i for i in range(len(self.tables)) if i + 1 in used)

    @cached_property
    def shapes(self) -> list[Shape]:
        """Return how the tape's inputs meet a tile."""
        numbers = self.tape.inputs - 1 - len(self.tables)
        return [Shape.FULL, *map(self.shape, self.tables), *[Shape.ONE] * numbers]

    @cached_property
    def ends(self) -> dict[int, Shape]:
        """Return how results meet a tile, by the step that makes each."""
        return {~int(r): self.shape(x) for r, x in zip(self.finished.results, self.tables, strict=True)}

    def most_rows(self, chip: Chip) -> int:
        """Return the rows of a tile that a PE's local memory holds; 0 where it holds none."""
        registers = allocate(self.finished, self.shapes, self.ends)
        held = [(RINGS, wide(self.values), Shape.FULL)]
        held += [(RINGS, self.tables[i].dtype, self.shape(self.tables[i])) for i in self.read]
        held += [(RINGS, x.dtype, self.shape(x)) for x in self.tables]
        held += [(1, kind, shape) for kind, shape in registers.kinds]
        each = sum(n * kind.bytes * elements(shape, 1, self.width) for n, kind, shape in held)
        spare = LINE * (sum(n for n, _, _ in held) + len(self.shapes))
        return max(0, (chip.pe.local.bytes - spare) // each)


@dataclass(frozen=True)
class Runs:
    """Indices [1, n] in runs, as `program/commands/runs.py` has them: how they are sorted, where words go.

    Operand numbers: `places` is -1 where gradient i is index i's own; `words` is that of the sources.
    """

    indices: Operand
    places: int
    words: int
    groups: int
    rows: int  # of the tables
    most: int = 0  # indices of a run, 0: all of one row
    below: bool = False  # whether an index below 0 names nothing


class _Rounds:
    """Tiles of runs, a round for each of a PE's, and the commands that all kernels of runs have."""

    def __init__(self, build: Builder, runs: Runs, values: Operand, tile_rows: int) -> None:
        self.build, self.runs, self.values, self.rows = build, runs, values, tile_rows
        t = build.steps(ceil_div(runs.groups, tile_rows))
        self.pe, self.turn, self.row = build.chip.grid.near(t), t // build.chip.pes, t * tile_rows
        self.n = np.minimum(tile_rows, runs.groups - self.row)

    def sort(self) -> None:
        """Emit each PE's share of the sort."""
        runs, pes = self.runs, self.build.chip.pes
        share = ceil_div(runs.indices.cols, pes)
        pe = self.build.steps(ceil_div(runs.indices.cols, share))
        self.build.add(
            Opcode.SORT,
            ISSUE.at("sort", 0),
            pe=pe,
            operand=runs.words,
            operand2=0,
            row2=runs.places,
            col2=self.values.rows,
            row=pe * share,
            rows=np.minimum(share, runs.indices.cols - pe * share),
            col=runs.most,
            cols=1,
            k=runs.rows,
            flags=NONE_BELOW if runs.below else 0,
        )

    def sums(self) -> Array:
        """Emit the sums of the runs' gradients; return their slots."""
        count, groups = self.runs.indices.cols, self.runs.groups
        slots = self.slots(wide(self.values), self.values.cols)
        self.build.add(
            Opcode.SUM,
            ISSUE.at("fetch", self.turn),
            pe=self.pe,
            operand=1,
            operand2=self.runs.words,
            row=self.row,
            rows=self.n,
            cols=self.values.cols,
            k=np.minimum(count, np.ceil(self.n * (count / groups))),
            dst=slots,
        )
        return slots

    def slots(self, kind: DType, cols: int) -> Array:
        """Return a slot for each tile, of a ring."""
        return self.build.slot(kind, self.rows * cols, RINGS) + self.turn % RINGS


def tile_rows(groups: int, most: int, chip: Chip) -> int:
    """Return the runs of a tile: few tiles a PE, of equal size, of `most` runs at most."""
    share = ceil_div(groups, chip.pes)
    return ceil_div(share, max(ceil_div(share, most), min(TURNS, ceil_div(share, 8))))


class PartialSumsKernel(Kernel):
    """Gradients of runs of `most` indices at most, added up: for tables of few rows, of which each has many.

    The inputs are indices [1, n] into `rows` rows, gradients [m, d] and maybe places [1, n]. The outputs are
    sums [g, d], and words of the runs, of which the last are the rows that the sums belong to.
    """

    name = "partial_sums"
    summary = "gradients of equal rows added up, some of each row's at once"
    shares_launch = True

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the commands; raise `NoRoom` where local memory holds no row."""
        sums, groups, values = outputs[0], outputs[-1].cols, inputs[1]
        most = (chip.pe.local.bytes - RINGS * LINE) // (RINGS * sums.dtype.bytes * values.cols)
        if not most:
            raise NoRoom(f"partial_sums: a row of {values.cols} elements does not fit a PE's local memory")
        place = 2 if len(inputs) > 2 else -1
        runs = Runs(inputs[0], place, len(inputs) + 1, groups, attrs["rows"], attrs["most"])
        rows = tile_rows(groups, most, chip)
        build = Builder(chip, self.name, (*inputs, *outputs), f"tile={rows}x{values.cols}")
        rounds = _Rounds(build, runs, values, rows)
        rounds.sort()
        slots, at = rounds.sums(), ISSUE.at("put", rounds.turn) - len(ISSUE.rounds)  # nothing is computed
        build.add(
            Opcode.STORE,
            at,
            pe=rounds.pe,
            operand=len(inputs),
            src0=slots,
            row=rounds.row,
            rows=rounds.n,
            cols=values.cols,
        )
        return build.block()

    def streamed(self, inputs: Sequence[T], outputs: Sequence[T]) -> Sequence[T]:
        """Return all but the gradients, of which rows are looked up."""
        return [inputs[0], *inputs[2:]]


class UpdateKernel(Kernel):
    """Indices sorted, gradients of equal ones summed, rows fetched, changed by a tape and put back.

    The inputs are indices [1, n], gradients [m, d], maybe the place [1, n] of each index's gradient, and
    numbers [1, 1]. The outputs are `tables` [r, d] or [r, 1], which hold rows already, and words of the runs:
    sources [1, n], starts [1, g + 1] and rows [1, g], as `program/commands/runs.py` has them. No sum leaves
    the PE that changes the row. A row's gradients are added in the order of their indices, so results do not
    depend on the grid.
    """

    name = "update"
    summary = "rows of tables changed in place by sums of gradients"
    reads_views = writes_views = shares_launch = True

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the commands; raise `NoRoom` where local memory holds no row of all tables."""
        work = RowTables(parse(attrs["tape"]), inputs[1], tuple(outputs[:-3]))
        most, placed, count = work.most_rows(chip), bool(attrs["placed"]), len(inputs)
        if not most:
            raise NoRoom(f"update: a row of {work.width} elements does not fit a PE's local memory")
        rows, groups = tile_rows(outputs[-1].cols, most, chip), outputs[-1].cols
        build = Builder(chip, self.name, (*inputs, *outputs), f"tile={rows}x{work.width}")
        runs = Runs(
            inputs[0],
            2 if placed else -1,
            count + len(work.tables),
            groups,
            work.tables[0].rows,
            below=bool(attrs.get("below")),
        )
        rounds = _Rounds(build, runs, work.values, rows)
        return _Emitter(rounds, work, count, range(2 + placed, count)).block()

    def streamed(self, inputs: Sequence[T], outputs: Sequence[T]) -> Sequence[T]:
        """Return all but the gradients, of which rows are looked up."""
        return [inputs[0], *inputs[2:]]


@dataclass(frozen=True)
class _Emitter:
    """The commands of an update: operands from `first` on are the tables, those in `numbers` numbers."""

    rounds: _Rounds
    work: RowTables
    first: int
    numbers: range

    def block(self) -> Block:
        """Return the block: the sort, then a tile of runs a round."""
        work, rounds = self.work, self.rounds
        rounds.sort()
        tape, registers = work.finished, allocate(work.finished, work.shapes, work.ends)
        summed, old = rounds.sums(), {i: self._fetched(i) for i in work.read}
        inputs = [summed, *(old.get(i, 0) for i in range(len(work.tables))), *map(self._number, self.numbers)]
        held = reserve(rounds.build, registers, rounds.rows, work.width)
        into = {~int(r): self._ring(x) for r, x in zip(tape.results, work.tables, strict=True)}
        site = TapeSite(inputs, work.shapes, registers, held, into, work.ends)
        tiles = PeTiles(rounds.pe, rounds.n, work.width)
        emit_steps(rounds.build, tape, site, ISSUE.at("compute", rounds.turn), tiles)
        for index, result in enumerate(tape.results):
            self._move(Opcode.PUT, "put", index, src0=site.slot(result))
        return rounds.build.block()

    def _fetched(self, index: int) -> Array:
        """Emit the fetches of a table's old rows; return their slots."""
        slots = self._ring(self.work.tables[index])
        self._move(Opcode.FETCH, "fetch", index, dst=slots)
        return slots

    def _move(self, opcode: Opcode, phase: str, index: int, **slot: Array | int) -> None:
        """Emit moves of the rows of a table that runs name."""
        rounds = self.rounds
        rounds.build.add(
            opcode,
            ISSUE.at(phase, rounds.turn),
            pe=rounds.pe,
            operand=self.first + index,
            operand2=rounds.runs.words + NAMED,
            row2=rounds.row,
            rows=rounds.n,
            cols=self.work.tables[index].cols,
            **slot,
        )

    def _number(self, operand: int) -> int:
        """Emit the load of a number for all PEs; return its slot."""
        build = self.rounds.build
        slot = build.slot(build.operands[operand].dtype, 1)
        at = ISSUE.at("shared", 0)
        build.add(Opcode.LOAD, at, **build.for_all(), operand=operand, dst=slot, rows=1, cols=1)
        return slot

    def _ring(self, table: Operand) -> Array:
        return self.rounds.slots(table.dtype, table.cols)
