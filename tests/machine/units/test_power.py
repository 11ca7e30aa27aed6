"""The supply that a clock needs: it holds at its own clock, never falls as clocks rise, ends at its least."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.machine.units.power import speed

BASE = load_chip("mtia-2i").power
CLOCKS = st.floats(1e6, 1e11)
VOLTS = st.floats(0.4, 1.5)


@given(VOLTS)
def test_at_the_nominal_clock_a_supply_is_its_own(volts: float) -> None:
    assert BASE.supply_v(volts, BASE.nominal_hz) == volts


@given(VOLTS, CLOCKS, CLOCKS)
def test_a_faster_clock_never_needs_less(volts: float, one: float, other: float) -> None:
    slow, fast = sorted((one, other))
    assert BASE.supply_v(volts, slow) <= BASE.supply_v(volts, fast)


@given(st.floats(0.7, 1.2), st.floats(0.5, 2))
def test_logic_is_as_much_faster_as_the_clock(volts: float, factor: float) -> None:
    found = BASE.supply_v(volts, factor * BASE.nominal_hz)
    assume(found > BASE.least_v)
    gain = speed(found, BASE.threshold_v, BASE.alpha) / speed(volts, BASE.threshold_v, BASE.alpha)
    assert math.isclose(gain, factor, rel_tol=1e-9)


@pytest.mark.parametrize("volts", [0.5, 0.65, 0.85])
def test_no_clock_is_so_slow_that_less_than_the_least_would_do(volts: float) -> None:
    assert BASE.supply_v(volts, 1e6) == min(volts, BASE.least_v)


@pytest.mark.parametrize(("ghz", "volts"), [(1.1, 0.741), (1.35, 0.85), (2.0, 1.219)])
def test_mtia_2i_at_some_clocks(ghz: float, volts: float) -> None:
    """Worked out: (V - 0.38)^1.3 / V is 0.4409 at 0.85 V, and goes with the clock."""
    assert BASE.supply_v(0.85, ghz * 1e9) == pytest.approx(volts, abs=0.005)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"power.least_v": 0.3}, "must rise in this order"),
        ({"power.most_v": 0.5}, "must rise in this order"),
        ({"power.alpha": 0.5}, "power.alpha"),
        ({"power.nominal_hz": 0}, "power.nominal_hz"),
        ({"energy.voltage_v": 0.3}, "energy.voltage_v is 0.3; right: above power.threshold_v, 0.38"),
        ({"energy.memory_voltage_v": 0.38}, "energy.memory_voltage_v is 0.38; right: above"),
    ],
)
def test_a_law_that_cannot_be_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_chip("mtia-2i", settings)
