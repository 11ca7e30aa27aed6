"""When: each command's start and end, by a max-plus recurrence over the commands in the order of issue.

A command starts when its core has issued it, its unit is free, the slots that it reads are written, the slot
that it writes is no longer read, and the shared resources that it needs (network links, SRAM, DRAM) have
served all earlier commands. Arbitration in program order is an approximation; `timeline` is the only door to
it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..machine.chip import Chip
from ..program.census import census
from ..program.commands import COMMANDS, Batch, CommandCost, CommandKind, batches, pieces, queue_numbers
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


def work(block: Block, chip: Chip, counts: Events, asked: Asked | None = None) -> BlockWork:
    """Return the work of a block's commands; how fast DRAM's channels are is not asked.

    `asked` gives the chip that a source is asked of, by its name: one that notes what is read of it, say.
    """
    commands = _work(block, asked or (lambda _: chip), counts)
    return BlockWork(commands, occupied(block, chip, commands))


def occupied(block: Block, chip: Chip, commands: Array) -> dict[str, float]:
    """Return how busy a block's commands keep each resource but DRAM."""
    return occupancy(commands, block.band_rows(chip.grid.rows)[:, 0], chip.grid.cols)


def timed(
    block: Block, chip: Chip, counts: Events, known: BlockWork | None = None, *, ordered: bool = False
) -> Timeline:
    """Return the `timeline` of a block that is known to fit: how much the chip holds is not asked.

    `known` is the block's `work`, where it has been found already.
    """
    return arranged(block, chip, known or work(block, chip, counts), on_dram(chip, counts), ordered=ordered)


def arranged(
    block: Block, chip: Chip, known: BlockWork, on_channels: Array, *, ordered: bool = False
) -> Timeline:
    """Return the `timeline` of a block's work, given the cycles of DRAM that each command takes, [command].

    No rate of the chip is asked but how many loads may be on their way, and how many banks are read at once.
    """
    costs = known.commands
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
    if census(block).pes > chip.pes:
        raise UserError(
            f"{block.kernel}: uses PE {census(block).pes - 1}, {chip.name} has {chip.pes}; "
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


class _Piece(NamedTuple):
    """Some of a block's commands, with their events, the bands of its rows, and `recurrence`'s traits."""

    c: Array
    ev: Events
    bands: Array
    traits: Array


def _on_sram(chip: Chip, x: _Piece) -> Array:
    return chip.sram_cycles(x.ev.sram_read_bytes + x.ev.sram_write_bytes)


def _on_local(chip: Chip, x: _Piece) -> Array:
    """Return the cycles of local memory's port of each receiver."""
    local, _ = chip.pe.local.cost(x.ev.local_read_bytes + x.ev.local_write_bytes)
    return np.asarray(local / reached(x.c, x.bands, chip))


def _issue(chip: Chip, x: _Piece) -> Array:
    return chip.pe.core.issue(x.ev.commands) * (x.traits & CHIP_WIDE == 0)


OF_KIND = ("busy", "latency", "on_link")  # fields of `COMMAND` that a kind of command gives
OF_ANY: dict[str, Callable[[Chip, _Piece], Array]] = {  # and those that one rule gives for all kinds
    "on_sram": _on_sram,
    "local": _on_local,
    "issue": _issue,
}
SOURCES = (*(kind.opcode.name for kind in COMMANDS.values()), *OF_ANY)  # of what commands take, by name
Asked = Callable[[str], Chip]  # the chip that a source is asked of


class Taken(NamedTuple):
    """What commands of a block take: a field of `COMMAND`, and its values for those `at` of a piece."""

    piece: slice
    at: Array | slice
    field: str
    values: Array | float


def columns(
    block: Block, chip: Chip, counts: Events, commands: Array, sources: Collection[str]
) -> Iterator[Taken]:
    """Yield what some sources say of a block's commands on a chip, commands[n] as `work` has them."""
    bands = block.band_rows(chip.grid.rows)
    for piece in pieces(block.commands):
        x = _Piece(block.commands[piece], counts.of(piece), bands, commands["traits"][piece])
        for _, batch, cost in _of_kinds(block, lambda _: chip, x.c, x.ev, sources):
            for field in OF_KIND:
                yield Taken(piece, batch.at, field, getattr(cost, field))
        for field, rule in OF_ANY.items():
            if field in sources:
                yield Taken(piece, slice(None), field, rule(chip, x))


def _work(block: Block, asked: Asked, ev: Events) -> Array:
    """Return a block's commands as the recurrence takes them: `recurrence.COMMAND`, [n]."""
    out = np.empty(len(block.commands), COMMAND)
    for piece in pieces(block.commands):
        out[piece] = _piece(block, asked, block.commands[piece], ev.of(piece))
    return out


def _piece(block: Block, asked: Asked, c: Array, ev: Events) -> Array:
    """Return some of a block's commands, c[n] with their events, as the recurrence takes them."""
    grid = asked("grid").grid
    busy, latency, on_link = np.zeros((3, len(c)))
    queue, link = np.zeros(len(c), np.int8), np.full(len(c), -1)
    for kind, batch, cost in _of_kinds(block, asked, c, ev):
        at = batch.at
        busy[at], latency[at], on_link[at] = cost.busy, cost.latency, cost.on_link
        link[at] = -1 if cost.link is None else LINKS + cost.link
        queue[at] = queue_numbers(kind, batch)
    x = _Piece(c, ev, block.band_rows(grid.rows), QUEUE_TRAITS[queue] | KIND_TRAITS[c["op"]])
    on_sram, local, issue = (rule(asked(field), x) for field, rule in OF_ANY.items())
    each = (busy, latency, on_sram, on_link, local, issue)
    return packed(c, x.bands, grid.cols, (queue, x.traits, link), each)


def _of_kinds(
    block: Block, asked: Asked, c: Array, ev: Events, kinds: Collection[str] = SOURCES
) -> Iterator[tuple[CommandKind, Batch, CommandCost]]:
    """Yield the commands c[n] by kind, each with what it takes by the chip that its kind is asked of."""
    for kind, batch in batches(block, asked("grid"), c):
        if kind.opcode.name in kinds:
            there = replace(batch, chip=asked(kind.opcode.name))
            yield kind, there, kind.cost(there, ev)
