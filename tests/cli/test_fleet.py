"""The command `fleet`."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from mtia_emu.cli.app import main

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "fleet-mtia-2i.toml")


def cli(*words: str) -> Result:
    return CliRunner().invoke(main, ["fleet", *words], catch_exceptions=False)


def test_a_fleet_is_answered_in_tables() -> None:
    shown = cli(EXAMPLE, "--samples", "1024", "--inputs").output
    for words in ("central values, dollars of 2024", "what it costs a year", "published ratios"):
        assert words in shown
    for words in ("one input at a", "of 1,024 samples agree", "inputs are guesses", "eGRID2023"):
        assert words in shown


def test_a_fleet_is_answered_in_json() -> None:
    value = json.loads(cli(EXAMPLE, "--samples", "1024", "--json", "-").stdout)
    assert value["format"] == "mtia-emu fleet 1" and value["options"]["gpu"]["central"]["devices"] == 100_220


def test_a_wrong_input_ends_as_a_line() -> None:
    done = cli(EXAMPLE, "--set", "site.usd_per_kwh=80")
    assert done.exit_code == 2 and "is it in the unit that the key names?" in done.stderr
