"""A scan whose elements go their own ways: each PE takes some columns through all steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block, Opcode, Operand, Shape

from ..builder import LINE, Builder, NoRoom, ceil_div, round_up
from ..halves import Portion, in_two, part
from ..kernel import Kernel
from ..phases import Phases
from .emit_tape import PeTiles, TapeSite, allocate, emit_steps, reserve
from .tape import Tape, finish, parse

Array = np.ndarray[Any, Any]
RING = 8  # steps whose operands are on their way or in use: a load takes as long as a few steps

# Steps follow one another in each PE.
ISSUE = Phases(
    loads=0,
    store=RING,  # behind the loads of that round; SIMD is done with its step about then
    compute=RING - 1,
)


class ScanKernel(Kernel):
    """A tape over columns, step after step: states stay in the PE, and no PE waits for another.

    Operands are the state [1, w], what is scanned, [steps, w], and what is kept, [1, w]; the result is the
    state behind each step, [steps, w].
    """

    name = "scan"
    summary = "elementwise scan: columns that go through all steps in one PE"
    reads_views = writes_views = shares_launch = True

    def emit(
        self, chip: Chip, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
    ) -> Block:
        """Return the commands; raise `NoRoom` where local memory does not hold the operands of some steps."""
        return _Emitter(chip, finish(parse(attrs["tape"]), [outputs[0].dtype]), inputs, outputs[0]).block()

    def halves(self, call: Portion) -> list[Portion]:
        """Cut the columns: steps wait for one another."""

        def cut(start: int, count: int) -> Portion | None:
            sides = (call.inputs, call.outputs)
            return call.of(*([part(x, 1, start, count) for x in side] for side in sides))

        width = call.outputs[0].shape[1]
        return in_two(width, cut) if width > 1 else []


@dataclass(frozen=True)
class _Emitter:
    chip: Chip
    tape: Tape
    inputs: Sequence[Operand]
    out: Operand

    @cached_property
    def steps(self) -> int:
        """Return the steps of the scan."""
        return self.out.shape[0]

    @property
    def spare(self) -> int:
        """Return the places of what a PE reads once a tile: loads run ahead, by tiles of few steps."""
        return 2 + (RING - 2) // self.steps

    @cached_property
    def width(self) -> int:
        """Return the columns of a tile: a PE's share of all, in whole lines, as far as there is room."""
        registers = allocate(self.tape, [Shape.FULL] * len(self.inputs))
        ring = [self.out, *(x for x in self.inputs[1:] if self._moves(x))]
        kept = [x for x in self.inputs if not self._moves(x)]
        each = RING * sum(x.dtype.bytes for x in ring) + self.spare * sum(x.dtype.bytes for x in kept)
        each += sum(kind.bytes for kind, _ in registers.kinds)
        places = RING * len(ring) + self.spare * len(kept) + len(registers.kinds)
        room = (self.chip.pe.local.bytes - places * LINE) // each
        if room < 1:
            raise NoRoom(f"scan: {RING} steps of {len(ring)} operands do not fit a PE's local memory")
        share = round_up(ceil_div(self.out.cols, self.chip.pes), LINE // self.out.dtype.bytes)
        return min(self.out.cols, share, room)

    def _moves(self, operand: Operand) -> bool:
        """Return whether an operand is scanned; where there is one step only, nothing needs to be."""
        return operand is not self.inputs[0] and operand.shape[0] == self.steps > 1

    def block(self) -> Block:
        build = Builder(self.chip, "scan", (*self.inputs, self.out), f"tile={RING}x{self.width}")
        tiles = ceil_div(self.out.cols, self.width)
        number = build.steps(tiles * self.steps)
        tile, t = number // self.steps, number % self.steps
        turn = tile // self.chip.pes
        site = _Site(self.chip.grid.near(tile), turn, turn * self.steps + t, t, tile * self.width)
        cols = np.minimum(self.width, self.out.cols - site.col)
        result = build.slot(self.out.dtype, self.width, RING) + site.order % RING
        slots = [self._load(build, i, site, cols) for i in range(len(self.inputs))]
        slots[0] = np.where(t == 0, slots[0], np.roll(result, 1))  # the state that the step before left
        shapes = [Shape.FULL] * len(self.inputs)
        registers = allocate(self.tape, shapes)
        held = reserve(build, registers, 1, self.width)
        (end,) = self.tape.results
        where = TapeSite(slots, shapes, registers, held, {~int(end): result})
        emit_steps(build, self.tape, where, ISSUE.at("compute", site.order), PeTiles(site.pe, 1, cols))
        build.add(
            Opcode.STORE,
            ISSUE.at("store", site.order),
            pe=site.pe,
            operand=len(self.inputs),
            src0=result,
            row=t,
            rows=1,
            col=site.col,
            cols=cols,
        )
        return build.block()

    def _load(self, build: Builder, index: int, site: _Site, cols: Array) -> Array:
        """Emit an input's loads, for each step or once a tile; return the slots in which steps read it."""
        operand = self.inputs[index]
        moves = self._moves(operand)
        first = build.slot(operand.dtype, self.width, RING if moves else self.spare)
        slots = first + (site.order % RING if moves else site.turn % self.spare)
        at = slice(None) if moves else site.step == 0
        build.add(
            Opcode.LOAD,
            ISSUE.at("loads", site.order[at]),
            pe=site.pe[at],
            operand=index,
            dst=slots[at],
            row=site.step[at] if moves else 0,
            rows=1,
            col=site.col[at],
            cols=cols[at],
        )
        return slots


@dataclass(frozen=True)
class _Site:
    """Of each step of each tile: its PE, which of that PE's tiles it is, its place, its step, its column."""

    pe: Array
    turn: Array
    order: Array
    step: Array
    col: Array
