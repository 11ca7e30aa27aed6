"""The law of a program: what a saved one could have wrong is refused before it is executed or timed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import UserError
from ..machine.chip import Chip, validate
from ..machine.memories import Memory
from ..options import COLD, WARM
from .columns import MOST, CommandColumns
from .file_turns import verify_routed
from .isa import COMMAND, Binding, Block, Opcode, Operand, Program
from .verify_commands import SLOT_FIELDS, verify_commands

Array = np.ndarray[Any, Any]
MOST_BYTES = 1 << 48  # of a memory
MOST_CELLS = 1 << 24  # slots times PEs: the timing keeps two numbers of each
MOST_STAGES = 1 << 20  # of a block: the timing keeps a number of each


def verify(program: Program, chip: Chip | None = None) -> None:
    """Raise `UserError` for a program that is not whole: it may come from anywhere.

    A program that passes executes and is timed on `chip` (the one that it was compiled for, where none is
    given) without any error but a `UserError`, in memory that its own sizes bound. Weights are not looked at.
    """
    machine = chip or validate(program.chip, f"of program {program.model}")
    for name, have in program.memory_bytes.items():
        if not 0 <= have <= MOST_BYTES:
            raise UserError(f"program {program.model}: {name} of {have} bytes; right: 0 to {MOST_BYTES}")
    if program.state not in (COLD, WARM) or not 0 <= program.resident_bytes <= program.sram_bytes:
        raise UserError(
            f"program {program.model}: {program.state}, with {program.resident_bytes} resident bytes of "
            f"{program.sram_bytes}; right: {COLD} or {WARM}, with 0 to {program.sram_bytes}"
        )
    for binding in (*program.inputs, *program.outputs, *program.consts):
        _verify_binding(binding, program)
    for index, block in enumerate(program.blocks):
        try:
            verify_block(block, machine)
        except UserError as error:
            raise UserError(f"program {program.model}, block {index} ({block.kernel}): {error}") from None
    for launch in program.launches:
        _verify_launch(launch.name, launch.block, launch.addresses, program)
        bands = len(program.blocks[launch.block].bands) + 1
        if launch.parts and len(launch.parts) != bands:
            raise UserError(
                f"program {program.model}, launch {launch.name}: {len(launch.parts)} layers on {bands} bands"
            )


def verify_block(block: Block, chip: Chip) -> None:
    """Raise `UserError` for a block that refers to what it, or the chip, does not have."""
    for index, operand in enumerate(block.operands):
        _verify_operand(index, operand, block)
    _verify_bands(block.bands, chip.grid.rows)
    _verify_slots(block, chip)
    if block.commands.dtype != COMMAND or block.commands.ndim != 1:
        raise UserError("commands are not an array of command records")
    if not 0 <= block.scratch_bytes <= min(MOST, chip.sram.bytes):
        raise UserError(
            f"{block.scratch_bytes} bytes of SRAM scratch; right: 0 to {min(MOST, chip.sram.bytes)}"
        )
    if not 0 <= block.stages <= MOST_STAGES:
        raise UserError(f"{block.stages} stage slots; right: 0 to {MOST_STAGES}")
    if len(block.commands):
        verify_commands(block, chip)
    if block.routed is not None:
        before = replace(block, commands=block.routed.commands, routed=None)
        verify_block(before, chip)
        verify_routed(block, CommandColumns(before, chip))


def _verify_binding(b: Binding, program: Program) -> None:
    have = program.memory_bytes.get(b.space)
    if b.strides and (len(b.strides) != b.type.rank or not 0 <= min(b.strides) <= max(b.strides) <= MOST):
        raise UserError(f"program {program.model}: %{b.name} {b.type} lies in strides {list(b.strides)}")
    if have is None or not 0 <= b.address <= have - max(b.operand.extent_bytes, b.type.bytes):
        raise UserError(
            f"program {program.model}: %{b.name} {b.type} lies at {b.space} {b.address}, outside the memory"
        )
    if b.model_type.shape != b.type.shape:
        raise UserError(
            f"program {program.model}: %{b.name} is {b.type} in memory but {b.model_type} to its user"
        )


def _verify_launch(name: str, index: int, addresses: Sequence[int], program: Program) -> None:
    where = f"program {program.model}, launch {name}"
    if not 0 <= index < len(program.blocks):
        raise UserError(f"{where}: block {index} of {len(program.blocks)}")
    block = program.blocks[index]
    if len(addresses) != len(block.operands):
        raise UserError(f"{where}: {len(addresses)} addresses for {len(block.operands)} operands")
    room = {**program.memory_bytes, Memory.SCRATCH: block.scratch_bytes}
    for address, operand in zip(addresses, block.operands, strict=True):
        if not 0 <= address <= room[operand.space] - operand.extent_bytes:
            have = f"{room[operand.space]} bytes of {operand.space}"
            raise UserError(f"{where}: operand {operand} at {address} leaves {have}")


def _verify_operand(index: int, x: Operand, block: Block) -> None:
    if not x.shape or len(x.shape) != len(x.strides):
        raise UserError(
            f"operand %{index} has {len(x.shape)} dimensions and {len(x.strides)} strides; "
            "right: as many, 1 or more"
        )
    most = max(len(x.shape) - 1, 1)
    if x.across != 1 and not (1 < x.across <= most and not x.written and _by_tile(index, block)):
        raise UserError(
            f"operand %{index} has {x.across} dimensions across; right: 1 to {most}, and 1 where it is "
            "written, looked up or read by a core"
        )
    if min(x.shape) < 0 or min(x.strides) < 0 or max(x.strides) > MOST or math.prod(x.shape) > MOST:
        raise UserError(f"operand %{index} {x}: right: sizes and strides from 0, at most {MOST} elements")
    if block.scalar[0] and math.prod(x.shape) * x.dtype.bytes > max(x.extent_bytes, 1 << 20) * 256:
        raise UserError(f"operand %{index} {x} repeats {x.extent_bytes} bytes too often for a core")


ROWS_NAMED = (Opcode.GATHER, Opcode.POOL, Opcode.SCATTER, Opcode.GROUP, Opcode.SUM, Opcode.FETCH, Opcode.PUT)


def _by_tile(index: int, block: Block) -> bool:
    """Return whether commands read an operand by tiles alone, not by rows that they look up, or whole."""
    c = block.commands
    by_rows = np.isin(c["op"], ROWS_NAMED) & (c["operand"] == index)
    updates = (c["op"] == Opcode.SCATTER) & (c["row2"] == index)
    return not block.scalar[0] and not bool((by_rows | updates).any())


def _verify_bands(bands: Sequence[int], rows: int) -> None:
    if not all(low < high for low, high in pairwise([0, *bands, rows])):
        raise UserError(f"bands begin at rows {list(bands)}; right: rising, from 1 to {rows - 1}")


def _verify_slots(block: Block, chip: Chip) -> None:
    slots = block.slots
    if len(slots) >= 1 << 15 or (len(slots) + 1) * chip.pes > MOST_CELLS:
        raise UserError(f"{len(slots)} slots on {chip.pes} PEs; right: at most {MOST_CELLS} in all")
    users = _bands_of_slots(block, chip)
    for accumulator, what, have in (
        (False, "local memory", chip.pe.local.bytes),
        (True, "accumulators", chip.pe.reduce.bytes),
    ):
        ends: dict[int, int] = {}  # of what each band has so far
        mine = [(s.offset, s.bytes, i) for i, s in enumerate(slots) if s.accumulator == accumulator]
        for offset, size, index in sorted(mine):
            unit, bands = slots[index].dtype.bytes, users[index]
            at = max((ends.get(band, 0) for band in bands), default=0)
            if offset < at or size < 0 or offset + size > have or offset % unit or size % unit:
                raise UserError(
                    f"slot s{index} takes {size} bytes at {offset} of {what}; right: whole elements of "
                    f"{slots[index].dtype}, from {at} to {have}, one slot after another"
                )
            ends |= dict.fromkeys(bands, offset + size)


def _bands_of_slots(block: Block, chip: Chip) -> list[list[int]]:
    """Return the bands whose PEs use each slot, by number: all slots those of the one band, if it is one.

    What names no PE or slot is left to the law of commands.
    """
    if not block.bands or block.commands.dtype != COMMAND:
        return [[0]] * len(block.slots)
    used = np.zeros((len(block.slots), len(block.bands) + 1), bool)
    band = np.searchsorted(block.bands, block.commands["pe"] // chip.grid.cols, side="right")
    for name in SLOT_FIELDS:
        slot = block.commands[name]
        known = (slot >= 0) & (slot < len(used))
        used[slot[known], band[known]] = True
    return [np.flatnonzero(row).tolist() for row in used]
