"""What a chip costs to make."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.machine.chip import load_chip
from mtia_emu.silicon import cost, load_silicon
from mtia_emu.silicon.cost import dies_per_wafer, yield_share


def test_dies_and_yield_of_a_published_die() -> None:
    """421 mm2 on 300 mm: 135.4 dies, 67.4 % good at 0.1 defects a cm2, 47.6 % at 0.2: worked by hand."""
    assert dies_per_wafer(421, 300) == pytest.approx(135.4, abs=0.05)
    assert yield_share(421, 0.1, 3) == pytest.approx(0.674, abs=5e-4)
    assert yield_share(421, 0.2, 3) == pytest.approx(0.476, abs=5e-4)


def test_the_cost_of_a_published_die() -> None:
    """CSET's 5 nm wafer of 16,988 $ over 135.4 dies, 47.6 % good: 263 $ a die, the high end."""
    found = cost(load_chip("mtia-2i"), load_silicon().in_case("high"), die_mm2=421)
    assert found.die_usd == pytest.approx(263, abs=1)
    assert found.memory_usd == pytest.approx(128 * 12)
    assert found.total_usd == pytest.approx(found.die_usd + found.package_test_usd + found.memory_usd)


def test_dies_are_good_one_by_one() -> None:
    """Two dies of half the size cost less than one, and the interposer that joins them more."""
    one = cost(load_chip("mtia-2i"), die_mm2=800)
    two = cost(load_chip("mtia-2i", {"package.compute_dies": 2}), die_mm2=800)
    assert two.die_usd < one.die_usd and two.yield_share > one.yield_share
    assert two.interposer_usd == pytest.approx(0.49 * 800) and one.interposer_usd == 0
    lost = 1 / 0.995**2 - 1
    assert two.bonding_usd == pytest.approx((two.die_usd + two.interposer_usd) * lost)


def test_a_price_may_be_set() -> None:
    facts = load_silicon({"dram.lpddr5-6400.usd_per_gb": 4.0})
    assert cost(load_chip("mtia-2i"), facts).memory_usd == 128 * 4.0
    facts = load_silicon({"dram.lpddr5-6400.usd_per_gb": [1.0, 2.0, 3.0]})
    assert cost(load_chip("mtia-2i"), facts.in_case("low")).memory_usd == 128


@given(st.floats(1, 2000), st.floats(1.01, 3))
def test_a_larger_die_costs_more(die_mm2: float, factor: float) -> None:
    chip = load_chip("mtia-2i")
    small, large = cost(chip, die_mm2=die_mm2), cost(chip, die_mm2=die_mm2 * factor)
    assert large.die_usd > small.die_usd * factor  # yield falls as well
    assert large.yield_share < small.yield_share


def test_a_die_that_no_wafer_holds_costs_infinitely_much() -> None:
    assert math.isinf(cost(load_chip("mtia-2i"), die_mm2=1e6).total_usd)
