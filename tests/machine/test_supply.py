"""What prices are multiplied by: 1 where they hold, more at a higher clock and in a larger memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.machine.chip import Chip, chip_names, load_chip
from mtia_emu.machine.supply import local_scale, logic_scale, memory_supply_v, sram_scale, supply_v
from mtia_emu.machine.units.energy import access_scale

SCALES = (logic_scale, local_scale, sram_scale)


@pytest.mark.parametrize("name", chip_names())
def test_a_shipped_chip_runs_where_its_numbers_hold(name: str) -> None:
    chip = load_chip(name)
    assert (supply_v(chip), memory_supply_v(chip)) == (chip.energy.voltage_v, chip.energy.memory_voltage_v)
    squared = (chip.energy.voltage_v / chip.energy.price_voltage_v) ** 2
    assert logic_scale(chip) == squared
    shared = access_scale(chip.sram.bytes, chip.energy.sram_price_bytes)  # 1 or another chip's
    local = access_scale(chip.pe.local.bytes, chip.energy.local_price_bytes)
    assert sram_scale(chip) == squared * shared
    assert local_scale(chip) == (chip.energy.memory_voltage_v / chip.energy.price_voltage_v) ** 2 * local


@given(st.sampled_from(SCALES), st.floats(0.3, 3), st.floats(0.3, 3))
def test_no_event_costs_less_at_a_higher_clock(
    scale: Callable[[Chip], float], one: float, other: float
) -> None:
    chip = load_chip("mtia-1")
    slow, fast = (scale(chip.at_clock(f * chip.clock_hz)) for f in sorted((one, other)))
    assert slow <= fast


def test_a_larger_memory_costs_more_and_only_itself() -> None:
    chip, local, sram = (
        load_chip("mtia-2i", settings)
        for settings in ({}, {"pe.local.bytes": 1 << 26}, {"sram.bytes": 1 << 30})
    )
    assert local_scale(local) / local_scale(chip) == pytest.approx(access_scale(1 << 26, 384 << 10))
    assert sram_scale(sram) / sram_scale(chip) == pytest.approx(access_scale(1 << 30, 1 << 28))
    assert sram_scale(local) == sram_scale(chip) and local_scale(sram) == local_scale(chip)
    assert logic_scale(local) == logic_scale(sram) == logic_scale(chip)


def test_shared_sram_runs_on_the_clock() -> None:
    chip = load_chip("mtia-2i", {"clock_hz": 2.7e9})
    assert chip.sram_bytes_per_cycle == load_chip("mtia-2i").sram_bytes_per_cycle == 2000
    assert chip.sram_bytes_per_s == pytest.approx(5.4e12)
    assert float(chip.read_latency(0.0)) == float(load_chip("mtia-2i").read_latency(0.0)) == pytest.approx(81)
    assert float(chip.read_latency(1.0)) == pytest.approx(405)  # DRAM does not: 150 ns of 2.7 GHz
