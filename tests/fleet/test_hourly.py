"""A fleet's carbon by the hour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtia_emu.fleet.answer import HOURLY, fleet
from mtia_emu.fleet.hourly import MONTH_DAYS, drawn_by_hour, hourly, months
from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.scenario import Scenario

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet-plan.toml"
BUYS = {"purchases.grid": "ERCO", "purchases.utc_offset_h": -6}


def test_a_fleet_draws_more_when_it_has_more_to_do(scenario: Scenario) -> None:
    drawn = drawn_by_hour(scenario, "own")
    assert drawn.mean() == pytest.approx(1) and int(drawn.argmax()) == 20
    assert drawn.max() < scenario.work["ranking"].peak_over_mean.value, "idle power flattens it"


def test_a_leap_year_has_its_day_in_february() -> None:
    usual, leap = (np.bincount(months(hours)) // 24 for hours in (8760, 8784))
    assert usual.tolist() == list(MONTH_DAYS) and (leap - usual).tolist() == [0, 1] + [0] * 10


def test_no_purchases_no_answer() -> None:
    assert hourly(load_scenario(EXAMPLE), "own") is None


def test_as_much_as_is_drawn_is_not_what_is_drawn_when() -> None:
    """Certificates for all of it; three quarters by the hour: half and half, near a flat load's 74.6 %."""
    found = hourly(load_scenario(EXAMPLE, BUYS), "own")
    assert found is not None and found.annual_share == pytest.approx(1)
    assert found.coverage == pytest.approx(0.7464, abs=0.03)
    assert 0.2 < found.residual_kg_per_kwh / found.location_kg_per_kwh < 0.4
    assert found.by_month.shape == (12, 24) and found.by_month[6, 12] < 0.2 * found.by_month[6, 21]


def test_the_residual_is_a_measure_of_its_own() -> None:
    """Beside the location-based figure, which purchases leave as it is."""
    bare, buying = (fleet(EXAMPLE, settings, samples=1024) for settings in ({}, BUYS))
    one, other = bare.option("own"), buying.option("own")
    assert HOURLY not in one.central and 0 < other.central[HOURLY] < other.central["location_tco2e_per_year"]
    assert one.central["location_tco2e_per_year"] == other.central["location_tco2e_per_year"]
    assert other.conditioned[HOURLY].p5 > 0
