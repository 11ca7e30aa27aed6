"""What a block costs on a chip; of layers side by side also what each of them takes, moves and costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..program.events import COUNTERS, Events
from ..program.isa import Block
from ..results.report import HitBytes, Joules, Traffic
from ..sums import add_up
from .bounds import CycleSplit, roof_cycles, split
from .energy import dynamic, traffic
from .occupancy import occupancy
from .recurrence import LINKS
from .timing import Timeline, on_dram, timed, work
from .totals import Totals

Array = np.ndarray[Any, Any]
NOTHING = HitBytes()


@dataclass(frozen=True)
class BlockCost:
    """One block on one chip: its times, what it moves, what its events cost where prices hold (`dynamic`).

    `ops` are as in `Layer`; `roof_cycles` is the least time that the work could take on the chip. `members`
    are the costs of layers side by side, a band each: their bytes, multiply-adds and operations sum to the
    block's; their cycles are from the block's start to their own end.
    """

    time: Timeline
    cycles: int
    traffic: Traffic
    joules: Joules
    macs: int
    ops: int
    split: CycleSplit
    roof_cycles: float
    members: tuple[BlockCost, ...] = ()
    served: HitBytes = NOTHING

    def untimed(self) -> BlockCost:
        """Return the cost without the times of each command."""
        none = np.zeros(0)
        time = replace(self.time, start=none, end=none, unit=none)
        return replace(self, time=time, members=tuple(x.untimed() for x in self.members))


def cost(block: Block, chip: Chip, ev: Events, time: Timeline | None = None) -> BlockCost:
    """Return the cost of one block that fits the chip, its events counted; it may have been timed."""
    return cost_of(block, chip, Totals(ev), time or timed(block, chip, ev))


def cost_of(block: Block, chip: Chip, totals: Totals, time: Timeline) -> BlockCost:
    """Return the cost of one block whose events are summed and whose commands are timed."""
    whole = replace(_cost(chip, totals, time), served=totals.served(block))
    if not block.bands:
        return whole
    members = [_cost(chip, *one) for one in _members(block, chip, totals.events, time)]
    return replace(whole, members=tuple(_summing(whole, members)))


def _cost(chip: Chip, totals: Totals, time: Timeline) -> BlockCost:
    cycles = math.ceil(time.cycles)
    return BlockCost(
        time,
        cycles,
        traffic(totals),
        dynamic(totals, chip),
        int(totals.of("macs")),
        _operations(totals),
        split(totals, time, cycles),
        roof_cycles(totals, chip),
    )


def _operations(totals: Totals) -> int:
    """Return the arithmetic operations of a block's events."""
    whole = (c.operations * int(totals.of(name)) for name, c in COUNTERS.items() if c.by)
    plain = {name: c.operations for name, c in COUNTERS.items() if c.operations and not c.by}
    rest = (each * totals.of(name) for name, each in plain.items())
    return sum(whole) + int(add_up(rest))


def _members(block: Block, chip: Chip, ev: Events, time: Timeline) -> Iterator[tuple[Totals, Timeline]]:
    """Yield the events of each band's commands, and when they run."""
    band = np.searchsorted(block.bands, block.commands["pe"] // chip.grid.cols, side="right")
    commands, dram = work(block, chip, ev).commands, on_dram(chip, ev)
    low = block.band_rows(chip.grid.rows)[:, 0]
    for index in range(len(block.bands) + 1):
        mine = band == index
        end = time.end[mine]
        until = float(end.max()) if len(end) else 0.0
        during = np.where(mine, 1.0, _share_before(time, until))
        busy = occupancy(_seen(commands, mine, during, chip), low, chip.grid.cols)
        busy["dram"] = float((dram * during).sum())
        yield Totals(ev.of(mine)), Timeline(time.start[mine], end, time.unit[mine], until, busy)


def _share_before(time: Timeline, until: float) -> Array:
    """Return the share of each command's time, [command], that lies before a moment."""
    span = time.end - time.start
    before = np.clip(until - time.start, 0.0, span)
    return np.divide(before, span, out=(time.start < until).astype(float), where=span > 0)


def _seen(commands: Array, mine: Array, during: Array, chip: Chip) -> Array:
    """Return the work that one of several layers sees: its own, and while it runs what others have of theirs.

    They share the SRAM and the links into columns; units of PEs and links of rows are a layer's own.
    """
    out = commands.copy()
    first = LINKS + chip.grid.rows
    column = (out["link"] >= first) & (out["link"] < first + chip.grid.cols)
    for name in ("busy", "local", "issue"):
        out[name] *= mine
    out["on_sram"] *= during
    out["on_link"] *= np.where(column, during, mine)
    return out


def _summing(whole: BlockCost, members: Sequence[BlockCost]) -> Iterator[BlockCost]:
    """Yield members whose bytes and operations sum to the block's: the last has what rounding left."""
    moved = zip(*(astuple(x.traffic) for x in members), strict=True)
    columns = [
        (*each[:-1], all_ - add_up(each[:-1]))
        for each, all_ in zip(moved, astuple(whole.traffic), strict=True)
    ]
    ops = [x.ops for x in members[:-1]]
    for x, bytes_, count in zip(
        members, zip(*columns, strict=True), [*ops, whole.ops - add_up(ops)], strict=True
    ):
        yield replace(x, traffic=Traffic(*bytes_), ops=count)
