"""Where a block's time went: how long its busiest resource worked, and why it did not work for the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..machine.chip import Chip
from ..program.events import DTYPE_NAMES
from ..results.report import FILL, LATENCY
from ..results.roofs import Roofs
from ..sums import add_up
from ..types import DType, dtype
from .timing import Timeline
from .totals import Totals


@dataclass(frozen=True)
class CycleSplit:
    """A block's cycles, in four parts that sum to the whole.

    `busy` is how long the busiest resource worked. It idled before the first command that needs it started
    and after the last one ended, together `fill_and_drain`, and `waiting` in between.
    """

    resource: str
    busy: float
    fill_and_drain: float
    waiting: float

    @property
    def bound_by(self) -> str:
        """Return the resource where it was busy half of the time, else the reason why it idled the longer."""
        if self.busy >= self.fill_and_drain + self.waiting:
            return self.resource
        return FILL if self.fill_and_drain > self.waiting else LATENCY

    @property
    def parts(self) -> dict[str, float]:
        """Return the cycles of each part, by the name that a layer is bound by it with."""
        return {self.resource: self.busy, FILL: self.fill_and_drain, LATENCY: self.waiting}


def split(totals: Totals, time: Timeline, cycles: float) -> CycleSplit:
    """Return how the `cycles` of a block, at least those of its timeline, are divided."""
    name = max(time.busy, key=lambda r: time.busy[r])
    busy = min(time.busy[name], cycles)
    users = totals.users(name, time.unit)
    if not users.any():
        return CycleSplit(name, busy, 0.0, cycles - busy)
    idle = float(time.start[users].min()) + cycles - float(time.end[users].max())
    fill_and_drain = min(max(idle, 0.0), cycles - busy)
    return CycleSplit(name, busy, fill_and_drain, cycles - busy - fill_and_drain)


def runner_up(busy: Mapping[str, float], bound_by: str) -> tuple[str, float]:
    """Return the busiest resource but the one that bounds a block, with its cycles; ("", 0) of none.

    Where idling or launching bounds it, that is the busiest of all.
    """
    others = [name for name in busy if name != bound_by]
    name = max(others, key=lambda r: busy[r], default="")
    return name, busy.get(name, 0.0)


def roofs(chip: Chip, kind: DType) -> Roofs:
    """Return the peaks of a chip for arithmetic in `kind`; a multiply-add is two operations."""
    simd = chip.pes * chip.pe.simd.bytes_per_cycle / kind.bytes
    return Roofs(
        kind.name,
        2 * chip.peak_macs_per_cycle(kind) * chip.clock_hz,
        simd * chip.clock_hz,
        chip.dram.bytes_per_s,
        chip.sram_bytes_per_s,
    )


def roof_cycles(totals: Totals, chip: Chip) -> float:
    """Return the cycles below which no schedule can bring the block's work on this chip.

    The most that any one of multiply-adds (each at the peak of its own dtype), DRAM bytes and SRAM bytes
    takes at its peak.
    """
    return least_cycles(totals, (math.inf, math.inf), chip)


def least_cycles(totals: Totals, once_bytes: tuple[float, float], chip: Chip) -> float:
    """Return `roof_cycles` where no more bytes of DRAM, and of SRAM, are moved than so many."""
    each = enumerate(totals.macs)
    compute = add_up(n / chip.peak_macs_per_cycle(dtype(DTYPE_NAMES[i])) for i, n in each if n)
    dram = min(totals.dram_bytes, once_bytes[0])
    dram = dram and dram / chip.dram_bytes_per_cycle  # not asked about where there is nothing for it to do
    sram = min(totals.sram_bytes, once_bytes[1]) / chip.sram_bytes_per_cycle
    return max(float(compute), dram, sram)
