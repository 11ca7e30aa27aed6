"""Where the power goes: nothing is lost between the meter and the models."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.fleet.flows import COOLING, IT, METER, power_flows
from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.model import evaluate
from mtia_emu.fleet.sampling import draw
from mtia_emu.view.html.sankey import Ribbon, Sankey
from mtia_emu.view.html.scales import ChartAxis

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("fleet-*.toml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda x: x.stem)
@pytest.mark.parametrize("drawn", [False, True])
def test_every_place_gives_what_it_gets(file: Path, drawn: bool) -> None:
    scenario = load_scenario(file)
    samples = draw(scenario, 64) if drawn else {}
    for option in scenario.option:
        flows = power_flows(scenario, option, samples)
        result = evaluate(scenario, option, samples)
        meter = sum(x.watts for x in flows if x.source == METER)
        assert meter == pytest.approx(float((result.meter_w + 0.0 * result.pue).mean()))
        for place in {x.source for x in flows} - {METER}:
            got = sum(x.watts for x in flows if x.target == place)
            assert got == pytest.approx(sum(x.watts for x in flows if x.source == place))
        Sankey("t", "s", ChartAxis("power", "W"), [Ribbon(x.source, x.target, x.watts) for x in flows])
        assert {x.target for x in flows} >= set(scenario.option[option])


def test_cooling_is_what_pue_says() -> None:
    flows = power_flows(load_scenario(EXAMPLES[0], {"site.pue": 1.25}), "gpu", {})
    by_target = {x.target: x.watts for x in flows if x.source == METER}
    assert by_target[COOLING] == pytest.approx(0.25 * by_target[IT])
