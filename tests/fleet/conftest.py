"""Scenarios for the tests of fleets."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.scenario import Scenario

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet-mtia-2i.toml"


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    """Return the example's recommendation fleet."""
    return load_scenario(EXAMPLE)
