"""What must never be claimed: no text that fleets print holds it, and no form lets it be made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner

from mtia_emu.cli.app import main
from mtia_emu.fleet.answer import fleet
from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.measures import SAVING, measured
from mtia_emu.fleet.model import evaluate
from mtia_emu.fleet.page import fleet_page
from mtia_emu.fleet.scenario import BoughtDevice, OwnDevice
from mtia_emu.fleet.verdict import Saving
from mtia_emu.fleet.yearly import YearlyCosts

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("fleet-*.toml"))
PAGES = [ROOT / "docs" / name for name in ("claims.md", "tutorial-fleet.md")]
DENIED = "## What is not claimed here"  # the section of a page that says these very things
TDP_BILL = r"\bTDP\b[^.;|]*(?:\$|bill|hours|a year)"
PRICE_AS_SAVING = r"(?:price|sold at)[^.;|]*(?:made for|cost to make)[^.;|]*(?:sav|cheaper by)"
NOTHING_EMITTED = (
    r"\b(?:zero|0|no) (?:t|tonnes|tCO2e|emissions|carbon)\b|carbon[- ](?:free|neutral)|net[- ]zero"
)
GRAMS_AN_OPERATION = r"\bg(?:rams)?(?:CO2e?)?\s*(?:/|a|an|per)\s*(?:E|exa)FLOP"
SAVED = re.compile(r"\bsav(?:es?|ed|ings?)\b[^.;|]*\$\s?\d")
NEEDED = (r"[\d,]+ (?:GPU-equivalents|devices|GPUs)", r"dollars of 20\d\d", r"odds")


@cache
def printed(file: Path) -> str:
    """Return what the command prints of an example."""
    done = CliRunner().invoke(main, ["fleet", str(file), "--samples", "1024"], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@cache
def page(file: Path) -> str:
    """Return the words of an example's page, a line an element; the sources of inputs are left out."""
    text = fleet_page(fleet(file, samples=1024))
    text = re.sub(r"<style>.*?</style>|<div class=\"scroll\".*?</div>", "\n", text, flags=re.S)
    return unescape(re.sub(r"<[^>]+>", "\n", text))


def texts() -> Iterator[tuple[str, str]]:
    """Yield all that people read of fleets, by name."""
    for file in EXAMPLES:
        yield f"{file.stem} printed", printed(file)
        yield f"{file.stem} page", page(file)
    for path in PAGES:
        if path.exists():
            yield path.name, path.read_text(encoding="utf-8").partition(DENIED)[0]


def sentences(text: str) -> Iterator[str]:
    """Yield sentences, cells of tables and lines of their own."""
    yield from re.split(r"(?<=[.!?])\s|\n\s*\n|\||\n(?=[-*#])", text)


@pytest.mark.parametrize(
    "never", [TDP_BILL, PRICE_AS_SAVING, NOTHING_EMITTED, GRAMS_AN_OPERATION], ids=lambda x: x[:16]
)
def test_no_text_says_it(never: str) -> None:
    for name, text in texts():
        for sentence in sentences(text):
            assert not re.search(never, sentence, re.IGNORECASE), (name, sentence)


def test_a_saving_stands_with_volume_year_and_odds() -> None:
    found = 0
    for name, text in texts():
        for sentence in sentences(text):
            if SAVED.search(sentence):
                found += 1
                assert all(re.search(word, sentence) for word in NEEDED), (name, sentence)
    assert found


def test_the_rules_see_what_they_forbid() -> None:
    for never, sentence in (
        (TDP_BILL, "At its TDP for 8,766 hours a year that is $182 M."),
        (PRICE_AS_SAVING, "Its price is $25,000, the chip is made for $800: $24,200 saved."),
        (NOTHING_EMITTED, "With certificates the fleet has zero emissions."),
        (NOTHING_EMITTED, "It emits 0 tCO2e a year."),
        (GRAMS_AN_OPERATION, "0.66 g/EFLOP beside 125"),
        (SAVED.pattern, "It saves $200 M a year."),
    ):
        assert re.search(never, sentence, re.IGNORECASE), sentence


def test_no_input_is_a_tdp_and_no_bought_device_has_a_cost_to_make() -> None:
    names = [*BoughtDevice.model_fields, *OwnDevice.model_fields]
    assert not [name for name in names if "tdp" in name]
    assert not {"die_mm2", "wafer_usd", "nre_usd"} & set(BoughtDevice.model_fields)
    assert "price_usd" not in OwnDevice.model_fields


def test_a_saving_is_of_all_costs() -> None:
    """Not of device beside device: servers, halls, energy, design and software are in both sums."""
    scenario = load_scenario(EXAMPLES[2])
    base, own = (evaluate(scenario, name) for name in ("gpu", "own"))
    parts = [f.name for f in fields(YearlyCosts)]
    sums = [sum(float(x.sum_of(f"costs.{part}")) for part in parts) for x in (base, own)]
    assert measured(scenario, "own")[SAVING] * 1e6 == pytest.approx(sums[0] - sums[1])
    assert {"programme_usd", "energy_usd", "site_usd", "servers_usd"} <= set(parts)
    assert [f.name for f in fields(Saving)] == ["usd", "volume", "year", "odds"]


def test_certificates_stand_beside_the_grid_and_never_alone() -> None:
    settings = {"site.market_kg_per_kwh": 0}
    answer = fleet(EXAMPLES[0], settings, samples=64)
    words = fleet_page(answer)
    tile = words[words.index("tCO2e a year, by the grid") :][:400]
    by_grid = answer.options[0].conditioned["location_tco2e_per_year"].p50
    assert by_grid > 1e6 and "0 by contracts" in tile and "1.1" in tile


def test_a_break_even_beside_a_price_that_stands_still_is_refused() -> None:
    words = ["fleet", str(EXAMPLES[2]), "--set", "programme.gpu_usd_gain_per_year=0"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 2 and "stands still" in done.stderr
