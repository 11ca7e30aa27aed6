"""What each command does, counted: the facts that the timing and the energy readings both start from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..program.commands import POOLS, batches, by_table
from ..program.events import Events
from ..program.isa import Block, Operand
from .lookups import Lookups, expected_misses

Array = np.ndarray[Any, Any]


def events(block: Block, chip: Chip, lookups: Lookups | None = None, cache_bytes: int = 0) -> Events:
    """Return what each command of a block does.

    `lookups` are those that the block's launch really had; without them the mean stands, spread evenly over
    the table's rows. `cache_bytes` is the capacity of the cache that rows looked up in DRAM pass.
    """
    commands = block.commands
    ev = Events.zeros(len(commands))
    ev.commands[:] = 1
    if lookups is not None:
        commands = commands.copy()
        commands["k"][POOLS[commands["op"]]] = lookups.counts
    for kind, batch in batches(block, chip, commands):
        kind.count(batch, ev)
    if cache_bytes:
        pools = np.flatnonzero(POOLS[commands["op"]])
        missed = None if lookups is None else lookups.missed
        for part in by_table(pools, commands):
            mine = None if missed is None else missed[np.searchsorted(pools, part)]
            _cache(ev, part, block.operands[int(commands["operand"][part[0]])], chip, mine, cache_bytes)
    return ev


def _cache(
    ev: Events, at: Array, table: Operand, chip: Chip, missed_lines: Array | None, cache_bytes: int
) -> None:
    """Let the cache serve part of the rows of a table in DRAM; what it misses it reads and keeps."""
    if not table.space.off_chip:
        return
    row_bytes, rows = table.cols * table.dtype.bytes, ev.rows[at]
    whole = chip.dram.burst(np.full(len(at), float(row_bytes)), rows)
    if missed_lines is not None:
        missed = np.minimum(missed_lines * chip.sram.line_bytes, whole)
    else:
        missed = whole * expected_misses(table.rows, float(rows.sum()), table.extent_bytes <= cache_bytes)
    ev.dram_read_bytes[at] += missed - whole
    ev.sram_write_bytes[at] += missed
    ev.sram_read_bytes[at] += np.maximum(rows * row_bytes - missed, 0)
    ev.missed[at] = np.divide(missed, whole, out=np.ones(len(at)), where=whole > 0)
