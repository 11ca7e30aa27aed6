"""The command `serve`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mtia_emu.cli.app import main

EXAMPLES = Path(__file__).parents[2] / "examples"
TABLE = ("--table", str(EXAMPLES / "step-table.json"))
TRACE = ("--trace", str(EXAMPLES / "requests.csv"))


def cli(*words: str, model: str = "toy-decoder") -> Result:
    return CliRunner().invoke(main, ["serve", model, *words], catch_exceptions=False)


def test_a_trace_is_served_in_tables() -> None:
    shown = cli(*TABLE, *TRACE, "--slo", "ttft=1,tpot=0.05").output
    for words in ("to first token", "of p99 95%", "mJ/token", "sequences decode", "The level is kept"):
        assert words in shown


def test_the_same_seed_prints_the_same() -> None:
    words = (*TABLE, "--rate", "3", "--requests", "40", "--json", "-")
    assert cli(*words).output == cli(*words).output != cli(*words, "--seed", "2").output


def test_the_greatest_rate_is_found() -> None:
    value = json.loads(cli(*TABLE, *TRACE, "--rate", "max", "--slo", "ttft=1", "--json", "-").stdout)
    shares = value["table"]["error_share"]
    assert value["table"]["source"] and 0 <= shares["median"] <= shares["largest"] < 1
    assert value["greatest_rate"]["rate_per_s"] == pytest.approx(14, rel=0.15)


def test_lengths_come_from_a_histogram(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("tokens_from,weight\n7,1\n")
    words = (
        *TABLE,
        "--rate",
        "3",
        "--requests",
        "4",
        "--input-tokens",
        str(tmp_path / "h.csv"),
        "--json",
        "-",
    )
    assert json.loads(cli(*words).stdout)["load"]["input_tokens"] == 28


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "there is no load"),
        (("--rate", "x"), "--rate 'x': right is requests a second, or max"),
        (("--rate", "nan"), "a rate of nan"),
        (("--rate", "0"), "a rate of 0.0"),
        (("--rate", "max"), "the greatest rate needs a service level"),
        (("--rate", "2", "--concurrency", "2"), "--concurrency and --rate"),
        (("--rate", "2", "--slo", "ttft=fast"), "'ttft=fast' has no number"),
        (("--rate", "2", "--input-tokens", "9000"),
         "needs a context of 9127 tokens, and the step table of toy-chip ends at 4096"),
        (("--rate", "2", "--blocks", "2"), "needs a context of 639 tokens, and the cache has 32"),
        (("--rate", "2", "--max-sequences", "65"), "a step may decode 65 sequences"),
        (("--rate", "2", "--token-budget", "2000"), "a step may have 2000 tokens"),
        (("--rate", "2", "--reserve", "-1"), "--reserve -1.0"),
        (("--rate", "2", "--reserve", "1e12"), "weights, activations and reserve take 1001.00 GB"),
        (("--rate", "2", "--gap", "nan"), "gap_s is nan"),
        (("--rate", "2", "--chip", "tiny"), "--table is given with --chip"),
        (("--trace", "none.csv"), "trace none.csv cannot be read"),
    ],
)  # fmt: skip
def test_a_wrong_word_ends_as_a_line(words: tuple[str, ...], text: str) -> None:
    done = cli(*TABLE, *words)
    assert done.exit_code == 2 and text in done.stderr and "Traceback" not in done.stderr


def test_a_table_of_another_model_is_refused() -> None:
    done = cli(*TABLE, *TRACE, model="zoo:llama-3-8b")
    assert done.exit_code == 2 and "not of 'llama-3-8b'" in done.stderr


def test_a_model_without_a_table_is_one_of_the_zoo() -> None:
    done = cli(*TRACE)
    assert done.exit_code == 2 and "right is a decoder zoo:NAME" in done.stderr


def test_a_level_that_no_rate_keeps_is_said() -> None:
    done = cli(*TABLE, *TRACE, "--rate", "max", "--slo", "ttft=0.001")
    assert done.exit_code == 0 and "No rate keeps the level: one at a time" in done.output


def test_ways_are_printed_side_by_side(tmp_path: Path) -> None:
    page = tmp_path / "w.html"
    words = ("--requests", "60", "--over", "concurrency=1,8", "--over", "engines=1,2", "-o", str(page))
    shown = cli(*TABLE, *words).output
    for name in ("concurrency", "engines", "none is better"):
        assert name in shown
    assert "What a chip gives" in page.read_text()
    value = json.loads(cli(*TABLE, *words, "--json", "-").stdout)
    assert value["ways"][1]["way"] == {"concurrency": "1", "engines": "2"}
    assert [way["service"]["engines"] for way in value["ways"]] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--over", "engines"), "right is FLAG=VALUE,VALUE"),
        (("--over", "engines=1,,2"), "right is FLAG=VALUE,VALUE"),
        (("--over", "engine=1"), "unknown flag of --over 'engine'; did you mean 'engines'"),
        (("--over", "engines=x"), "--over engines=x: 'x' is not a valid integer range"),
        (("--over", "route=x"), "--over route=x"),
        (("--over", "engines=1", "--over", "engines=2"), "gives 'engines' twice"),
        (("--over", f"seed={','.join(map(str, range(300)))}"), "--over makes 300 ways"),
        (("--over", "engines=1", "--trace-out", "t.json"), "--trace-out is of one run"),
    ],
)
def test_ways_that_cannot_be_are_refused(words: tuple[str, ...], text: str) -> None:
    done = cli(*TABLE, "--rate", "2", "--requests", "9", *words)
    assert done.exit_code == 2 and text in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "--trace x.csv --input-tokens 5",
        "--trace x.csv --cv 1",
        "--concurrency 2 --cv 0",
        "--concurrency 2 --peak 1.5",
        "--peak 1.5 --cv 2 --rate 3",
        "--rate 3 --period 60",
    ],
)
def test_a_flag_that_the_load_does_not_read_is_refused(words: str) -> None:
    done = cli(*TABLE, *words.split())
    flags = [word for word in words.split() if word.startswith("--")]
    assert (
        done.exit_code == 2 and "does not go with" in done.stderr and all(f in done.stderr for f in flags[:2])
    )


def test_ways_are_the_same_on_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*TABLE, "--requests", "30", "--over", "concurrency=1,8", "--json", "-")
    found = []
    for workers in ("1", "2"):
        monkeypatch.setenv("MTIA_EMU_CACHE", str(tmp_path / workers))
        found.append(cli(*words, "--workers", workers).stdout)
    assert found[0] == found[1]
