"""What a tape over tiles is estimated to take for each of several sizes of tile.

A PE takes one tile after another: while SIMD works on one, the next is loaded and the one before stored. PEs
that are busy at once share their row's link, SRAM and DRAM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.machine import ways
from mtia_emu.machine.chip import Chip
from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.machine.ways import Transfer
from mtia_emu.program.geometry import distinct, runs_of
from mtia_emu.program.isa import Cast, Operand, Shape

from ..estimates import Turn, pipelined
from .tape import Tape

Array = np.ndarray[Any, Any]
DOWN, ACROSS = (Shape.FULL, Shape.COL), (Shape.FULL, Shape.ROW)


@dataclass(frozen=True)
class TiledWork:
    """A finished tape over `rows` x `cols`; operands stand beside how they meet tiles.

    `met` is the shape of each step's value. What all tiles share is loaded once: it is left out.
    """

    chip: Chip
    tape: Tape
    rows: int
    cols: int
    inputs: Sequence[tuple[Operand, Shape]]
    outputs: Sequence[tuple[Operand, Shape]]
    met: Sequence[Shape]

    def cycles(self, height: Array, width: Array) -> Array:
        """Return about the cycles in tiles of so many rows and columns, [n] each."""
        count = np.ceil(self.rows / height) * np.ceil(self.cols / width)
        beside = np.minimum(count, self.chip.pes)
        come = self._turn(self.inputs, (height, width), beside, ways.load)
        go = self._turn(self.outputs, (height, width), beside, ways.store)
        commands = max(len(self.inputs) + len(self.outputs), len(self.tape.steps))
        return pipelined(count, (come, go), self._passes(height, width), commands, self.chip)

    def _turn(
        self, moved: Sequence[tuple[Operand, Shape]], tile: tuple[Array, Array], beside: Array, way_of: Any
    ) -> Turn:
        """Return what a turn of `beside` PEs takes, each of which moves a tile of these operands."""
        chip, none = self.chip, np.zeros(len(beside))
        row = np.ceil(beside / chip.grid.rows)  # PEs that take turns on a link
        hops = chip.grid.hops(row.astype(np.int64) - 1, Cast.NONE)
        port, link, sram, dram, late = none, none, none, none, none
        for x, shape in moved:
            rows, cols = (
                n if shape in s else np.ones_like(n) for n, s in zip(tile, (DOWN, ACROSS), strict=True)
            )
            length, runs, turned = runs_of(x, distinct(x, none, rows), cols)
            if shape not in DOWN:  # loaded once where tiles are as wide as all
                runs = runs * (tile[1] < self.cols) * (shape is Shape.ROW)
            size = length * runs
            off_chip = float(x.space.off_chip)
            way = way_of(Transfer(size, runs, hops, missed=off_chip, turned=size * turned), chip)
            port, link, late = port + way.busy, link + row * way.on_link, np.maximum(late, way.latency)
            if off_chip:
                dram = dram + chip.run_cycles(length, runs * beside, self._written)
            else:
                sram = sram + chip.sram_cycles(size * beside)
        return Turn(port, link, sram, dram, late)

    @property
    def _written(self) -> float:
        """Return the share of DRAM's bytes that is written."""
        read, written = (
            sum(x.dtype.bytes * (s in DOWN) for x, s in side if x.space.off_chip)
            for side in (self.inputs, self.outputs)
        )
        return written / max(read + written, 1)

    def _passes(self, height: Array, width: Array) -> Array:
        """Return the cycles of SIMD for a tile; each step waits for what the one before gives."""
        passed = np.zeros(len(height))
        for step, shape in zip(self.tape.steps, self.met, strict=True):
            read = [x for x in step.sources if isinstance(x, int)]
            whole = [x for x in read if self._shape(x) is Shape.FULL]
            bytes_ = max([step.to.bytes, *map(self._bytes, whole)])
            passes = 1 if step.folds else FUNCTIONS[step.function].passes
            over = Shape.FULL if step.folds else shape
            elements = (height if over in DOWN else 1) * (width if over in ACROSS else 1)
            busy, late = self.chip.pe.simd.cost(elements, bytes_, passes)
            passed = passed + busy + late
        return passed

    def _shape(self, source: int) -> Shape:
        return self.inputs[source][1] if source >= 0 else self.met[~source]

    def _bytes(self, source: int) -> int:
        return self.inputs[source][0].dtype.bytes if source >= 0 else self.tape.steps[~source].to.bytes
