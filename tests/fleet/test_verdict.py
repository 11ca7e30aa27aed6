"""Verdicts carry volume, year and odds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mtia_emu.errors import UserError
from mtia_emu.fleet.answer import fleet
from mtia_emu.fleet.load import load_scenario
from mtia_emu.fleet.prospect import prospect
from mtia_emu.fleet.sampling import Percentiles
from mtia_emu.fleet.scenario import Scenario
from mtia_emu.fleet.verdict import Saving, chance, rounded, verdict

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet-mtia-2i.toml"


def test_a_programme_that_pays_and_one_that_does_not() -> None:
    starts = {60_000: "Do not start the programme at 100,050", 600_000: "Start the programme at 1,000,500"}
    for mean_per_s, start in starts.items():
        given = load_scenario(EXAMPLE, {"work.ranking.mean_per_s": mean_per_s})
        answer = fleet(given)
        words = verdict(answer, prospect(answer))
        assert words.startswith(start)
        assert re.search(r"odds of \d+% \(.+ if the chip works\)", words)
        assert "in dollars of 2024" in words and re.search(r"breaks even at [\d,]+ GPU-equivalents", words)


def test_without_a_programme_options_are_compared(scenario: Scenario) -> None:
    bare = scenario.model_copy(update={"programme": None})
    words = verdict(fleet(bare), None)
    assert words.startswith("'own' costs less than 'gpu'") and "100,220 devices" in words
    assert "in dollars of 2024" in words and "with odds of" in words
    alone = bare.model_copy(update={"option": {"gpu": bare.option["gpu"]}, "published": ()})
    want = r"10\d,\d+ devices draw [\d.]+ MW and cost \$[\d.]+ B a year \(.+\), in dollars of 2024"
    assert re.match(want, verdict(fleet(alone), None))


def test_a_rival_that_stands_still_gives_no_verdict() -> None:
    given = load_scenario(EXAMPLE, {"programme.gpu_usd_gain_per_year": 0})
    answer = fleet(given)
    with pytest.raises(UserError, match="a price that stands still is none"):
        verdict(answer, prospect(answer))


def test_a_saving_is_no_text_without_volume_year_and_odds() -> None:
    words = str(Saving(Percentiles(1e8, 2e8, 3e8, 2e8), "340,000 GPUs", 2024, 0.004))
    assert words == "$200 M ($100 M to $300 M) in dollars of 2024, at 340,000 GPUs, with odds of under 1%"
    with pytest.raises(TypeError):
        Saving(Percentiles(1, 2, 3, 2))  # type: ignore[call-arg]


def test_odds_are_never_rounded_to_certainty() -> None:
    assert [chance(x) for x in (0, 0.001, 0.13, 0.996, 1)] == [
        "under 1%",
        "under 1%",
        "13%",
        "over 99%",
        "over 99%",
    ]
    assert rounded(146_326) == "150,000" and rounded(float("inf")) == "no volume"
