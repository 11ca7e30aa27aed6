"""The command that prints area and cost."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from mtia_emu.cli.app import main


def cli(*words: str) -> Result:
    return CliRunner().invoke(main, ["area", *words], catch_exceptions=False)


def test_area_is_printed_by_component_from_low_to_high() -> None:
    shown = cli("--chip", "mtia-1").output
    assert "whole die" in shown and "373.0" in shown and "package test" in shown
    assert "low" in shown and "mid" in shown and "high" in shown


def test_what_is_the_chips_own_is_said() -> None:
    shown = cli("--chip", "mtia-2i", "--set", "dram.device=hbm3", "--set", "dram.channels=64").output
    assert "memory: hbm3-6400, 2 packages" in shown
    row = next(line for line in shown.splitlines() if "dram.channels" in line)
    assert row.split() == ["dram.channels", "64", "256"]
    assert "dram.bytes is 128 GB" in shown and "256 channels would hold it" in shown


def test_several_dies_are_said() -> None:
    shown = cli("--set", "package.compute_dies=4", "--set", "dram.channels=2").output
    assert (
        shown.startswith("mtia-2i: area of 4 compute dies together") and "lpddr5-6400, 1 package\n" in shown
    )


def test_json_has_what_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "area.json"
    shown = cli("--chip", "mtia-300", "--json", str(path)).output
    assert json.loads(cli("--chip", "mtia-300", "--json", "-").output) == json.loads(path.read_text())
    value = json.loads(path.read_text())
    assert (
        value["area_mm2"]["total"]["low"]
        < value["area_mm2"]["total"]["mid"]
        < value["area_mm2"]["total"]["high"]
    )
    assert f"{value['cost']['total_usd']['mid']:,.0f}" in shown
    assert value["memory"]["device"] == "hbm3e-8000" and value["memory"]["packages"] == 6
    assert value["notes"] and all(note in shown for note in value["notes"])


def test_an_unknown_memory_is_refused() -> None:
    done = cli("--set", "dram.device=hbm33")
    assert done.exit_code == 2 and "did you mean 'hbm3'" in done.stderr
