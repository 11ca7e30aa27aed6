"""The command `fleet`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
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


def test_a_page_is_html() -> None:
    done = cli(EXAMPLE, "-o", "fleet.pdf")
    assert done.exit_code == 2 and done.stderr == "error: -o 'fleet.pdf': a page is .html\n"


def test_odds_of_samples_are_never_sure() -> None:
    shown = cli(EXAMPLE, "--samples", "256", "--set", "option.own.ranking=h100-sxm").output
    assert "'own' costs less than 'gpu' in under 1% of samples" in shown


@pytest.mark.parametrize("file", sorted(Path(EXAMPLE).parent.glob("fleet-*.toml")), ids=lambda x: x.stem)
def test_every_example_is_answered(file: Path) -> None:
    done = cli(str(file), "--samples", "512")
    assert done.exit_code == 0 and "central values" in done.output
    assert ("samples agree" in done.output) == ("[[published]]" in file.read_text())


def test_no_page_is_made_of_no_work(tmp_path: Path) -> None:
    page = tmp_path / "none.html"
    done = cli(EXAMPLE, "--samples", "256", "--set", "work.ranking.mean_per_s=0", "-o", str(page))
    assert done.exit_code == 2 and "'own' has nothing to do" in done.stderr and not page.exists()
