"""The command set, one table: what each command is, takes, counts, costs, computes and prints.

A file a unit; each kind of command is one record there (`base.CommandKind`), and stands in `COMMANDS` here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ...machine.chip import Chip
from ..isa import Block, Opcode
from .base import MEMBERS, Array, Batch, CommandCost, CommandKind, MemoryDoors, Queue
from .core import RunOnCore
from .dma import LoadTile, StageTile, StoreTile
from .lookups import GatherRows, PoolBags
from .matrix import MultiplyTiles
from .network import AddAccumulator
from .runs import FetchRows, PutRows, SortRuns, SumRuns
from .scatter import GroupIndices, ScatterRows
from .simd import ApplyFunction, FindFirst, FoldRows, PickElements

__all__ = (
    "COMMANDS",
    "MEMBERS",
    "QUEUES",
    "RESOURCES",
    "UNITS",
    "Batch",
    "CommandCost",
    "CommandKind",
    "MemoryDoors",
    "Queue",
    "batches",
    "queue_numbers",
    "table",
    "table_of",
)


def table(kinds: Iterable[CommandKind]) -> dict[Opcode, CommandKind]:
    """Return kinds by their opcode; raise `TypeError` for an opcode that has none, or several."""
    out: dict[Opcode, CommandKind] = {}
    for kind in kinds:
        if out.setdefault(kind.opcode, kind) is not kind:
            names = f"{type(out[kind.opcode]).__name__} and {type(kind).__name__}"
            raise TypeError(f"command {kind.opcode.name} is declared twice: {names}")
    for opcode in Opcode:
        if opcode not in out:
            raise TypeError(f"command {opcode.name} is not declared: {', '.join(MEMBERS)} are missing")
    return out


COMMANDS = table(  # of two resources that are equally busy, the one whose command stands first here is named
    (
        MultiplyTiles(),
        AddAccumulator(),
        ApplyFunction(),
        FoldRows(),
        FindFirst(),
        PickElements(),
        LoadTile(),
        StoreTile(),
        GatherRows(),
        PoolBags(),
        ScatterRows(),
        GroupIndices(),
        SortRuns(),
        SumRuns(),
        FetchRows(),
        PutRows(),
        RunOnCore(),
        StageTile(),
    )
)


def _queues() -> tuple[Queue, ...]:
    """Return the queues that commands take: of PEs before the chip's, and of those what moves data first."""
    usual = [kind.queue for kind in COMMANDS.values()]
    flagged = [kind.flagged[1] for kind in COMMANDS.values() if kind.flagged]
    return tuple(sorted(dict.fromkeys(usual + flagged), key=lambda q: (q.chip_wide, not q.moves)))


QUEUES = _queues()
UNITS = tuple(queue.name for queue in QUEUES)
# what a layer can be bound by through a queue, with its meaning
RESOURCES = {k.queue.resource: k.queue.meaning for k in COMMANDS.values() if k.queue.resource}


def table_of(member: Callable[[CommandKind], Any]) -> Array:
    """Return a member of every kind as an array [256] by opcode; other numbers have 0."""
    some = {opcode: member(kind) for opcode, kind in COMMANDS.items()}
    out = np.zeros(np.iinfo(np.uint8).max + 1, np.result_type(*some.values()))
    out[list(some)] = list(some.values())
    return out


PIECE = 1 << 15  # commands that are looked at at a time
POOLS = table_of(lambda kind: kind.pools)
LOOKS_UP = table_of(lambda kind: kind.looks_up)
BY_TABLE = table_of(lambda kind: kind.looks_up or kind.apart)  # whose batches are of one operand
READS_TILE = table_of(lambda kind: kind.loads_tile or kind.fills_stage)
STORES = table_of(lambda kind: kind.stores)
STAGES = table_of(lambda kind: kind.fills_stage)


def queue_numbers(kind: CommandKind, batch: Batch) -> Array | int:
    """Return the queue that commands of a kind take, by its number in `QUEUES`."""
    usual = QUEUES.index(kind.queue)
    if kind.flagged is None:
        return usual
    flag, queue = kind.flagged
    return np.where(batch.commands["flags"][batch.at] & flag > 0, QUEUES.index(queue), usual)


def batches(block: Block, chip: Chip, commands: Array | None = None) -> Iterator[tuple[CommandKind, Batch]]:
    """Yield the commands of a block by kind and piece of the block; those that look rows up table by table.

    `commands` stand for the block's own, one for one.
    """
    commands = block.commands if commands is None else commands
    bands = block.band_rows(chip.grid.rows)
    for piece in pieces(commands):
        ops = commands["op"][piece].copy()  # side by side, for it is gone through once for each
        for op in np.flatnonzero(np.bincount(ops)).tolist():
            if not BY_TABLE[op]:
                at = piece.start + np.flatnonzero(ops == op)
                yield COMMANDS[Opcode(op)], Batch(at, commands, block, chip, bands)
    looking = np.flatnonzero(BY_TABLE[commands["op"]])
    for op in np.unique(commands["op"][looking]).tolist():
        for part in by_table(looking[commands["op"][looking] == op], commands):
            yield COMMANDS[Opcode(op)], Batch(part, commands, block, chip, bands)


def pieces(commands: Array) -> Iterator[slice]:
    """Yield a block's commands in pieces: what is worked out on the way to a count stays near the core."""
    for first in range(0, len(commands), PIECE):
        yield slice(first, min(first + PIECE, len(commands)))


def by_table(at: Array, commands: Array) -> list[Array]:
    """Return commands at[n] that look rows up, by number, apart by the table that they look up."""
    tables = commands["operand"][at]
    order = np.argsort(tables, kind="stable")
    edges = np.flatnonzero(np.diff(tables[order])) + 1
    return np.split(at[order], edges) if len(at) else []
