"""What a fleet comes to: worked by hand, and laws that hold for any numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.measures import MEASURES, measured
from mtia_emu.fleet.model import Values, device_usd, evaluate, good_dies, ratio
from mtia_emu.fleet.sampling import draw, size_of, tornado
from mtia_emu.fleet.scenario import Scenario
from mtia_emu.machine.chip import load_chip
from mtia_emu.silicon import cost, load_silicon

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet-mtia-2i.toml"
SCENARIO = load_scenario(EXAMPLE)
OPTIONS = st.sampled_from(sorted(SCENARIO.option))


def test_a_fleet_of_gpus_worked_by_hand(scenario: Scenario) -> None:
    """60,000 x 1.45 x 1.15 = 100,050 GPUs; all numbers of the shipped H100."""
    pool = evaluate(scenario, "gpu").pools[0]
    serving, mean = 60_000 * 1.45 * 1.15, 100_050 * 0.173 * 3 / 365.25
    assert pool.size.serving == pytest.approx(serving, rel=1e-12) == 100_050
    assert pool.size.spares == math.ceil(mean + 2.326 * mean**0.5) == 170
    assert pool.size.servers == math.ceil(100_220 / 8) == 12_528
    assert pool.size.racks == 12_528 / 4  # 41 kW feed four servers of 8,360 W
    load = 60_000 / 100_050
    device = 600 * (0.15 + 0.85 * load) * 100_050 + 600 * 0.15 * 170
    server = 2800 * (0.5 + 0.5 * load * 100_050 / 100_220) * 12_528
    assert pool.drawn_w == pytest.approx(device + server + 114 * 100_220)
    assert pool.provisioned_w == pytest.approx(1.1 * (600 * 100_220 + 2800 * 12_528) + 114 * 100_220)
    energy = pool.drawn_w * 1.08 * 8766 / 1000 * scenario.quantities["site.usd_per_kwh"].value
    assert pool.costs.energy_usd == pytest.approx(energy)
    life = 0.08 / (1 - 1.08**-5.5)
    assert pool.costs.devices_usd == pytest.approx(100_220 * 25_000 * life)
    assert pool.costs.programme_usd == 0


def test_an_own_chips_silicon_is_what_silicon_says(scenario: Scenario) -> None:
    """At the same wafer, defects and prices, dollars and yield are those of `mtia_emu.silicon`."""
    facts = load_silicon({"node.5.defects_per_cm2": [0.11, 0.11, 0.11], "node.5.wafer_usd": [16000] * 3})
    made = cost(load_chip("mtia-2i"), facts, die_mm2=421)
    at = Values(scenario, {"device.mtia-2i.partner_margin": 1.0, "device.mtia-2i.board_usd": 0.0})
    pool = evaluate(scenario, "own", at.samples).pools[0]
    assert good_dies(at, "mtia-2i")[1] == pytest.approx(made.yield_share)
    memory = 128 * scenario.quantities["device.mtia-2i.memory_usd_per_gb"].value
    assert pool.device_usd == pytest.approx(made.die_usd + 100 + memory)


def test_dollars_and_carbon_share_one_yield(scenario: Scenario) -> None:
    """A dirtier process: the die's dollars and kilograms rise by the same factor."""
    key = "device.mtia-2i."
    nothing = {key + part: 0.0 for part in ("package_test_usd", "board_usd", "memory_gb", "package_kg")}
    clean, dirty = (
        evaluate(scenario, "own", nothing | {key + "defects_per_cm2": d}).pools[0] for d in (0.05, 0.2)
    )
    dollars, kilograms = (
        dirty.device_usd / clean.device_usd,
        dirty.carbon.devices_kg / clean.carbon.devices_kg,
    )
    assert dollars == pytest.approx(kilograms) and dollars > 1.5


def test_what_is_published_beside_what_the_central_values_give(scenario: Scenario) -> None:
    """Unconditioned, the chip looks 1.8 times too good: that is why samples are conditioned."""
    found = ratio(Values(scenario, {}), "perf_per_tco", "ranking", "mtia-2i", "h100-sxm")
    assert found / 1.67 == pytest.approx(1.79, abs=0.02)


@given(OPTIONS, st.floats(1.0, 2.0), st.floats(1.0, 1.5))
def test_more_pue_is_never_cheaper(option: str, pue: float, factor: float) -> None:
    less, more = (evaluate(SCENARIO, option, {"site.pue": x}) for x in (pue, pue * factor))
    assert more.usd_per_year >= less.usd_per_year
    assert more.sum_of("carbon.total_kg") >= less.sum_of("carbon.total_kg")


