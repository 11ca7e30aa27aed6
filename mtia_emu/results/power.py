"""The clock, the supply and the power of a chip that ran: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PowerState:
    """The clock that was asked for and the one that the limit of power allows, with what follows from it.

    `idle_w` is drawn between runs at the sustained clock, `sleep_w` with the clock stopped; `leakage_w` and
    `clock_w` are parts of `idle_w`, by component of the die. All stand for one chip with its DRAM.
    """

    asked_hz: float
    sustained_hz: float
    supply_v: float
    memory_supply_v: float
    limit_w: float
    idle_w: float
    sleep_w: float
    leakage_w: Mapping[str, float]
    clock_w: Mapping[str, float]

    @property
    def slowed(self) -> bool:
        """Return whether the limit of power keeps the clock below the one asked for."""
        return self.sustained_hz < self.asked_hz
