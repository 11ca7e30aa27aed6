"""A run as a page: what it says, that it stays small, and that a browser shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import PROGRAM, WHY_NOT, Browser
from relayered import relayered

from mtia_emu.results.check import Check
from mtia_emu.results.report import Report
from mtia_emu.results.roofs import Roofs
from mtia_emu.view import run_charts as charts
from mtia_emu.view.html.activity import Busy
from mtia_emu.view.html.frame import SERIES
from mtia_emu.view.run_page import RunPage, verdict, write_run_page

ROOFS = Roofs("fp16", 1.77e14, 5.5e12, 2.0e11, 2.7e12)
LANES = (Busy("launch", [0.5, 0.0, 0.0, 0.25]), Busy("dma", [0.0, 1.0, 0.5, 0.0]))
STRIP = ("launch", "dram", "dram", "")
HOSTILE = "<img src=http://example.com/x onerror=alert(1)>\u202e"
needs_browser = pytest.mark.skipif(PROGRAM is None, reason=WHY_NOT)


@pytest.fixture
def shown(report: Report, gpu: Report, check: Check) -> RunPage:
    return RunPage(report, LANES, STRIP, ROOFS, gpu, check, origin="mtia-emu run model.onnx")


def written(shown: RunPage, folder: Path) -> str:
    write_run_page(folder / "run.html", shown)
    return (folder / "run.html").read_text(encoding="utf-8")


def test_it_says_what_the_terminal_says(shown: RunPage, tmp_path: Path) -> None:
    text = written(shown, tmp_path)
    for words in (
        "3.77 ms and 114 mJ a run, bound by dram for 93% of the time and by array next",
        "0.151x as fast as a100-sxm-80gb",
        "80 % band 0.136x to 0.174x",
        "in 4 parts of 943 us each",
        "All rest for 50% of the time, at most 943 us on end, from 0 s on.",
        "DRAM takes 41% of 114 mJ",
        "24 of 24 layers",
        "Passed: largest relative error 0.00072, tolerance 0.01.",
        "the KV cache is read from DRAM at every step",
        "chip, memory and the board",
        "mtia-emu run model.onnx",
    ):
        assert words in text, words
    assert text.count("<figure") == 8


def test_a_run_without_gpu_check_layers_or_roofs_is_a_page_too(shown: RunPage, tmp_path: Path) -> None:
    bare = replace(shown, gpu=None, check=None, roofs=None, lanes=(), strip=())
    assert written(bare, tmp_path).count("<figure") == 4
    nothing = replace(bare, report=relayered(shown.report, []))
    assert "a run." in verdict(nothing) and "<figure" not in written(nothing, tmp_path)


def test_names_are_text_whatever_they_hold(shown: RunPage, tmp_path: Path) -> None:
    layers = [replace(x, name=HOSTILE, op=HOSTILE) for x in shown.report.layers]
    text = written(replace(shown, report=relayered(shown.report, layers)), tmp_path)
    seen: set[str] = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _: seen.add(tag)  # type: ignore[method-assign]
    parser.feed(text)
    assert "svg" in seen and not seen & {"img", "script", "a", "link", "iframe", "foreignobject"}
    assert "\u202e" not in text and "&lt;img src" in text


def test_a_hundred_thousand_layers_make_no_larger_page(shown: RunPage, tmp_path: Path) -> None:
    layers = [
        replace(x, name=f"layer.{n}", op=f"op{n % 977}", start_cycle=10 * n, end_cycle=10 * n + 1 + n % 9,
                ops=n, bound_by=f"unit{n % 12}")
        for n, x in zip(range(100_000), shown.report.layers * 4200, strict=False)
    ]  # fmt: skip
    large = relayered(shown.report, layers, cycles=1_000_000)
    assert len(written(replace(shown, report=large), tmp_path)) < 400_000


def test_bars_sum_to_the_run(report: Report) -> None:
    time = charts.time_by_op(report)
    assert sum(bar.total for bar in time.bars) == pytest.approx(report.track_seconds)
    assert sum(bar.total for bar in charts.joules_by_part(report).bars) == pytest.approx(report.joules)
    second = charts.second(report)
    assert second is not None
    assert sum(bar.total for bar in second.bars) == pytest.approx(sum(x.seconds for x in report.layers))
    assert second.bars[0].parts[1] / second.bars[0].total == pytest.approx(0.25)


def test_too_many_kinds_share_the_last_colour() -> None:
    assert charts.coloured({f"k{n}": float(n) for n in range(9)})[-1] == charts.OTHERS
    assert len(charts.coloured({f"k{n}": float(n) for n in range(9)})) == SERIES
    assert charts.coloured({"a": 1.0, "b": 2.0}) == ("b", "a")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as window:
        yield window


@needs_browser
@pytest.mark.parametrize("width", [360, 800, 1600])
def test_a_browser_shows_it_at_every_width(
    browser: Browser, shown: RunPage, tmp_path: Path, width: int
) -> None:
    written(shown, tmp_path)
    file = tmp_path / "run.html"
    browser.open(file, width=width)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.said == [] and browser.asked == [file.as_uri()]
    sizes = browser.ask(
        "[...document.querySelectorAll('svg text')].filter(t => t.getClientRects().length)"
        ".map(t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)"
    )
    assert sizes and all(9.0 <= size <= 32.0 for size in sizes)
    browser.ask("document.querySelector('summary').click()")
    assert browser.ask("document.querySelector('details[open] table').rows.length") == len(LANES) + 1


@needs_browser
def test_every_figure_is_named_for_those_who_hear_it(
    browser: Browser, shown: RunPage, tmp_path: Path
) -> None:
    written(shown, tmp_path)
    browser.open(tmp_path / "run.html", dark=True)
    names = browser.ask("[...document.querySelectorAll('svg')].map(s => s.getAttribute('aria-label'))")
    assert all(re.match(r"[A-Z].+\. .+", name) for name in names)
    script = "[...document.querySelectorAll('svg')].map(s => ['.axis', '.tick'].map("
    script += "c => [...s.querySelectorAll(c)].map(t => t.textContent)))"
    figures = browser.ask(script)
    assert any(labels for labels, _ in figures)
    for labels, ticks in figures:  # a unit stands at the axis, or at each of its numbers
        for text in labels:
            assert re.search(r"[\w)], \S+$", text) or all(re.search(r"\d \S*[sJ]$", tick) for tick in ticks)
