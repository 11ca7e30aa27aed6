"""Rare ops on the processor core of one PE: correct, slow, and priced so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Block, Opcode, Operand

from ..builder import Builder


def emit_scalar(
    chip: Chip, op: str, attrs: Mapping[str, Any], inputs: Sequence[Operand], outputs: Sequence[Operand]
) -> Block:
    """Return the block that runs an op by its reference on one core, every operand element once."""
    operands = (*inputs, *outputs)
    build = Builder(chip, "scalar", operands, op)
    elements = sum(x.rows * x.cols for x in operands)
    build.add(Opcode.SCALAR, 0, pe=0, rows=min(elements, (1 << 31) - 1))
    return build.block(scalar=(op, tuple(attrs.items())))
