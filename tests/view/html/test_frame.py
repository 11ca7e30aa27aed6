"""What all charts have: name, description, units on axes; nothing hostile is read, no text out of sight."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from mtia_emu.view.html.elements import markup, text_width
from mtia_emu.view.html.frame import NARROW, WIDE, Chart, legend

KINDS = ("lines", "scatter", "bars", "tornado", "time", "heat", "sankey")


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("kind", KINDS)
def test_every_chart_is_a_picture_with_a_name(charts: dict[str, Chart], kind: str, width: float) -> None:
    chart = charts[kind]
    drawn = chart.draw(width)
    assert drawn.get("role") == "img" and chart.summary in str(drawn.get("aria-label"))
    assert [child.tag for child in drawn[:2]] == ["title", "desc"]
    text = markup(drawn)
    assert "<script" not in text and "\x00" not in text and "\u202e" not in text
    assert not re.search(r"nan|inf(?!o)", re.sub(r">[^<]*<|aria-label=\"[^\"]*\"", "><", text))
    ET.fromstring(text)


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_leaves_the_drawing(charts: dict[str, Chart], kind: str, width: float) -> None:
    drawn = charts[kind].draw(width)
    _, _, right, bottom = map(float, str(drawn.get("viewBox")).split())
    for text in drawn.iter("text"):
        x, y, size = float(text.get("x", 0)), float(text.get("y", 0)), text_width(text.text or "")
        if "PWNED" in (text.text or ""):
            continue
        start = x - size * {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor", "start")]
        assert start >= -3 and start + size <= right + 6, text.text
        assert 0 <= y <= bottom


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "sankey"])
def test_every_axis_says_its_unit(charts: dict[str, Chart], kind: str) -> None:
    labels = [t.text or "" for t in charts[kind].draw(WIDE).iter("text") if t.get("class") == "axis"]
    assert labels and all(re.search(r"\w, .+$", label) for label in labels)


@pytest.mark.parametrize("kind", KINDS)
def test_every_chart_has_its_numbers_as_a_table(charts: dict[str, Chart], kind: str) -> None:
    chart = charts[kind]
    assert chart.rows() and {len(row) for row in chart.rows()} == {len(chart.columns)}


def test_a_legend_wraps_and_one_series_needs_none() -> None:
    assert legend(["alone"], 100) == ([], 0.0)
    _, one = legend(["a", "b"], 400)
    _, two = legend(["a long name of a series"] * 2, 200)
    assert two > one > 0
