"""A scenario's answer, from Python and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mtia_emu
from mtia_emu.errors import UserError
from mtia_emu.fleet.answer import fleet
from mtia_emu.fleet.answer_json import as_json
from mtia_emu.fleet.scenario import Scenario
from mtia_emu.fleet.yearly import YearlyCosts

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet-mtia-2i.toml"


def test_the_package_can_be_called() -> None:
    answer = mtia_emu.fleet(EXAMPLE, {"site.pue": 1.2}, samples=1024)
    assert answer.scenario.site.pue.value == 1.2 and answer.option("gpu").odds == 0


def test_an_answer_is_plain_data() -> None:
    answer = fleet(EXAMPLE, samples=1024, shares=True)
    value = json.loads(json.dumps(as_json(answer)))
    assert value["samples"] == 1024 and 0 < value["survivors"] == answer.survivors < 200
    own = value["options"]["own"]
    assert set(own["central"]) == set(own["prior"]) == set(own["conditioned"])
    pool = own["pools"]["mtia-2i"]
    assert sum(pool["usd_per_year"].values()) / 1e6 == pytest.approx(own["central"]["musd_per_year"])
    assert set(pool["usd_per_year"]) == set(YearlyCosts.__dataclass_fields__)
    assert all(one["source"] and one["status"] for one in value["inputs"].values())
    assert value["influences"][0]["total"] > 0.1


def test_a_scenario_that_nothing_agrees_with_is_refused() -> None:
    with pytest.raises(UserError, match="draw more, or widen an input's band"):
        fleet(EXAMPLE, {"device.mtia-2i.device_busy_w": 5000, "rack.rack_w": 1e6}, samples=64)


def test_settings_over_a_scenario_that_is_read_are_refused(scenario: Scenario) -> None:
    with pytest.raises(UserError, match="settings go over a scenario's file"):
        fleet(scenario, {"site.pue": 1.2})
