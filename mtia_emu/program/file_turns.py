"""Blocks that follow a table of turns, in program files: commands, which turns they are of, a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import UserError
from .columns import CommandColumns
from .header import BlockRecord, RoutedRecord
from .isa import Block
from .routed import Marks, Routed

WORD = np.dtype("<i4")


def stored(block: Block) -> dict[str, bytes]:
    """Return what is stored of a block, by the name of the member without the block's number."""
    if block.routed is None:
        return {"block": block.commands.tobytes()}
    r = block.routed
    m = r.marks
    marks = np.concatenate([m.turn, m.first, m.whole, r.table.ravel()]).astype(WORD)
    return {"block": r.commands.tobytes(), "turns": marks.tobytes()}


def routed_record(routed: Routed | None) -> RoutedRecord | None:
    """Return the part of a block's record that says how it follows a table."""
    if routed is None:
        return None
    strides = list(routed.strides)
    return RoutedRecord(
        operand=routed.operand, experts=routed.experts, strides=strides, turns=len(routed.table)
    )


def marks_bytes(block: BlockRecord) -> int:
    """Return the bytes of the marks of a block, which follows a table."""
    turns = block.routed.turns if block.routed else 0
    return (3 * block.commands + 2 * turns) * WORD.itemsize


def read_routed(block: Block, record: RoutedRecord | None, marks: bytes) -> Block:
    """Return a block that has the commands before a table is read with those for the table in `marks`.

    Raises `UserError` for marks that no compiler makes.
    """
    if record is None:
        return block
    words, n = np.frombuffer(marks, WORD).astype(np.int64), len(block.commands)
    table = words[3 * n :].reshape(-1, 2).astype(np.int32)
    turn, first, whole = words[: 3 * n].reshape(3, n)
    if (turn < -1).any() or (turn >= record.turns).any() or ((first < 0) & (turn >= 0)).any():
        raise UserError(f"a command is part of no turn (right: turns 0 to {record.turns - 1})")
    if ((whole != 0) & (whole != 1)).any():
        raise UserError("a command's rows are neither its turn's nor its expert's (right: 0 or 1)")
    marks_of = Marks(turn, first, whole.astype(bool))
    strides = tuple(record.strides)
    routed = Routed(record.operand, record.experts, strides, block.commands, marks_of, table)
    return replace(block, commands=routed.followed(table), routed=routed)


def verify_routed(block: Block, columns: CommandColumns) -> None:
    """Raise `UserError` unless a block's commands are lawful whatever the table that it follows.

    `columns` are those of its commands before the table is read, which are lawful as they stand.
    """
    r, operands = block.routed, block.operands
    if r is None:
        return
    if r.operand >= len(operands) or operands[r.operand].shape != r.table.shape:
        raise UserError(f"it follows operand %{r.operand}, which is no table {list(r.table.shape)}")
    if operands[r.operand].dtype.name != "int32":
        raise UserError(f"it follows a table of {operands[r.operand].dtype}; right: int32")
    for operand, rows in r.strides:
        if operand >= len(operands) or operands[operand].rows != r.experts * rows:
            raise UserError(f"operand %{operand} has not {rows} rows for each of {r.experts} experts")
        c = columns.c
        reads = (c["operand"] == operand) & (r.marks.turn >= 0) & r.marks.whole
        wide = reads & (c["row"] + c["rows"] > rows)
        if wide.any():
            raise UserError(f"command {int(np.argmax(wide))} reads rows of two experts of operand %{operand}")
