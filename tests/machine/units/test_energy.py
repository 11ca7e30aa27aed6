"""The prices of a chip: how they go with voltage, temperature, area and clock."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.machine.units.energy import LEAKAGE_AT_C, LEAKAGE_DOUBLING_C, Energy, access_scale

VOLTS = st.floats(0.3, 1.5)
AREAS = st.floats(1, 1000)
SIZES = st.integers(1, 1 << 40)
BASE = load_chip("mtia-1").energy


def changed(**values: object) -> Energy:
    """Return MTIA 1's prices with some changed."""
    return BASE.model_copy(update=values)


def test_prices_hold_at_their_own_voltage() -> None:
    assert changed(price_voltage_v=0.8).switching(0.8) == 1.0


@given(VOLTS, VOLTS)
def test_switching_goes_with_the_square_of_the_supply(one: float, factor: float) -> None:
    assert math.isclose(BASE.switching(one * factor), BASE.switching(one) * factor**2)
    assert math.isclose(BASE.clock_w_of(100, one * factor, 1e9), BASE.clock_w_of(100, one, 1e9) * factor**2)


def test_the_clock_is_capacitance_times_voltage_squared_times_frequency() -> None:
    e = changed(clock_pf_per_mm2=40.0)
    assert e.clock_w_of(100, 0.5, 1e9) == pytest.approx(40e-12 * 100 * 0.25 * 1e9)  # one watt


@given(AREAS, st.floats(-40, 120))
def test_leakage_goes_with_area_and_doubles_with_temperature(area: float, celsius: float) -> None:
    cold, hot = changed(temperature_c=celsius), changed(temperature_c=celsius + LEAKAGE_DOUBLING_C)
    assert math.isclose(hot.leakage_w_of(area, 0.7), 2 * cold.leakage_w_of(area, 0.7))
    assert math.isclose(cold.leakage_w_of(2 * area, 0.7), 2 * cold.leakage_w_of(area, 0.7))


def test_leakage_holds_at_its_own_temperature_and_voltage() -> None:
    e = changed(temperature_c=LEAKAGE_AT_C, price_voltage_v=0.75, leakage_w_per_mm2=0.02)
    assert e.leakage_w_of(50, 0.75) == pytest.approx(1.0)


@given(SIZES, SIZES, SIZES)
def test_a_larger_memory_is_never_cheaper_an_access(one: int, other: int, price: int) -> None:
    small, large = sorted((one, other))
    assert access_scale(small, price) <= access_scale(large, price)
    assert access_scale(price, price) == 1.0


@pytest.mark.parametrize(
    ("kib", "pj", "within"),
    [
        (8, 7.5, 0.01),
        (32, 8.5, 0.06),
        (1024, 14.0, 0.01),
    ],  # the two that the law is made from, and one between
)
def test_an_access_costs_what_the_table_for_7_nm_says(kib: int, pj: float, within: float) -> None:
    assert 7.5 * access_scale(kib << 10, 8 << 10) == pytest.approx(pj, rel=within)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("voltage_v", 0),
        ("temperature_c", 500),
        ("link_w", -1),
        ("clock_pf_per_mm2", float("nan")),
        ("clock", 1),
    ],
)
def test_what_cannot_be_is_refused(key: str, value: float) -> None:
    with pytest.raises(ValidationError):
        Energy(**BASE.model_dump() | {key: value})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"energy.zero_mac_pj.int8": 1.0}, r"energy.zero_mac_pj.int8 is 1.0; right: from 0 to 0.1"),
        ({"energy.zero_mac_pj.int8": -1.0}, r"energy.zero_mac_pj.int8 is -1.0; right: from 0 to 0.1"),
        ({"energy.mac_pj.fp8_e4m3": 0.1}, r"energy.zero_mac_pj.fp8_e4m3 is missing; right: from 0 to 0.1"),
        ({"energy.zero_mac_pj.fp8_e4m3": 0.1}, r"energy.zero_mac_pj has fp8_e4m3, energy.mac_pj has not"),
        ({"energy.mac_pj.int8": 1e7}, r"energy.mac_pj.int8 is 10000000.0; a price is between 0 and 1e6 pJ"),
    ],
)
def test_prices_of_zeros_are_prices(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_chip("tiny", settings)
