"""The cycles that a tape over whole rows is estimated to take, its operands packed and in shared SRAM."""

from __future__ import annotations

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.memories import Memory
from mtia_emu.program.isa import Operand
from mtia_emu.types import DType

from .rowwise import tape_cycles
from .tape import Tape


def row_cycles(chip: Chip, tape: Tape, rows: int, cols: int, kinds: tuple[DType, DType]) -> float:
    """Return about the cycles of a tape from [rows, cols] to a result as large, of types `kinds`.

    Raises `NoRoom` where local memory does not hold a row.
    """
    source, out = (Operand(kind, (rows, cols), (cols, 1), Memory.SRAM) for kind in kinds)
    return tape_cycles(chip, tape, [source], [out])
