"""What a report asks of a block's commands besides their events: counted once, and small enough to keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .commands import LOOKS_UP, POOLS, READS_TILE, STORES
from .isa import Block


@dataclass(frozen=True)
class Census:
    """How many commands a block has, and what they ask for.

    `pes` is one more than the highest number of a PE that has one. `moved_bytes` are those that tiles move of
    each operand. `looked_up` are operands that are tables, each with the rows that commands read of it, and
    `pools` says whether only data tell how many those are.
    """

    commands: int
    pes: int
    moved_bytes: tuple[float, ...]
    looked_up: tuple[tuple[int, float], ...]
    pools: bool


def census(block: Block) -> Census:
    """Return the census of a block's commands, counted at the first call."""
    known = vars(block)
    if "census" not in known:
        known["census"] = _counted(block)
    found: Census = known["census"]
    return found


def looks_up(block: Block) -> bool:
    """Return whether a block pools rows whose number only data tell: embedding bags."""
    return census(block).pools


def _counted(block: Block) -> Census:
    commands = block.commands
    return Census(
        len(commands),
        int(commands["pe"].max()) + 1 if len(commands) else 0,
        _moved_bytes(block),
        _looked_up(block),
        bool(POOLS[commands["op"]].any()),
    )


def _moved_bytes(block: Block) -> tuple[float, ...]:
    """Return the bytes that commands move of each of a block's operands."""
    if not block.operands:
        return ()
    ops, sizes = block.commands["op"], np.array([x.dtype.bytes for x in block.operands])
    c = block.commands[(READS_TILE[ops] | STORES[ops]) > 0]
    elements = np.bincount(c["operand"], c["rows"].astype(float) * c["cols"], minlength=len(sizes))
    return tuple((elements * sizes).tolist())


def _looked_up(block: Block) -> tuple[tuple[int, float], ...]:
    """Return how many rows a block looks up in each table, by operand, as its commands say."""
    c = block.commands[LOOKS_UP[block.commands["op"]]]
    if not len(c):
        return ()
    width = np.array([max(x.cols, 1) for x in block.operands])[c["operand"]]
    rows = np.where(POOLS[c["op"]], c["k"], c["rows"] * c["cols"] / width)  # wide rows come in parts
    sums = np.bincount(c["operand"], rows, minlength=len(block.operands))
    return tuple((int(i), float(sums[i])) for i in np.unique(c["operand"]))
