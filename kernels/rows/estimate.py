"""The cycles that a tape over whole rows is estimated to take, its operands packed and in shared SRAM.

A PE takes one tile after another: while SIMD works on one, the next is loaded and the one before stored.
"""

from __future__ import annotations

from mtia_emu.machine import ways
from mtia_emu.machine.chip import Chip
from mtia_emu.machine.memories import Memory
from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.machine.ways import Transfer
from mtia_emu.program.isa import Cast, Operand, Shape
from mtia_emu.types import DType

from ..builder import ceil_div
from .rowwise import tiles_of
from .tape import Tape, finish


def row_cycles(chip: Chip, tape: Tape, rows: int, cols: int, kinds: tuple[DType, DType]) -> float:
    """Return about the cycles of a tape from [rows, cols] to a result as large, of types `kinds`.

    Raises `NoRoom` where local memory does not hold a row.
    """
    source, out = (Operand(kind, (rows, cols), (cols, 1), Memory.SRAM) for kind in kinds)
    count, height, width = tiles_of(chip, tape, [source], [out])
    turns, beside = ceil_div(count, chip.pes), min(count, chip.pes)
    row = min(beside, chip.grid.cols)  # PEs that take turns on a link
    hops = chip.grid.hops(row - 1, Cast.NONE)
    sizes = [height * width * kind.bytes for kind in kinds]
    come, go = (
        way_of(Transfer(size, 1, hops), chip)
        for way_of, size in zip((ways.load, ways.store), sizes, strict=True)
    )
    loaded, stored = (
        max(float(way.busy), row * float(way.on_link), float(chip.sram_cycles(beside * size)))
        for way, size in zip((come, go), sizes, strict=True)
    )
    passed = _passes(chip, tape, (height, width), kinds)
    pace = max(loaded, stored, passed, float(chip.sram_cycles(beside * sum(sizes))))
    ends = float(chip.pe.core.issue(1)) + float(come.latency) + float(go.latency)
    return ends + loaded + (turns - 1) * pace + passed + stored


def _passes(chip: Chip, tape: Tape, tile: tuple[int, int], kinds: tuple[DType, DType]) -> float:
    """Return the cycles of SIMD for a tile; each step waits for what the one before gives."""
    steps = finish(tape, kinds[1:]).steps
    shapes = finish(tape, kinds[1:]).shapes([Shape.FULL])
    passed = 0.0
    for step, shape in zip(steps, shapes, strict=True):
        read = [x for x in step.sources if isinstance(x, int) and (x >= 0 or shapes[~x] is Shape.FULL)]
        width = max([step.to.bytes, *(kinds[0].bytes if x >= 0 else steps[~x].to.bytes for x in read)])
        whole = step.folds or shape is Shape.FULL
        passes = 1 if step.folds else FUNCTIONS[step.function].passes
        busy, late = chip.pe.simd.cost(tile[0] * (tile[1] if whole else 1), width, passes)
        passed += float(busy) + late
    return passed
