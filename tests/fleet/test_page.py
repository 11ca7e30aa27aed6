"""The page of a fleet: what stands on it, and how it looks in a real browser, on a phone and on paper."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtia_emu.fleet.answer import FleetAnswer, fleet
from mtia_emu.fleet.page import changes, fleet_page, programme_of
from mtia_emu.fleet.verdict import verdict

sys.path.append(str(Path(__file__).parents[1]))

from browser import PROGRAM, WHY_NOT, Browser, pages_of

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("fleet-*.toml"))
needs_browser = pytest.mark.skipif(PROGRAM is None, reason=WHY_NOT)


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda x: x.stem)
def answer(request: pytest.FixtureRequest) -> FleetAnswer:
    """Return an example's answer."""
    return fleet(request.param, samples=2048)


@pytest.fixture(scope="module")
def text(answer: FleetAnswer) -> str:
    """Return its page."""
    return fleet_page(answer)


def test_line_one_is_the_verdict(answer: FleetAnswer, text: str) -> None:
    said = re.search(r'<p class="verdict">(.*?)</p>', text)
    assert said is not None and said[1] == verdict(answer, programme_of(answer))


def test_four_tiles_and_the_figures(answer: FleetAnswer, text: str) -> None:
    assert text.count("<dt>") == 4
    titles = re.findall(r"<figcaption><h2>(.*?)</h2>", text)
    found = programme_of(answer)
    assert titles[0] == "From the meter to the models" and "What it costs a year" in titles
    assert ("Odds against volume" in titles) == ("The programme in time" in titles) == (found is not None)
    shown = answer.option(answer.about).hourly is not None
    assert ("Carbon after purchases, by hour and month" in titles) == shown
    assert list(changes(answer, found))


def test_every_input_stands_with_source_and_status_and_guesses_are_shaded(
    answer: FleetAnswer, text: str
) -> None:
    every = text[text.index("All inputs") :]
    rows = re.findall(r"<tr(| class=\"shaded\")><th scope=\"row\">(.*?)</th>(.*?)</tr>", every)
    known = answer.scenario.quantities
    assert [name for _, name, _ in rows] == list(known)
    for shaded, name, rest in rows:
        assert bool(shaded) == known[name].is_unsure
        assert f"<td>{known[name].status}</td>" in rest and rest.count("<td") == 3


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser."""
    with Browser() as window:
        yield window


@needs_browser
def test_it_fits_phones_screens_and_one_sheet(browser: Browser, text: str, tmp_path: Path) -> None:
    file = tmp_path / "fleet.html"
    file.write_text(text, encoding="utf-8")
    for width in (360, 400, 1000, 1600):
        browser.open(file, width=width, dark=width == 400)
        assert browser.ask("document.documentElement.scrollWidth") <= width
        assert browser.said == [] and browser.asked == [file.as_uri()]
    assert pages_of(browser.paper()) == 1


@needs_browser
def test_no_two_names_of_the_sankey_touch(browser: Browser, text: str, tmp_path: Path) -> None:
    file = tmp_path / "fleet.html"
    file.write_text(text, encoding="utf-8")
    for width in (400, 1600):
        browser.open(file, width=width)
        script = """[...document.querySelectorAll('figure')][0].querySelectorAll('text.halo')"""
        boxes = browser.ask(
            f"[...{script}].map(t => t.getBoundingClientRect()).filter(b => b.width)"
            ".map(b => [b.left, b.top, b.right, b.bottom])"
        )
        assert len(boxes) > 5
        for number, (left, top, right, bottom) in enumerate(boxes):
            for a, b, c, d in boxes[:number]:
                across, down = min(right, c) - max(left, a), min(bottom, d) - max(top, b)
                assert across <= 1 or down <= 4, (width, number)
