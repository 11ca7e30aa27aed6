"""Systems in rows and as JSON."""

from __future__ import annotations

import json

import pytest

from mtia_emu.system.bounds import bisection_bytes_per_s
from mtia_emu.system.listing import as_json, facts
from mtia_emu.system.load import load_system, system_names


@pytest.mark.parametrize("name", system_names())
def test_rows_have_keys_values_and_sources(name: str) -> None:
    found = {fact.key: fact for fact in facts(name)}
    assert found["name"].value == name and found["host.power_w"].source
    assert any(key.startswith("links.") and key.endswith(".bytes_per_s") for key in found)
    system = load_system(name)
    value = json.loads(json.dumps(as_json(system)))
    assert len(value["ranks"]) == len(system.ranks) and value["bisection_bytes_per_s"] > 0


def test_half_to_half() -> None:
    assert bisection_bytes_per_s(load_system("tiny-board")) == 4 * 8e9
    assert bisection_bytes_per_s(load_system("mtia-2i-server")) == 64e9  # the sockets' uplinks
    assert bisection_bytes_per_s(load_system("mtia-2i-server"), range(12)) == 6 * 32e9
    assert bisection_bytes_per_s(load_system("tpu-v4i-board")) == 2 * 50e9  # a ring is cut twice


@pytest.mark.parametrize("name", ["mtia-2i", "h100-sxm"])
def test_a_system_of_one_has_no_halves(name: str) -> None:
    assert as_json(load_system(name))["bisection_bytes_per_s"] == 0
