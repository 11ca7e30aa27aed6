"""A run's page and its tables: what stands in them, and means over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtia_emu.serving.arrivals import TokenLengths, gamma, synthetic
from mtia_emu.serving.handover import Handover
from mtia_emu.serving.printed import flow_rows, interval, latency_rows, verdict
from mtia_emu.serving.quantiles import Estimate95
from mtia_emu.serving.report_page import mean_over, write_report
from mtia_emu.serving.served import serve
from mtia_emu.serving.simulate import Service

from .flat import SYNCHRONOUS, FlatTable, load

SERVICE = Service(FlatTable(0.1), SYNCHRONOUS, blocks=100)  # type: ignore[arg-type]
LOAD = synthetic("even <b>", gamma(1.0, 60, 0.5), TokenLengths.fixed(4), TokenLengths.fixed(3))


def test_a_page_has_the_answer_first_and_no_markup_of_names(tmp_path: Path) -> None:
    served = serve(SERVICE, LOAD, "ttft=0.25,share=0.9", rate="max")
    write_report(tmp_path / "p.html", served)
    text = (tmp_path / "p.html").read_text()
    assert verdict(served) in text and "Which rate is kept" in text and "even &lt;b&gt;" in text
    assert "<script" not in text and "<b>" not in text and text.count("<svg") == 10


def test_engines_apart_are_named(tmp_path: Path) -> None:
    apart = Service(FlatTable(0.1), SYNCHRONOUS, blocks=100, handover=Handover(2, 1e9))  # type: ignore[arg-type]
    write_report(tmp_path / "p.html", serve(apart, LOAD))
    assert "2 for prompts and 1 engine for decoding" in (tmp_path / "p.html").read_text()


@pytest.mark.parametrize(
    ("level", "rate", "text"),
    [
        (None, None, "requests a second are served."),
        ("ttft=9", None, "The level is kept: 100.0% of the requests keep ttft 9 s (99% must)."),
        ("ttft=0.01", "max", "No rate keeps the level: one at a time, 0% of the requests keep the level"),
        ("ttft=99", "max", "the load is too small to fill the service."),
    ],
)
def test_the_verdict_is_one_sentence(level: str | None, rate: object, text: str) -> None:
    assert text in verdict(serve(SERVICE, LOAD, level, rate=rate))  # type: ignore[arg-type]


def test_what_does_not_exist_or_is_not_known_is_said() -> None:
    table = FlatTable(watts=float("nan"))
    found = serve(Service(table, SYNCHRONOUS, blocks=9), load((0.0, 1, 1))).answers  # type: ignore[arg-type]
    assert latency_rows(found)[1][:2] == ["per token after", "none"]
    assert ["energy", "not known", ""] in flow_rows(found)
    assert interval(Estimate95(1.0)) == "" and interval(Estimate95(1.0, 0.5, 2.0)) == "500 ms to 2 s"


def test_means_over_time_hold_what_is_held() -> None:
    start, end, held = np.array([0.0, 2.0]), np.array([1.0, 4.0]), np.array([3.0, 5.0])
    found = mean_over(start, end, held, np.array([0.0, 2.0, 3.0, 5.0]))
    assert found.tolist() == [1.5, 5.0, 2.5]
