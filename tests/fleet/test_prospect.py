"""What is said of a programme's odds and of knowing more."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from mtia_emu.errors import UserError
from mtia_emu.files.writing import json_text
from mtia_emu.fleet.answer import FleetAnswer, fleet
from mtia_emu.fleet.answer_json import as_json
from mtia_emu.fleet.prospect import Prospect, has_programme, prospect, value_of_knowing
from mtia_emu.fleet.scenario import Scenario


@pytest.fixture(scope="module")
def answer(scenario: Scenario) -> FleetAnswer:
    """Return the example's answer."""
    return fleet(scenario)


@pytest.fixture(scope="module")
def found(answer: FleetAnswer) -> Prospect:
    """Return the example's programme."""
    return prospect(answer)


def test_prior_beside_conditioned(found: Prospect) -> None:
    """Unconditioned samples sell the chip about one and a half times too well."""
    prior, kept = found.prior.break_even, found.conditioned.break_even
    assert 1.3 < kept.p50 / prior.p50 < 1.8
    assert 30_000 < prior.p5 < prior.p50 < prior.p95 < 250_000
    assert found.conditioned.odds.risked < found.prior.odds.risked


def test_odds_grow_with_volume(found: Prospect) -> None:
    for worth in (found.prior, found.conditioned):
        for name in ("works", "risked"):
            odds = [getattr(x, name) for x in worth.curve]
            assert odds == sorted(odds) and 0 <= odds[0] < odds[-1] <= 1
        assert max(x.risked for x in worth.curve) < 0.6  # a chip that fails pays at no volume


def test_the_median_break_even_has_even_odds(found: Prospect, answer: FleetAnswer) -> None:
    even = found.conditioned.break_even.p50
    volumes, odds = zip(*((x.volume, x.works) for x in found.conditioned.curve), strict=True)
    assert abs(np.interp(math.log(even), np.log(volumes), odds) - 0.5) < 0.05


def test_slips_cost_more_the_longer_and_less_with_a_second_source(found: Prospect) -> None:
    costs = [x.usd for x in found.slips]
    assert costs == sorted(costs) and costs[0] > 0
    assert all(x.with_second_usd < x.usd for x in found.slips)


def test_the_widest_swing_stands_first(found: Prospect) -> None:
    widths = [x.width for x in found.swings]
    assert widths == sorted(widths, reverse=True) and widths[-1] > 0


def test_a_worse_estimate_is_never_worth_more(found: Prospect) -> None:
    worth = [x.usd for x in found.insights_at_even]
    assert worth[0] > worth[3] > worth[-1] >= 0
    assert worth == sorted(worth, reverse=True)


@given(st.floats(-2, 2), st.floats(0, 3))
def test_knowing_is_worth_what_theory_says(mean: float, error: float) -> None:
    """Value = mean + x, x standard normal, seen with a normal error: a normal loss of the posterior mean."""
    rng = np.random.default_rng(1)
    x = norm.ppf((np.arange(4096) + 0.5) / 4096)
    seen = x + error * rng.standard_normal((16, 4096))
    spread = 1 / math.sqrt(1 + error**2)
    want = spread * norm.pdf(mean / spread) + mean * norm.cdf(mean / spread) - max(mean, 0)
    assert value_of_knowing(mean + x, seen) == pytest.approx(want, abs=0.02)


def test_seeing_nothing_is_worth_nothing() -> None:
    assert value_of_knowing(np.arange(5.0) - 2, np.zeros((3, 5))) == 0


def test_it_is_in_the_json_and_null_where_there_is_none(answer: FleetAnswer, scenario: Scenario) -> None:
    whole = json.loads(json_text(as_json(answer)))["programme"]
    assert whole["device"] == "mtia-2i" and whole["weeks"]["tape_out"] > 52
    assert set(whole["conditioned"]) >= {"break_even", "npv_usd", "odds", "gates", "curve"}
    bare = scenario.model_copy(update={"programme": None})
    assert not has_programme(bare, "own") and not has_programme(scenario, "gpu")
    assert as_json(fleet(bare, samples=4096))["programme"] is None


def test_a_scenario_without_bands_has_no_odds(scenario: Scenario, answer: FleetAnswer) -> None:
    from dataclasses import replace

    with pytest.raises(UserError, match="no input has a band"):
        prospect(replace(answer, samples={}, kept=np.array([True])))
