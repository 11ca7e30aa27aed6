"""What each command does, counted: the facts that the timing and the energy readings both start from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..program.commands import LOOKS_UP, POOLS, READS_TILE, STORES, batches, by_table
from ..program.events import Events
from ..program.isa import Block, Operand
from .lookups import Lookups, expected_misses
from .steady import Missed, Misses

Array = np.ndarray[Any, Any]


def events(
    block: Block,
    chip: Chip,
    lookups: Lookups | None = None,
    cache_bytes: int = 0,
    misses: Misses | None = None,
) -> Events:
    """Return what each command of a block does.

    `lookups` are those that the block's launch really had; without them the mean stands, spread evenly over
    the table's rows. `cache_bytes` is the capacity of the cache that rows looked up in DRAM pass. `misses`
    are what it misses in the steady state; without them it starts empty, and serves rows alone.
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
            index = int(commands["operand"][part[0]])
            warm = None if misses is None else misses[index]
            _cache(ev, part, block.operands[index], chip, (mine, cache_bytes, warm))
    if misses is not None:
        _serve_tiles(ev, block, misses)
        _serve_gathers(ev, block, chip, misses)
    return ev


def _cache(
    ev: Events, at: Array, table: Operand, chip: Chip, known: tuple[Array | None, int, Missed | None]
) -> None:
    """Let the cache serve rows of a table in DRAM, for commands at[n]; what it misses it reads and keeps.

    `known` are the lines that an empty cache misses, its capacity, and what one in steady state misses.
    """
    if not table.space.off_chip:
        return
    missed_lines, cache_bytes, warm = known
    row_bytes, rows = table.cols * table.dtype.bytes, ev.rows[at]
    whole = chip.dram.burst(np.full(len(at), float(row_bytes)), rows)
    if missed_lines is not None:
        missed = np.minimum(missed_lines * chip.sram.line_bytes, whole)
        missed = missed if warm is None else missed * warm.first
    elif warm is not None:
        missed = whole * warm.all
    else:
        missed = whole * expected_misses(table.rows, float(rows.sum()), table.extent_bytes <= cache_bytes)
    _fill(ev, at, row_bytes, whole, missed)


def _fill(ev: Events, at: Array, row_bytes: Array | float, whole: Array, missed: Array) -> None:
    """Count what commands at[n] miss, of the `whole` bytes that their rows take in DRAM, and the others."""
    rows = ev.rows[at]
    ev.dram_read_bytes[at] += missed - whole
    ev.sram_write_bytes[at] += missed
    ev.sram_read_bytes[at] += np.maximum(rows * row_bytes - missed, 0)
    ev.missed[at] = np.divide(missed, whole, out=np.ones(len(at)), where=whole > 0)


def _serve_gathers(ev: Events, block: Block, chip: Chip, misses: Misses) -> None:
    """Let the cache serve gathered rows of tables in DRAM: those that runs before have left there."""
    commands = block.commands
    for part in by_table(np.flatnonzero(LOOKS_UP[commands["op"]] & ~POOLS[commands["op"]]), commands):
        index = int(commands["operand"][part[0]])
        if block.operands[index].space.off_chip:
            row_bytes = ev.run_bytes[part]  # of wide rows a part of the columns, the last one narrower
            whole = chip.dram.burst(row_bytes, ev.rows[part])
            _fill(ev, part, row_bytes, whole, whole * misses[index].all)


def _serve_tiles(ev: Events, block: Block, misses: Misses) -> None:
    """Let the cache serve tiles that are read and written, by what is missed of the operand in DRAM."""
    served = [
        x.space.off_chip and min(missed.first, missed.again) < 1.0
        for x, missed in zip(block.operands, misses, strict=True)
    ]
    if not any(served):
        return
    for kinds, memory, near in (
        (READS_TILE, ev.dram_read_bytes, ev.sram_read_bytes),
        (STORES, ev.dram_write_bytes, ev.sram_write_bytes),
    ):
        for at in by_table(np.flatnonzero(kinds[block.commands["op"]]), block.commands):
            index = int(block.commands["operand"][at[0]])
            asked = float(ev.noc_bytes[at].sum())
            if not served[index] or not asked:
                continue
            x, missed = block.operands[index], misses[index]
            once = min(x.distinct_bytes / asked, 1.0)
            share = once * missed.first + (1.0 - once) * missed.again
            near[at] += ev.noc_bytes[at] * (1.0 - share)
            memory[at] *= share
            ev.missed[at] = share
