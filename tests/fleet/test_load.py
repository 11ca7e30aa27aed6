"""Scenario files: what is filled in, what is refused, and in which words."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from mtia_emu.errors import UserError
from mtia_emu.fleet.load import load_scenario, parse_settings
from mtia_emu.fleet.quantity import STATUSES
from mtia_emu.fleet.scenario import Scenario
from mtia_emu.fleet.shipped import inflation, rows

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet-mtia-2i.toml"
HALF = {"value": 1.1, "source": "x", "status": "guess"}


def test_every_number_has_a_source(scenario: Scenario) -> None:
    assert len(scenario.quantities) > 60
    assert all(q.source and q.status for q in scenario.quantities.values())


def test_a_copy_with_other_fields_has_its_own_numbers(scenario: Scenario) -> None:
    assert "programme.queue_weeks" in scenario.quantities
    bare = scenario.model_copy(update={"programme": None})
    assert set(scenario.quantities) - set(bare.quantities) == {
        key for key in scenario.quantities if key.startswith("programme.")
    }


@pytest.mark.parametrize("name", ["inputs", "egrid", "grids", "prices", "sources"])
def test_every_fact_that_ships_has_a_source_and_a_known_status(name: str) -> None:
    facts = rows(name)
    assert facts and all(row["source"] and row["status"] in STATUSES for row in facts)


def test_no_file_of_facts_is_without_sources() -> None:
    files = {one.name for one in resources.files("mtia_emu.fleet.data").iterdir()}
    named = {f"{name}.csv" for name in ("inputs", "egrid", "grids", "prices", "sources")}
    hours = {f"hours-{row['grid']}.csv" for row in rows("grids")}
    assert {name for name in files if name.endswith(".csv")} == named | hours


def test_what_the_scenario_leaves_out_is_filled_in(scenario: Scenario) -> None:
    assert scenario.quantities["device.h100-sxm.devices_per_server"].value == 8
    assert scenario.quantities["device.mtia-2i.yield_alpha"].value == 3
    assert scenario.quantities["work.ranking.reserve_share"].ends == (0.05, 0.30)


def test_the_grid_is_the_subregions(scenario: Scenario) -> None:
    grid = scenario.quantities["site.grid_kg_per_kwh"]
    assert grid.value == pytest.approx(0.4203, abs=2e-4) and "eGRID2023" in grid.source


def test_amounts_are_in_one_years_dollars(scenario: Scenario) -> None:
    """The energy price is of 2023, the scenario of 2024."""
    price = scenario.quantities["site.usd_per_kwh"]
    assert price.value == pytest.approx(0.0806 * inflation(2023, 2024))
    assert price.low is not None and price.low < price.value and "dollars of 2023" in price.source


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"site.pue": {"value": 1.1, "status": "guess"}}, "'site.pue' has no source"),
        ({"site.pue": {"value": 1.1, "source": "x"}}, "'site.pue' has no status"),
        ({"site.pue": HALF | {"low": 1.2, "high": 1.0}}, "low, 1.2, is above high, 1"),
        ({"site.pue": HALF | {"low": 1.0}}, "low and high stand together"),
        ({"site.pue": HALF | {"low": 1.2, "high": 1.3}}, "value, 1.1, is not from low, 1.2"),
        ({"site.pue": HALF | {"status": "sure"}}, "'site.pue.status' is 'sure'"),
        ({"site.usd_per_kwh": 80.6}, "'site.usd_per_kwh' is 80.6: right: from 0 to 2; is it in the unit"),
        ({"device.mtia-2i.device_busy_kw": 0.085}, "did you mean 'device_busy_w'? (the unit stands"),
        ({"device.mtia-2i.price_usd": 9000}, "an own device costs what it costs to make"),
        ({"device.h100-sxm.die_mm2": 814}, "a bought device costs its price"),
        ({"site.egrid": "MROX"}, "did you mean 'MROW'?"),
        ({"baseline": "gpus"}, "'baseline' is 'gpus': there is no such option; did you mean 'gpu'?"),
        ({"option.own.ranking": "mtia-300"}, "no rate of it is known (right: [work.ranking.on.mtia-300])"),
        ({"option.own.rank": "mtia-2i"}, "there is no such work; did you mean 'ranking'?"),
        ({"work.ranking.shape_24h": [1.0] * 23}, "has 23 numbers: right: 24"),
        ({"site.pue": "high"}, "'site.pue' is 'high'"),
        ({"device.h100-sxm.price_usd": HALF | {"value": 2.0, "year": 2010}}, "price levels are known from"),
    ],
)  # fmt: skip
def test_what_is_no_scenario_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_scenario(EXAMPLE, settings)
    assert words in str(caught.value)


def test_a_bare_number_in_a_file_has_no_source(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(EXAMPLE.read_text().replace("[site]", "[site]\npue = 1.1", 1))
    with pytest.raises(UserError, match=r"'site.pue' is 1.1, without a source \(right: pue = "):
        load_scenario(file)


@pytest.mark.parametrize("line", ["pue = NUMBER", "pue = { value = NUMBER, source = 'x', status = 'guess' }"])
def test_a_number_of_any_length_is_refused_in_a_line(tmp_path: Path, line: str) -> None:
    """A number of TOML's may be larger than any float."""
    file = tmp_path / "s.toml"
    text = EXAMPLE.read_text().replace("[site]", f"[site]\n{line.replace('NUMBER', '9' * 400)}", 1)
    file.write_text(text)
    with pytest.raises(UserError, match=r"'site.pue(.value)?' is 9999") as caught:
        load_scenario(file)
    assert len(str(caught.value)) < 500


def test_a_device_without_a_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(EXAMPLE.read_text().replace('kind = "own"', ""))
    with pytest.raises(UserError, match="has no kind"):
        load_scenario(file)


def test_settings_are_toml() -> None:
    found = parse_settings(("site.pue=1.2", "site.egrid=ERCT", "x={value=1}"))
    assert found == {"site.pue": 1.2, "site.egrid": "ERCT", "x": {"value": 1}}
    with pytest.raises(UserError, match="right: KEY=VALUE"):
        parse_settings(("site.pue",))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"site": 3}, "'site' is 3: not a table"),
        ({"device": 4}, "'device' is not a table of tables"),
        ({"device.h100-sxm.kind": [1]}, "'device.h100-sxm'"),
        ({"device.mtia-2i.kind": {"a": 1}}, "'device.mtia-2i'"),
        ({"work.ranking.on": 3}, "'work.ranking.on' is 3: not a table"),
        ({"work.ranking.shape_24h": [float("nan")] * 24}, "input should be a finite number"),
        ({"site.pue": float("nan")}, "'site.pue.value' is nan"),
        ({"site.pue": True}, "'site.pue' is True: not a table"),
        ({"published": [3]}, "'published.0' is 3: not a table"),
        ({"currency_year": 1e9}, "'currency_year' is 1000000000.0"),
        ({"a.b.c": 1}, "unknown key 'a'"),
        ({"device.mtia-2i.chip": "/dev/null"}, "/dev/null"),
    ],
)
def test_hostile_values_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_scenario(EXAMPLE, settings)
    assert words in str(caught.value)
