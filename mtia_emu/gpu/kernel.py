"""One kernel as it ran: time, bytes, joules; and the board, whose power limit every kernel keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..sums import add_up
from .caching import EMPTY, Keeping
from .facts import Facts

Number = TypeVar("Number", float, np.ndarray)


@dataclass(frozen=True)
class GpuKernel:
    """One kernel in a graph of kernels, back to back.

    Joules are at board level and sum to the board's power times `seconds`: `static` flows whatever happens,
    `active` is what running kernels add, `compute` the operations, `dram` the DRAM bytes with all that
    carries them.
    """

    text: str
    seconds: float
    dram_read_bytes: int
    dram_write_bytes: int
    l2_read_bytes: int
    l2_write_bytes: int
    static: float
    active: float
    compute: float
    dram: float
    bound_by: str

    @property
    def joules(self) -> float:
        """Return the board energy of the kernel."""
        return self.static + self.active + self.compute + self.dram


@dataclass(frozen=True)
class BytesMoved:
    """Bytes that a kernel moves, by memory and direction."""

    dram_read: float
    dram_write: float
    l2_read: float
    l2_write: float

    @property
    def dram(self) -> float:
        """Return the bytes of DRAM in both directions."""
        return self.dram_read + self.dram_write


@dataclass(frozen=True)
class KernelDemand:
    """What a kernel asks for: seconds that nothing hides, seconds of each resource, bytes, and joules.

    `joules` are those of its operations in a short burst.
    """

    text: str
    latency: float
    parts: dict[str, float]
    moved: BytesMoved
    joules: float


@dataclass(frozen=True)
class Board:
    """A GPU while it runs kernels: `steady` after seconds under load, else in a short burst.

    `kept` says how long L2 keeps what a run reads.

    In steady state at its power limit an operation takes `sustained_heat` times the energy, so that the
    limit holds the clock lower; a board that draws less is cooler in proportion.
    """

    facts: Facts
    steady: bool = False
    kept: Keeping = EMPTY

    @property
    def state(self) -> str:
        """Return the thermal state in words."""
        return "steady state" if self.steady else "a short burst"

    def heat(self, seconds: Number, joules: Number) -> Number:
        """Return an operation's energy over that in a short burst, in the shape of `seconds`.

        `joules` are those above idling of a cool board. In steady state the die is as warm as its power
        makes it; else a long kernel takes the board part of the way there.
        """
        facts = self.facts
        warmth = np.minimum(1.0, joules / (seconds * (facts.tdp_w - facts.idle_w)))
        if not self.steady:
            warmth = warmth * -np.expm1(-seconds / facts.heat_s)
        return 1 + (facts.sustained_heat - 1) * warmth

    def finished(self, demand: KernelDemand) -> GpuKernel:
        """Return the kernel whose parts overlap: latency, then the longest part, under the power limit."""
        facts, parts, latency = self.facts, demand.parts, demand.latency
        longest = max(parts, key=lambda name: parts[name])
        free = latency + parts[longest]
        active, dram = float(active_joules(facts, free)), facts.dram_j_per_byte * demand.moved.dram
        heat = float(self.heat(free, active + demand.joules + dram))
        joules = (active, heat * demand.joules, dram)
        seconds = float(throttled(facts, free, add_up(joules)))
        bound = "launch" if latency > parts[longest] else "power" if seconds > 1.01 * free else longest
        return priced(facts, demand.text, seconds, demand.moved, joules, bound)


def active_joules(facts: Facts, seconds: Number) -> Number:
    """Return what running adds to idling in the time of a kernel, its launch included: a launch idles."""
    return (facts.active_w - facts.idle_w) * np.maximum(seconds - facts.launch_graph_s, 0.0)


def throttled(facts: Facts, seconds: Number, dynamic_joules: Number) -> Number:
    """Return the time of a kernel under the board's power limit, in seconds, for arrays of any one shape.

    Power above idle falls with the cube of the clock (voltage follows frequency), so a kernel that would
    draw r times the power that is left takes r^(1/3) times as long: t' = t * (E / (t * (tdp -
    idle)))^(1/3). That law and the linear power of H100 decode (328 W + 67.8 pJ/B + 0.74 pJ/FLOP) give the
    plateau of large H100 GEMMs, about 800 TFLOP/s, without a constant of its own.
    """
    room = facts.tdp_w - facts.idle_w
    return np.maximum(seconds, seconds ** (2 / 3) * (dynamic_joules / room) ** (1 / 3))


def priced(
    facts: Facts,
    text: str,
    seconds: float,
    moved: BytesMoved,
    joules: tuple[float, float, float],
    bound_by: str,
) -> GpuKernel:
    """Return the kernel record; `joules` is active, compute, dram at full clock.

    Where they exceed the power limit over `seconds`, voltage has fallen with the clock and all three shrink
    alike.
    """
    dynamic = add_up(joules)
    room = (facts.tdp_w - facts.idle_w) * seconds
    scale = min(1.0, room / dynamic) if dynamic > 0 else 1.0
    read, write, l2_read, l2_write = (
        round(x) for x in (moved.dram_read, moved.dram_write, moved.l2_read, moved.l2_write)
    )
    active, compute, dram = (x * scale for x in joules)
    return GpuKernel(
        text, seconds, read, write, l2_read, l2_write, facts.idle_w * seconds, active, compute, dram, bound_by
    )
