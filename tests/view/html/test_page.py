"""A page is one file that asks for nothing: said of its text, and seen in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PROGRAM, WHY_NOT, Browser, pages_of

from mtia_emu.view.html import page as p
from mtia_emu.view.html.frame import Chart

HOSTILE = "<img src=http://example.com/x onerror=alert(1)>\u202e"
INPUTS = [
    ["price_usd", "25,000", "36,000", HOSTILE * 4, "analyst"],
    ["wacc_share", "0.06", "0.1", "none", "guess"],
]
needs_browser = pytest.mark.skipif(PROGRAM is None, reason=WHY_NOT)


@pytest.fixture
def text(charts: dict[str, Chart]) -> str:
    """Return a page with all there is."""
    tiles = [p.Tile(f"tile {i}", "1.02 M chips, 386 MW", HOSTILE) for i in range(4)]
    columns = ["input", "low", "high", "source", "status"]
    return p.page(
        f"A page {HOSTILE}",
        [
            p.header("A fleet", f"It pays with odds of 71% {HOSTILE}.", "a note"),
            p.tiles(tiles),
            *(p.figure(chart) for chart in charts.values()),
            p.section("Inputs", p.table(columns, INPUTS, shaded=[1]), p.paragraph(HOSTILE)),
            p.section("More", p.notes([HOSTILE, "b"]), size="half"),
            p.footer("mtia-emu"),
        ],
    )


def test_the_page_holds_no_script_and_no_address(text: str) -> None:
    assert not re.search(r"<(script|link|img|iframe|object|embed|base)\b", text)
    assert not re.search(
        r"(?:src|href|url)\s*[=(]\s*[\"']?\s*(?:https?:|//|data:)", text.replace("&lt;img src=", "")
    )
    assert "@import" not in text and "default-src 'none'" in text
    assert text.count("<h1>") == 1 and 'lang="en"' in text
    assert "\u202e" not in text and "&lt;img src=http" in text


def test_a_table_aligns_numbers_and_shades_rows() -> None:
    words = p.markup(p.table(["name", "cost"], [["a", "$3"], ["b", "-4"]], shaded=[1], caption="Costs"))
    assert words.count('class="number"') == 3 and '<tr class="shaded"><th scope="row">b' in words
    assert 'tabindex="0"' in words and 'aria-label="Costs"' in words


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser."""
    with Browser() as window:
        yield window


@pytest.fixture
def file(text: str, tmp_path: Path) -> Path:
    """Return the page as a file."""
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    return tmp_path / "page.html"


@needs_browser
@pytest.mark.parametrize("width", [360, 400, 1000, 1600])
def test_it_fits_every_width_says_nothing_and_fetches_nothing(
    browser: Browser, file: Path, width: int
) -> None:
    browser.open(file, width=width)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.said == [] and browser.asked == [file.as_uri()]
    for size in browser.ask(_FONT_SIZES):  # as drawn: an SVG's letters shrink with it
        assert 9.0 <= size <= 32.0
    assert browser.ask("[...document.querySelectorAll('figure')].every(f => f.querySelector('.drawing svg'))")


_FONT_SIZES = """[...document.querySelectorAll('svg text')].filter(t => t.getClientRects().length).map(t =>
  parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)"""
CONTRAST = """(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(v =>
    v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const under = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$|transparent/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
  const least = [1e9, ''];
  for (const e of document.querySelectorAll('h1, h2, p, dt, dd, td, th, li, summary, footer, svg text')) {
    const s = getComputedStyle(e), a = light(e.closest('svg') && e.tagName === 'text' ? s.fill : s.color);
    const b = light(under(e)), ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < least[0]) { least[0] = ratio; least[1] = e.outerHTML.slice(0, 80); } }
  return least; })()"""


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_letters_stand_out_in_light_and_in_dark(browser: Browser, file: Path, dark: bool) -> None:
    """WCAG 2.2 asks 4.5 of text and 3 of what is drawn."""
    browser.open(file, dark=dark)
    ratio, where = browser.ask(CONTRAST)
    assert ratio >= 4.5, where
    page = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", page)[:3])) < 200) == dark


@needs_browser
def test_the_keyboard_reaches_and_unfolds_every_figures_numbers(browser: Browser, file: Path) -> None:
    browser.open(file)
    figures = browser.ask("document.querySelectorAll('details').length")
    for _ in range(3 * figures):
        browser.press("Tab")
        if browser.ask("document.activeElement.tagName") == "SUMMARY":
            assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            browser.press("Enter")
        if browser.ask("document.querySelectorAll('details[open]').length") == figures:
            break
    assert browser.ask("document.querySelectorAll('details[open]').length") == figures == 7
    assert browser.ask("document.querySelector('details .scroll').tabIndex") == 0


@needs_browser
def test_it_prints_in_black_on_white_without_what_is_folded(browser: Browser, file: Path) -> None:
    browser.open(file, dark=True)
    browser.shape(700, dark=True, media="print")
    assert browser.ask("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert browser.ask("[...document.querySelectorAll('details')].every(d => !d.getClientRects().length)")
    browser.shape(1000)
    assert pages_of(browser.paper()) == 1
