"""What a chip's clock and sizes make of its prices: the supplies at its clock, and what prices are times."""

from __future__ import annotations

from .chip import Chip
from .units.energy import access_scale


def supply_v(chip: Chip) -> float:
    """Return the supply of logic, wires and clock tree at the chip's clock."""
    return chip.power.supply_v(chip.energy.voltage_v, chip.clock_hz)


def memory_supply_v(chip: Chip) -> float:
    """Return the supply of local memory's arrays at the chip's clock."""
    return chip.power.supply_v(chip.energy.memory_voltage_v, chip.clock_hz)


def logic_scale(chip: Chip) -> float:
    """Return what prices of logic and wires are multiplied by at the chip's clock."""
    return chip.energy.switching(supply_v(chip))


def local_scale(chip: Chip) -> float:
    """Return what prices of local memory are multiplied by at the chip's clock and for its capacity."""
    size = access_scale(chip.pe.local.bytes, chip.energy.local_price_bytes)
    return chip.energy.switching(memory_supply_v(chip)) * size


def sram_scale(chip: Chip) -> float:
    """Return what prices of shared SRAM are multiplied by at the chip's clock and for its capacity."""
    return logic_scale(chip) * access_scale(chip.sram.bytes, chip.energy.sram_price_bytes)
