"""The law of a block's commands, held to all of them at once, column by column."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import UserError
from ..machine.chip import Chip
from .columns import CommandColumns, CommandFault
from .commands import COMMANDS, table_of
from .isa import COMMAND, NO_SLOT, Block, Cast
from .text import dump_command

Array = np.ndarray[Any, Any]
SLOT_FIELDS = ("dst", "src0", "src1", "src2")
_KNOWN, _LEAST = table_of(lambda kind: True), table_of(lambda kind: kind.least)
_CASTS, _OPTIONAL = table_of(lambda kind: kind.casts), table_of(lambda kind: kind.optional)
_FILLS, _WAITS = table_of(lambda kind: kind.fills_stage), table_of(lambda kind: kind.waits_for_stage)
_ADDS, _OVERWRITES = table_of(lambda kind: kind.adds), table_of(lambda kind: kind.overwrites)
_FROM_PEER = table_of(lambda kind: kind.from_peer)


def _naming(name: str) -> Array:
    """Return, by opcode, whether a field names a slot; where it does not, it must be NO_SLOT."""
    return table_of(lambda kind: name in kind.reads + kind.writes)


_NAMED = {name: _naming(name) for name in SLOT_FIELDS}


def verify_commands(block: Block, chip: Chip) -> None:
    """Raise `UserError` for the first kind of fault among a block's commands, naming its first command."""
    columns = CommandColumns(block, chip)
    try:
        _verify_fields(columns)
        for opcode, kind in COMMANDS.items():
            at = np.flatnonzero(columns.op == opcode)
            if len(at):
                kind.verify(columns, at, {name: column[at] for name, column in columns.c.items()})
        _verify_reads(columns)
    except CommandFault as fault:
        command = describe(block.commands[fault.command], block)
        raise UserError(f"command {fault.command} `{command}`: {fault.what}") from None


def describe(command: Any, block: Block) -> str:
    """Return a command as text even where its numbers mean nothing."""
    try:
        return dump_command(command, block)
    except (IndexError, ValueError):
        return " ".join(f"{name}={command[name]}" for name in COMMAND.names or ())


def _verify_fields(columns: CommandColumns) -> None:
    """Hold commands to what their record says of the fields that it has."""
    c, op, pes, refuse = columns.c, columns.op, columns.chip.pes, columns.refuse
    refuse(~_KNOWN[op], None, f"unknown opcode; right: {', '.join(str(int(x)) for x in sorted(COMMANDS))}")
    refuse((c["pe"] < 0) | (c["pe"] >= pes), None, f"no such PE; right: 0 to {pes - 1}")
    refuse(c["cast"] >= np.where(_CASTS[op], len(Cast), 1), None, "no such cast")
    smaller = (c["rows"] < _LEAST[op]) | (c["cols"] < _LEAST[op])
    refuse(smaller, None, "a tile has at least one row and column")
    slots = len(columns.block.slots)
    for name in SLOT_FIELDS:
        named, optional = _NAMED[name][op], _OPTIONAL[op] & (name != "dst")
        extra = ~named & (c[name] != NO_SLOT)
        refuse(extra, None, f"{name} names a slot that the command does not have")
        none = named & ~optional & (c[name] < 0) | (c[name] >= slots)
        refuse(none, None, f"{name} names no slot; right: 0 to {slots - 1}")
    staged, stages, stage = _FILLS[op] | _WAITS[op], columns.block.stages, c["stage"]
    none = (stage >= stages) & staged | (stage < -1) | ~staged & (stage != -1)
    refuse(none, None, f"no such stage slot; right: below {stages}")


def _verify_reads(columns: CommandColumns) -> None:
    """Refuse a slot that is read before it is written, and a stage that no command has filled."""
    adds = _ADDS[columns.op] & (columns.c["flags"] & _OVERWRITES[columns.op] == 0)
    first = _first_writes(columns, ~adds)
    c, op, now, refuse = columns.c, columns.op, np.arange(len(columns.op)), columns.refuse
    for name in SLOT_FIELDS[1:]:
        unwritten = (c[name] >= 0) & (first[c["pe"], np.maximum(c[name], 0)] >= now)
        refuse(unwritten, None, f"{name} was never written")
    slot, peer = np.maximum(c["dst"], 0), _FROM_PEER[op]
    refuse(adds & (first[c["pe"], slot] >= now), None, "the accumulator was never written")
    other = np.where(peer, c["src_pe"], 0)
    refuse(peer & (first[other, slot] >= now), None, "the other accumulator was never written")
    filled = np.full(columns.block.stages + 1, len(op))
    stages = np.flatnonzero(_FILLS[op] & (c["stage"] >= 0))[::-1]
    filled[c["stage"][stages]] = stages
    waits = _WAITS[op] & (c["stage"] >= 0)
    refuse(waits & (filled[c["stage"]] >= now), None, "the stage was never filled")


def _first_writes(columns: CommandColumns, anew: Array) -> Array:
    """Return [PEs, slots]: the first command that writes each slot `anew`, past the last where none does."""
    grid, lanes, c = columns.chip.grid, max(1, len(columns.block.slots)), columns.c
    first = np.full((grid.rows, grid.cols, lanes), len(columns.op))
    writes = np.flatnonzero((c["dst"] >= 0) & anew)[::-1]  # the last to be set is the first to be issued
    for low, high in pairwise([0, *columns.block.bands, grid.rows]):
        inside = (c["pe"][writes] >= low * grid.cols) & (c["pe"][writes] < high * grid.cols)
        _band_writes(c, first[low:high], writes[inside], low)
    return first.reshape(grid.rows * grid.cols, lanes)


def _band_writes(c: dict[str, Array], first: Array, writes: Array, low: int) -> None:
    """Put the earliest of one band's writes, which stand latest first, into first[row, col, slot]."""
    (_, cols, lanes), never = first.shape, len(c["pe"])
    row, col, cast = c["pe"] // cols - low, c["pe"] % cols, c["cast"]
    for kind, places in ((Cast.NONE, (row, col)), (Cast.ROW, (row,)), (Cast.COL, (col,)), (Cast.ALL, ())):
        mine = writes[cast[writes] == kind]
        axes = {Cast.NONE: (0, 1), Cast.ROW: (0,), Cast.COL: (1,), Cast.ALL: ()}[kind]
        small = np.full((*(first.shape[a] for a in axes), lanes), never)
        small[(*(p[mine] for p in places), c["dst"][mine])] = mine
        np.minimum(first, small[:, None, :] if kind is Cast.ROW else small, out=first)
