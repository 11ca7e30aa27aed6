"""A load served as it comes, at a rate, at the greatest rate; and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtia_emu.errors import UserError
from mtia_emu.files.writing import json_text
from mtia_emu.serving.answers_json import SCHEMA, as_json
from mtia_emu.serving.arrivals import TokenLengths, gamma, synthetic
from mtia_emu.serving.handover import Handover
from mtia_emu.serving.rules import EngineRules
from mtia_emu.serving.served import fitted, serve
from mtia_emu.serving.simulate import Service

from .flat import SYNCHRONOUS, FlatTable, load
from .tables import toy_table

SERVICE = Service(FlatTable(0.1), SYNCHRONOUS, blocks=100)  # type: ignore[arg-type]
LOAD = synthetic("even", gamma(1.0, 60, 0), TokenLengths.fixed(4), TokenLengths.fixed(3))


def test_a_trace_file_is_played_as_it_comes_or_at_a_rate(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("arrival_s,input_tokens,output_tokens\n0,4,3\n5,4,3\n10,4,3\n")
    assert serve(SERVICE, str(file)).answers.offered_rate_per_s == pytest.approx(0.2)
    assert serve(SERVICE, str(file), rate=4.0).answers.offered_rate_per_s == pytest.approx(4.0)


def test_the_greatest_rate_is_that_of_the_run_it_answers_with() -> None:
    found = serve(SERVICE, LOAD, "ttft=0.15,share=0.9", rate="max")
    assert found.greatest is not None and found.greatest.rate_per_s is not None
    assert found.answers.offered_rate_per_s == pytest.approx(found.greatest.rate_per_s)
    assert found.answers.keeps_level


def test_where_no_rate_keeps_the_level_the_answers_are_of_one_at_a_time() -> None:
    found = serve(SERVICE, LOAD, "ttft=0.01", rate="max")
    assert found.greatest is not None and found.greatest.rate_per_s is None
    assert found.answers.fullness.most_waiting == 0 and found.answers.keeps_level is False


def test_the_greatest_rate_needs_a_level() -> None:
    with pytest.raises(UserError, match="needs a service level"):
        serve(SERVICE, LOAD, rate="max")


def test_rules_are_cut_to_what_a_table_knows() -> None:
    rules = fitted(EngineRules(), toy_table().limits)
    assert (rules.token_budget, rules.max_sequences) == (64, 32)


def test_rules_beyond_a_table_are_refused() -> None:
    for rules, text in (
        (EngineRules(token_budget=100, max_sequences=8),
         "a step may have 100 tokens, and the step table of toy ends at 64"),
        (EngineRules(token_budget=64, max_sequences=40), "a step may decode 40 sequences"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=text):
            serve(Service(toy_table(), rules, blocks=100), load((0.0, 4, 3)))


def test_all_that_is_said_is_json() -> None:
    table = FlatTable(0.1, watts=float("nan"))
    apart = Service(table, SYNCHRONOUS, blocks=100, handover=Handover(1, 1e9))  # type: ignore[arg-type]
    value = json.loads(json_text(as_json(serve(apart, LOAD, "ttft=1", rate="max"))))
    assert value["schema"] == SCHEMA and value["service"]["handover"]["engines"] == 1
    found = value["answers"]
    assert found["joules"] is None and found["ttft_s"]["p99"]["value"] > 0
    assert found["level"]["tpot"] is None and found["keeps_level"] is True
    assert value["greatest_rate"]["tried"] and value["load"]["requests"] == 60
    assert set(found["fullness"]) == {
        "mean_decoding",
        "mean_waiting",
        "most_waiting",
        "cache_mean",
        "cache_most",
    }
