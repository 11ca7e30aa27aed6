"""An explanation as a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import PROGRAM, WHY_NOT, Browser

from mtia_emu.results.explanation import Effect, Explanation, LayerTime, ParameterStep
from mtia_emu.results.report import FILL, Report
from mtia_emu.results.roofs import Roofs
from mtia_emu.view.explain_page import helps, verdict, where, write_explain_page

ROOFS = Roofs("fp16", 1.77e14, 5.5e12, 2.0e11, 2.7e12)
CHANNELS = Effect(ParameterStep("dram.channels", "", 16, 18, "retimed"), -0.09, -0.02)
CLOCK = Effect(ParameterStep("clock_hz", "Hz", 1.35e9, 1.485e9, "retimed"), 0.0, 0.01)
REFUSED = Effect(ParameterStep("grid.rows", "PEs", 8, 9, "recompiled"), refused="no such grid")


@pytest.fixture
def explanation(report: Report) -> Explanation:
    layers = tuple(
        LayerTime(x, n, {x.bound_by: 0.75 * x.cycles, FILL: 0.25 * x.cycles}, {x.bound_by: 0.75}, 0.5)
        for n, x in enumerate(report.layers)
    )
    return Explanation(report, ROOFS, layers, (CHANNELS, CLOCK, REFUSED), ("sram.bytes",))


def test_it_says_what_helps_most(explanation: Explanation, tmp_path: Path) -> None:
    assert verdict(explanation) == (
        "3.77 ms a run, 70.1% of them on dram; dram.channels helps most: -9.0% of the time for +12%."
    )
    write_explain_page(tmp_path / "e.html", explanation, "mtia-emu explain m.onnx")
    text = (tmp_path / "e.html").read_text(encoding="utf-8")
    for words in ("grid.rows = 9 was refused", "not judged", "1 of 2 parameters", "array", "+12.5%"):
        assert words in text, words
    assert text.count("<figure") == 5


def test_bars_are_in_proportion_to_a_tenth(explanation: Explanation) -> None:
    chart = helps([CHANNELS, CLOCK])
    assert [(bar.name, bar.total) for bar in chart.bars] == [("dram.channels", pytest.approx(7.2))]
    total = sum(bar.total for bar in where(explanation).bars)
    assert total == pytest.approx(sum(x.seconds for x in explanation.report.layers))


def test_without_what_if_there_is_a_page_too(explanation: Explanation, tmp_path: Path) -> None:
    write_explain_page(tmp_path / "e.html", replace(explanation, effects=None, left_out=()), "mtia-emu")
    assert (tmp_path / "e.html").read_text(encoding="utf-8").count("<figure") == 4


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as window:
        yield window


@pytest.mark.skipif(PROGRAM is None, reason=WHY_NOT)
@pytest.mark.parametrize("width", [360, 1600])
def test_a_browser_shows_it(browser: Browser, explanation: Explanation, tmp_path: Path, width: int) -> None:
    write_explain_page(tmp_path / "e.html", explanation, "mtia-emu")
    browser.open(tmp_path / "e.html", width=width)
    assert browser.ask("document.documentElement.scrollWidth") <= width and browser.said == []