@given(OPTIONS)
def test_no_work_costs_nothing(option: str) -> None:
    none = evaluate(SCENARIO, option, {"work.ranking.mean_per_s": 0.0})
    assert {name: float(one.of(none)) for name, one in MEASURES.items()} == dict.fromkeys(MEASURES, 0.0)


@given(OPTIONS, st.floats(1, 1e7))
def test_twice_the_work_costs_at_most_twice_as_much_and_a_server(option: str, mean: float) -> None:
    key = "work.ranking.mean_per_s"
    one, two = (evaluate(SCENARIO, option, {key: x}) for x in (mean, 2 * mean))
    pool = one.pools[0]
    server = pool.capital_usd / pool.size.servers  # its devices and its share of a rack
    assert two.pools[0].size.servers <= 2 * pool.size.servers + 1
    more = 2 * pool.costs.recurring_usd + server * 0.5 + 1e-6 * pool.costs.total_usd
    assert two.pools[0].costs.recurring_usd <= more


@given(OPTIONS, st.sampled_from(sorted(SCENARIO.varied)), st.floats(0.9, 1), st.floats(1, 1.1))
def test_a_wider_input_never_makes_a_narrower_answer(option: str, key: str, down: float, up: float) -> None:
    quantity = SCENARIO.varied[key]
    low, high = quantity.ends
    ends = [[low, high], [low * down, high * up]]
    for name in ("musd_per_year", "mw", "location_tco2e_per_year"):
        narrow, wide = ([float(measured(SCENARIO, option, {key: x})[name]) for x in pair] for pair in ends)
        slack = 1e-4 * abs(narrow[0])  # whole devices, servers and racks
        assert min(wide) <= min(narrow) + slack and max(wide) >= max(narrow) - slack


def test_samples_are_answered_as_one_by_one(scenario: Scenario) -> None:
    samples = draw(scenario, 8)
    together = measured(scenario, "own", samples)
    for i in range(size_of(samples)):
        alone = measured(scenario, "own", {key: float(x[i]) for key, x in samples.items()})
        for name, value in alone.items():
            assert np.broadcast_to(together[name], 8)[i] == pytest.approx(float(value), rel=1e-12), name


def test_the_tornado_leads_with_the_price_of_what_is_replaced(scenario: Scenario) -> None:
    swings = tornado(scenario, lambda at: measured(scenario, "own", at)["saving_musd_per_year"])
    assert swings[0].key == "device.h100-sxm.price_usd" and len(swings) == len(scenario.varied)
    assert [x.width for x in swings] == sorted((x.width for x in swings), reverse=True)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("device.mtia-2i.die_mm2", 90_000.0, "no good die of 90,000 mm2 comes from a wafer"),
        ("device.mtia-2i.defects_per_cm2", 10.0, "of dies are good"),
        ("rack.rack_w", 900.0, "a rack of 900 W feeds no server of mtia-2i"),
    ],
)
def test_what_cannot_be_built_is_refused(scenario: Scenario, key: str, value: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        evaluate(scenario, "own", {key: value})


def test_several_dies_are_good_one_by_one(scenario: Scenario) -> None:
    """421 mm2 in two dies of 210.5: each has its own yield and its own place on the wafer."""
    key = "device.mtia-2i."
    bare = {key + part: 0.0 for part in ("package_test_usd", "board_usd", "memory_gb")}
    at = Values(scenario, bare | {key + "dies": 2.0, key + "partner_margin": 1.0, key + "die_mm2": 421.0})
    good = (1 + 2.105 * 0.11 / 3) ** -3
    on_wafer = math.pi * 300**2 / (4 * 210.5) - math.pi * 300 / math.sqrt(2 * 210.5)
    assert device_usd(at, "mtia-2i") == pytest.approx(2 * 16_000 / (on_wafer * good))


def test_contracts_stand_beside_the_grid_and_change_nothing_of_it() -> None:
    """Certificates for all energy: a figure of its own, 0, and the location-based one as it was."""
    buying = load_scenario(EXAMPLE, {"site.market_kg_per_kwh": 0.0})
    bare, with_contracts = (measured(x, "own") for x in (SCENARIO, buying))
    assert "market_tco2e_per_year" not in bare and with_contracts["market_tco2e_per_year"] == 0
    assert with_contracts["location_tco2e_per_year"] == bare["location_tco2e_per_year"] > 1e5


def test_water_follows_the_energy_of_it_before_pue(scenario: Scenario) -> None:
    found = measured(scenario, "gpu")
    kwh = float(evaluate(scenario, "gpu").sum_of("drawn_w")) * 8766 / 1e3
    assert found["water_megalitres_per_year"] == pytest.approx(kwh * 0.26 / 1e6)
