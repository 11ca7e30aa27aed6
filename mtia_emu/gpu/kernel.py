"""One kernel as it ran: its time, its bytes, its joules; and the power limit that every kernel keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..sums import add_up
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


def throttled(facts: Facts, seconds: Number, dynamic_joules: Number) -> Number:
    """Return the time of a kernel under the board's power limit.

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
    traffic: tuple[float, float, float, float],
    joules: tuple[float, float, float],
    bound_by: str,
) -> GpuKernel:
    """Return the kernel record.

    `traffic` is DRAM read, DRAM write, L2 read, L2 write; `joules` is active, compute, dram at full clock.
    Where they exceed the power limit over `seconds`, voltage has fallen with the clock and all three shrink
    alike.
    """
    dynamic = add_up(joules)
    room = (facts.tdp_w - facts.idle_w) * seconds
    scale = min(1.0, room / dynamic) if dynamic > 0 else 1.0
    read, write, l2_read, l2_write = (round(x) for x in traffic)
    active, compute, dram = (x * scale for x in joules)
    return GpuKernel(
        text, seconds, read, write, l2_read, l2_write, facts.idle_w * seconds, active, compute, dram, bound_by
    )
