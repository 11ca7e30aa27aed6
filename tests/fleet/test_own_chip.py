"""An own device's silicon is that of `mtia_emu.silicon`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.errors import UserError
from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.model import Values, device_usd
from mtia_emu.fleet.own_chip import silicon_of
from mtia_emu.silicon.estimate import estimate

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet-mtia-2i.toml"
BARE = {"device.mtia-2i.partner_margin": 1.0, "device.mtia-2i.board_usd": 0.0}


@pytest.mark.parametrize("chip", ["mtia-1", "mtia-2i", "mtia-300"])
def test_a_device_without_margin_costs_what_silicon_says(chip: str) -> None:
    """One die or several, on a board or an interposer: the mid case of `mtia-emu area`."""
    scenario = load_scenario(EXAMPLE, {"device.mtia-2i.chip": chip})
    usd = device_usd(Values(scenario, BARE), "mtia-2i")
    assert usd == pytest.approx(estimate(chip).costs[1].total_usd, rel=1e-9)


def test_bands_are_those_of_silicon() -> None:
    found = silicon_of("mtia-2i")
    assert found["die_mm2"]["value"] == 421 and "low" not in found["die_mm2"]
    assert (found["defects_per_cm2"]["low"], found["defects_per_cm2"]["high"]) == (0.07, 0.20)
    assert found["memory_usd_per_gb"]["shape"] == "log-uniform"


def test_settings_change_the_chip() -> None:
    assert silicon_of("mtia-2i", {"dram.channels": 8})["memory_gb"]["value"] <= 128
    with pytest.raises(UserError, match="unknown chip"):
        silicon_of("mtia-3")


def test_what_the_scenario_says_goes_before_the_chip() -> None:
    said = load_scenario(EXAMPLE, {"device.mtia-2i.die_mm2": 500})
    assert said.quantities["device.mtia-2i.die_mm2"].value == 500
