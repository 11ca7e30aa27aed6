"""What the epilogue of a product takes, and how its operands meet the tiles of the result."""

from __future__ import annotations

from collections.abc import Sequence

from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.program.isa import Operand, Shape
from mtia_emu.types import FP32

from ..rows.emit_tape import allocate
from ..rows.tape import Tape, finish
from .plan import RINGS, EpilogueCost


def epilogue_of(tape: Tape | None, extras: Sequence[Operand]) -> EpilogueCost:
    """Return what an epilogue takes."""
    if tape is None:
        return EpilogueCost()
    shapes = [Shape.FULL, *(meets(x, x.cols) for x in extras)]
    finished = finish(tape, [FP32])
    registers = allocate(finished, shapes)
    held = sum(kind.bytes for kind, shape in registers.kinds if shape is Shape.FULL)
    whole = [x for x, shape in zip(extras, shapes[1:], strict=True) if shape is Shape.FULL]
    dram = sum(x.dtype.bytes for x in whole if x.space.off_chip)
    size = sum(x.dtype.bytes for x in whole)
    passes = sum(1 if s.folds else FUNCTIONS[s.function].passes for s in finished.steps)
    return EpilogueCost(held + RINGS * size, max(passes, 1), size - dram, dram)


def meets(extra: Operand, n: int) -> Shape:
    """Return how an operand of the epilogue meets the tiles of an output of n columns."""
    if extra.rows == 1 and extra.cols == n:
        return Shape.ROW
    return Shape.COL if extra.cols == 1 else Shape.FULL
