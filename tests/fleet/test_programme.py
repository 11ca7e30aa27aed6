"""Programmes: worked by hand, peers' schedules, and laws that hold for any numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.model import Values, evaluate
from mtia_emu.fleet.programme import programme, schedule, spread, yearly_usd
from mtia_emu.fleet.sampling import draw, size_of
from mtia_emu.fleet.scenario import Scenario

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet-mtia-2i.toml"
NO_TIME = {
    f"programme.{key}": 0.0
    for key in ("queue_weeks", "bring_up_weeks", "late_years", "supply_slip_weeks", "gpu_usd_gain_per_year",
                "gpu_w_gain_per_year", "second_source_nre_share")
} | {"finance.wacc_per_year": 1e-9, "device.mtia-2i.respins": 0.0}  # fmt: skip
SCENARIO = load_scenario(EXAMPLE)
PLANNED = load_scenario(EXAMPLE, {"programme.compared_at": "plan"})
SAMPLES = draw(SCENARIO, 64)


def test_a_schedule_of_ttm_cas() -> None:
    """100,000 chips of 421 mm2 at 5 nm: 82.75 weeks of tape-out, 20.07 in the foundry, 11.36 to the end."""
    weeks = {"design_weeks": 82.75, "foundry_weeks": 20.07, "package_test_weeks": 11.36}
    at = Values(SCENARIO, NO_TIME | {f"programme.{key}": x for key, x in weeks.items()})
    when = schedule(at, 0.0)
    assert when.first_chips == when.production == pytest.approx(82.75 + 20.07 + 11.36)
    queued = schedule(Values(SCENARIO, {**at.samples, "programme.queue_weeks": 7.0}), 0.0)
    assert queued.first_chips - when.first_chips == pytest.approx(7)  # a queue of q weeks adds q
    again = schedule(at, 1.0)
    assert again.production - when.production == pytest.approx(18 + 20.07 + 11.36)


def test_without_interest_and_with_a_still_rival_it_is_arithmetic() -> None:
    """NPV = volume x (cost of a GPU-year - cost of its replacement) x life - all that was spent."""
    result = programme(SCENARIO, "own", NO_TIME)
    base, own = (evaluate(SCENARIO, name, NO_TIME) for name in ("gpu", "own"))
    saved = base.sum_of("costs.recurring_usd") - own.sum_of("costs.recurring_usd")
    assert result.volume * result.unit_usd == pytest.approx(saved * 5.5, rel=1e-6)
    years = (83 + 20 + 11) * 7 / 365.25 + 3
    known = SCENARIO.quantities
    spent = 150e6 * years
    spent += sum(known[f"device.mtia-2i.{key}"].value for key in ("nre_usd", "ip_usd", "mask_usd"))
    assert result.fixed_usd == pytest.approx(spent, rel=1e-6)
    assert result.npv_usd() == pytest.approx(saved * 5.5 - spent, rel=1e-6)


def test_what_is_saved_later_is_worth_less() -> None:
    """With a rival that stands still, a unit saves its yearly difference, as it is worth at the start."""
    still = {f"programme.{key}": 0.0 for key in ("gpu_usd_gain_per_year", "gpu_w_gain_per_year")}
    result = programme(SCENARIO, "own", still)
    base, own = (evaluate(SCENARIO, name, still) for name in ("gpu", "own"))
    saved = base.sum_of("costs.recurring_usd") - own.sum_of("costs.recurring_usd")
    begin = result.schedule.production * 7 / 365.25
    life = (1 - 1.08**-5.5) / 0.08  # of payments at the end of each year
    want = saved * life * spread(0.08, begin, begin + 3.0)
    assert result.volume * result.unit_usd == pytest.approx(want, rel=1e-3)


def test_a_chip_that_fails_saves_nothing() -> None:
    result = programme(SCENARIO, "own", {**SAMPLES, "programme.failure_share": 1.0})
    assert result.outcome_usd(0) == pytest.approx(-result.fixed_usd)
    assert result.outcome_usd(1) == pytest.approx(-result.design_usd - result.silicon_usd)
    assert result.outcome_usd(2) == pytest.approx(-result.design_usd)


def test_two_for_two_is_an_identity() -> None:
    """ASIC Clouds: TCO = 2 x NRE and a gain of 2 break even (Magaki et al., ISCA 2016)."""
    result = programme(SCENARIO, "own", NO_TIME)
    fixed = result.fixed_usd
    tco, gain = 2 * fixed, 2.0
    assert tco * (1 - 1 / gain) - fixed == 0
    assert result.npv_usd(result.break_even) == pytest.approx(0, abs=1)
    assert result.break_even * result.unit_usd == pytest.approx(fixed)


@given(st.floats(0.001, 0.3), st.floats(0, 5), st.floats(0.01, 8))
def test_spread_money_is_worth_its_mean(rate: float, start: float, length: float) -> None:
    times = start + length * (np.arange(2000) + 0.5) / 2000
    assert spread(rate, start, start + length) == pytest.approx(np.mean((1 + rate) ** -times), rel=1e-5)


def test_only_a_rival_that_is_bought_moves() -> None:
    at, samples = Values(SCENARIO, {}), {"programme.gpu_usd_gain_per_year": 0.3}
    moved = Values(SCENARIO, samples)
    own, base = evaluate(SCENARIO, "own"), evaluate(SCENARIO, "gpu")
    assert yearly_usd(at, own, 5.0) == own.sum_of("costs.recurring_usd")
    recurring, power = base.sum_of("costs.recurring_usd"), base.sum_of("costs.energy_usd")
    power += base.sum_of("costs.site_usd")
    want = (recurring - power) / 1.3**2 + power / 1.2**2
    assert yearly_usd(moved, base, 2.0) == pytest.approx(want)


@given(st.floats(0, 100), st.floats(0, 100), st.integers(0, 63))
def test_a_delay_never_pays(first: float, more: float, seed: int) -> None:
    one, two = (programme(PLANNED, "own", SAMPLES, weeks) for weeks in (first, first + more))
    assert (two.npv_usd() <= one.npv_usd() + 1e3).all() or (two.unit_usd == 0).any()
    assert (two.unit_usd <= one.unit_usd + 1e-6).all()


@given(st.sampled_from(["gpu_usd_gain_per_year", "gpu_w_gain_per_year"]), st.floats(0, 1), st.floats(0, 1))
def test_a_faster_rival_never_lowers_the_break_even(key: str, slow: float, faster: float) -> None:
    ends = sorted((slow, faster))
    evens = [programme(SCENARIO, "own", {**SAMPLES, f"programme.{key}": x}).break_even for x in ends]
    assert (evens[0] <= evens[1] * (1 + 1e-9)).all()


def test_a_price_that_stands_still_sells_the_chip_too_well() -> None:
    still = programme(SCENARIO, "own", {**SAMPLES, "programme.gpu_usd_gain_per_year": 0.0})
    moving = programme(SCENARIO, "own", SAMPLES)
    assert np.median(still.break_even) < 0.8 * np.median(moving.break_even)


@given(st.floats(1e3, 1e7))
def test_being_able_to_stop_is_never_worth_less_than_nothing(volume: float) -> None:
    result = programme(SCENARIO, "own", SAMPLES)
    none, first, both = (result.outcome_usd(stop, volume) for stop in (0, 1, 2))
    assert (none <= first + 1e-3).all() and (first <= both + 1e-3).all()
    works, risked = result.odds(volume)
    assert 0 <= risked <= works <= 1


def test_gates_say_what_is_spent_and_stopped() -> None:
    tape_out, first = programme(SCENARIO, "own", SAMPLES).gates()
    assert tape_out.week < first.week and tape_out.spent_usd < first.spent_usd
    assert first.stopped_share > 0.3 and tape_out.worth_usd >= 0 and first.worth_usd > 0
    certain = {"programme.failure_share": 0.0, "work.ranking.mean_per_s": 1e7}
    sure = programme(SCENARIO, "own", {**SAMPLES, **certain})
    assert [g.worth_usd for g in sure.gates()] == pytest.approx([0, 0], abs=1)


def test_a_chip_that_saves_nothing_breaks_even_nowhere() -> None:
    free = {f"device.h100-sxm.{key}": 0.0 for key in ("price_usd", "server_usd")}
    result = programme(SCENARIO, "own", {**SAMPLES, **free})
    none = result.unit_usd <= 0.01
    assert none.any()
    for volumes in (result.break_even, result.risked_break_even):
        assert np.isinf(volumes[none]).all()


def test_a_second_source_costs_and_halves_the_slip() -> None:
    late = {**SAMPLES, "programme.supply_slip_weeks": 40.0}
    one, two = (programme(SCENARIO, "own", {**late, "programme.second_source_share": x}) for x in (0.0, 0.5))
    assert (two.fixed_usd > one.fixed_usd).all()
    assert np.allclose(one.schedule.production - two.schedule.production, 20)
    assert (two.unit_usd >= one.unit_usd).all()


def test_what_is_compared_when() -> None:
    """Planned: what makes the chip late makes its rival better. In production: published ratios hold it."""
    planned, held = programme(PLANNED, "own", SAMPLES), programme(SCENARIO, "own", SAMPLES)
    assert (planned.unit_usd < held.unit_usd).all() and held.schedule.delay == 0
    slipped = programme(SCENARIO, "own", SAMPLES, 26)
    assert np.allclose(slipped.schedule.delay, 26) and (slipped.unit_usd < held.unit_usd).all()


def test_a_programme_needs_its_table_and_an_own_device() -> None:
    bare = SCENARIO.model_copy(update={"programme": None})
    with pytest.raises(UserError, match=r"no \[programme\]: add the table"):
        programme(bare, "own")
    with pytest.raises(UserError, match="no device of kind 'own'"):
        programme(SCENARIO, "gpu")


def test_bad_numbers_are_refused() -> None:
    for key, value, words in (
        ("failure_share", 1.5, "right: from 0 to 1"),
        ("design_weeks", -3, "right: from 1 to 520"),
        ("compared_at", "yesterday", "'plan' or 'production'"),
        ("design_years", 2, "unknown key 'programme.design_years'"),
    ):
        with pytest.raises(UserError, match=words):
            load_scenario(EXAMPLE, {f"programme.{key}": value})


def test_samples_and_single_cases_agree() -> None:
    """Each sample is what a case of its own would be."""
    whole = programme(SCENARIO, "own", SAMPLES)
    assert size_of(SAMPLES) == 64
    for number in (0, 17, 63):
        one = programme(SCENARIO, "own", {key: float(x[number]) for key, x in SAMPLES.items()})
        assert one.npv_usd() == pytest.approx(whole.npv_usd()[number], rel=1e-9)
        assert math.isclose(float(one.break_even), whole.break_even[number], rel_tol=1e-9)


def test_half_of_a_programme_is_half_of_its_cost(scenario: Scenario) -> None:
    whole, half = (programme(scenario, "own", {"device.mtia-2i.volume_share": x}) for x in (1.0, 0.5))
    assert half.fixed_usd == pytest.approx(whole.fixed_usd / 2)
    assert half.unit_usd == pytest.approx(whole.unit_usd)
