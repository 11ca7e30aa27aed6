"""When: each command's start and end, by a max-plus recurrence over the commands in the order of issue.

A command starts when its core has issued it, its unit is free, the slots that it reads are written, the slot
that it writes is no longer read, and the shared resources that it needs (network links, SRAM, DRAM) have
served all earlier commands. Arbitration in program order is an approximation; `timeline` is the only door to
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from ..machine.chip import Chip
from ..program.commands import batches, pieces, queue_numbers
from ..program.events import Events
from ..program.geometry import links, reached
from ..program.isa import Block
from .events import events
from .lookups import Lookups
from .occupancy import occupancy
from .ordered import in_order_of_time
from .recurrence import (
    CHIP_WIDE,
    COMMAND,
    KIND_TRAITS,
    LINKS,
    QUEUE_TRAITS,
    Sharers,
    fresh,
    packed,
    recur,
)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Timeline:
    """When each command of a block runs, in cycles from the block's start, and how busy each resource was.

    `busy` gives, for each resource among `bounds.BOUNDS`, the cycles of its busiest instance.
    """

    start: Array
    end: Array
    unit: Array
    cycles: float
    busy: dict[str, float]


def timeline(
    block: Block,
    chip: Chip,
    lookups: Lookups | None = None,
    cache_bytes: int = 0,
    *,
    counts: Events | None = None,
    ordered: bool = False,
) -> Timeline:
    """Return when each command of the block runs on the chip; `lookups` and `cache_bytes` as in `events`.

    `counts` are the block's events, where they have been counted already. With `ordered`, shared resources
    serve strictly in the order of time, by a slow event queue (`ordered.py`) that the fast form is held to.

    Raises `UserError` when the block needs more of the chip than it has.
    """
    check_fits(block, chip)
    return timed(block, chip, counts or events(block, chip, lookups, cache_bytes), ordered=ordered)


@dataclass(frozen=True)
class BlockWork:
    """What each command takes, all but of DRAM's channels (`recurrence.COMMAND`), and who is how busy."""

    commands: Array
    busy: dict[str, float]


def work(block: Block, chip: Chip, counts: Events) -> BlockWork:
    """Return the work of a block's commands; how fast DRAM's channels are is not asked."""
    commands = _work(block, chip, counts)
    low = block.band_rows(chip.grid.rows)[:, 0]
    return BlockWork(commands, occupancy(commands, low, chip.grid.cols))


def timed(
    block: Block, chip: Chip, counts: Events, known: BlockWork | None = None, *, ordered: bool = False
) -> Timeline:
    """Return the `timeline` of a block that is known to fit: how much the chip holds is not asked.

    `known` is the block's `work`, where it has been found already.
    """
    known = known or work(block, chip, counts)
    costs, on_channels = known.commands, on_dram(chip, counts)
    busy = known.busy | {"dram": float(on_channels.sum())}
    start, end = np.zeros(len(costs)), np.zeros(len(costs))
    accumulator = np.array([s.accumulator for s in block.slots] + [False])
    flights = chip.pe.dma.outstanding_transfers
    grid = Sharers(LINKS + links(chip), 1.0 / chip.pe.reduce.banks, accumulator)
    if ordered:
        start, end = in_order_of_time(costs, on_channels, grid, flights)
    else:
        state = fresh(chip.pes, len(accumulator), block.stages + 1, flights)
        recur((costs, on_channels), state, grid, (start, end), max(busy.values()))
    cycles = float(end.max()) if len(end) else 0.0
    return Timeline(start, end, costs["unit"].copy(), cycles, busy)


def check_fits(block: Block, chip: Chip) -> None:
    """Raise `UserError` when a block needs more local memory, accumulators, SRAM or PEs than the chip has."""
    needs = [
        ("local memory", block.local_bytes, chip.pe.local.bytes),
        ("accumulators", block.accumulator_bytes, chip.pe.reduce.bytes),
        ("SRAM scratch", block.scratch_bytes, chip.sram.bytes),
    ]
    for what, need, have in needs:
        if need > have:
            raise UserError(
                f"{block.kernel}: needs {need} bytes of {what}, {chip.name} has {have} "
                f"(short by {need - have}); compile for this chip"
            )
    if len(block.commands) and int(block.commands["pe"].max()) >= chip.pes:
        raise UserError(
            f"{block.kernel}: uses PE {int(block.commands['pe'].max())}, {chip.name} has {chip.pes}; "
            "compile for this chip"
        )


def on_dram(chip: Chip, ev: Events) -> Array:
    """Return the cycles for which DRAM's channels are each command's, [command].

    DRAM is asked about only where there is something for it to do, so that a block that leaves it alone is
    seen to take the same time beside any.
    """
    moved = ev.dram_read_bytes + ev.dram_write_bytes
    at = np.flatnonzero(moved)
    cycles = np.zeros(len(moved))
    if len(at):
        written = float(ev.dram_write_bytes.sum()) / max(float(moved.sum()), 1.0)
        cycles[at] = chip.dram_cycles(moved[at], ev.run_bytes[at], written)
    return cycles


def _work(block: Block, chip: Chip, ev: Events) -> Array:
    """Return a block's commands as the recurrence takes them: `recurrence.COMMAND`, [n]."""
    out = np.empty(len(block.commands), COMMAND)
    for piece in pieces(block.commands):
        out[piece] = _piece(block, chip, block.commands[piece], ev.of(piece))
    return out


def _piece(block: Block, chip: Chip, c: Array, ev: Events) -> Array:
    """Return some of a block's commands, c[n] with their events, as the recurrence takes them."""
    bands = block.band_rows(chip.grid.rows)
    busy, latency, on_link = np.zeros((3, len(c)))
    queue, link = np.zeros(len(c), np.int8), np.full(len(c), -1)
    for kind, batch in batches(block, chip, c):
        cost, at = kind.cost(batch, ev), batch.at
        busy[at], latency[at], on_link[at] = cost.busy, cost.latency, cost.on_link
        link[at] = -1 if cost.link is None else LINKS + cost.link
        queue[at] = queue_numbers(kind, batch)
    on_sram = chip.sram_cycles(ev.sram_read_bytes + ev.sram_write_bytes)
    local, _ = chip.pe.local.cost(ev.local_read_bytes + ev.local_write_bytes)
    local /= reached(c, bands, chip)  # of each receiver
    traits = QUEUE_TRAITS[queue] | KIND_TRAITS[c["op"]]
    issue = chip.pe.core.issue(ev.commands) * (traits & CHIP_WIDE == 0)
    each = (busy, latency, on_sram, on_link, local, issue)
    return packed(c, bands, chip.grid.cols, (queue, traits, link), each)
