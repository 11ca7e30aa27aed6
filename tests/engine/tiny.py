"""Blocks of a few commands on the chip `tiny`: operands and slots of every kind that a command meets."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtia_emu.program.isa import COMMAND, FUNCTION_NAMES, NO_SLOT, Block, Opcode, Operand, Slot
from mtia_emu.types import FP16, FP32, INT8, INT32, INT64, UINT8

NEAR, FAR, OUT, AWAY, TURNED, ACROSS, TILES, AGAIN = range(8)
SCRATCH, TABLE, INDEX, OFFSETS, WEIGHTS, BYTES, MARKS, ENDS = range(8, 16)
OPERANDS = (
    Operand(FP16, (8, 8), (8, 1), "sram"),
    Operand(FP16, (8, 8), (8, 1), "dram"),
    Operand(FP16, (8, 8), (8, 1), "sram", written=True),
    Operand(FP16, (8, 8), (8, 1), "dram", written=True),
    Operand(FP16, (8, 8), (1, 8), "sram", by_column=True),  # lies as local memory keeps it
    Operand(FP16, (8, 8), (8, 1), "sram", by_column=True),  # does not: the layout unit turns it
    Operand(FP16, (8, 8), (8, 1), "dram", tiled=True),
    Operand(FP16, (8, 8), (0, 1), "sram"),  # one row, eight times
    Operand(FP16, (8, 8), (8, 1), "scratch", written=True),
    Operand(FP16, (32, 8), (8, 1), "dram"),
    *(Operand(INT64, (1, 20), (20, 1), "dram"), Operand(INT64, (1, 5), (5, 1), "dram")),
    Operand(FP32, (1, 20), (20, 1), "sram"),
    Operand(UINT8, (32, 16), (16, 1), "dram"),  # rows that end in a scale and an offset, 4 bytes each
    *(Operand(INT64, (1, 20), (20, 1), "dram"), Operand(INT64, (1, 5), (5, 1), "dram")),
)
A, B, ACC, RESULT, WIDE, LEFT, RIGHT, SMALL_A, SMALL_B, SMALL_ACC = range(10)
SLOTS = (
    Slot(FP16, 0, 256),
    Slot(FP16, 256, 256),
    Slot(FP32, 0, 256, accumulator=True),
    Slot(FP16, 512, 128),
    *(Slot(FP32, 768, 256), Slot(FP32, 1024, 128), Slot(FP32, 1152, 128)),
    *(Slot(INT8, 1280, 256), Slot(INT8, 1536, 320), Slot(INT32, 256, 768, accumulator=True)),
)
ABSENT = ("operand", "operand2", "dst", "src0", "src1", "src2", "stage", "src_pe")
TILE = {"rows": 8, "cols": 8}


def command(op: Opcode, **fields: Any) -> dict[str, Any]:
    """Return the fields of a command that stand; PE 0 has it unless `pe` says otherwise."""
    return {"op": op, **fields}


def block(
    *commands: dict[str, Any], operands: tuple[Operand, ...] = OPERANDS, bands: tuple[int, ...] = ()
) -> Block:
    """Return a block of commands, each the fields that it sets; slots and operands not named are none."""
    records = np.zeros(len(commands), COMMAND)
    for name in ABSENT:
        records[name] = NO_SLOT
    for record, fields in zip(records, commands, strict=True):
        for name, value in fields.items():
            record[name] = value
    return Block("test", operands, SLOTS, records, 128, 1, bands=bands)


def simd(fn: str, *sources: int, shapes: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a SIMD command on 4 x 8 elements; `shapes` are the sources' shapes as flags."""
    names = dict(zip(("src0", "src1", "src2"), sources, strict=False))
    return command(
        Opcode.SIMD,
        fn=FUNCTION_NAMES.index(fn),
        **({"dst": RESULT, "rows": 4, "cols": 8, "flags": shapes} | names | fields),
    )
