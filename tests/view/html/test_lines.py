"""Lines have gaps where nothing is known; bands lie about them; the front is filled."""

from __future__ import annotations

import math

from mtia_emu.view.html.frame import WIDE
from mtia_emu.view.html.lines import Line, LineChart, Marked, ScatterChart, Spot
from mtia_emu.view.html.scales import ChartAxis

X, Y = ChartAxis("load", "requests/s"), ChartAxis("time", "ms")


def test_a_gap_parts_a_line() -> None:
    chart = LineChart("t", "s", X, Y, [Line("a", [1, 2, 3, 4, 5], [1, 2, math.nan, 4, 5])])
    drawn = chart.draw(WIDE)
    assert len([p for p in drawn.iter("path") if "line" in str(p.get("class"))]) == 2
    assert len(list(drawn.iter("circle"))) == 4


def test_bands_and_marks() -> None:
    line = Line("a", [1, 10, 100], [1, 2, 3], [0.5, 1, 2], [2, 3, 4])
    chart = LineChart("t", "s", X, Y, [line], [Marked(10, "here")], zero=True)
    drawn = chart.draw(WIDE)
    assert any("band" in str(p.get("class")) for p in drawn.iter("path"))
    assert any(t.text == "here" for t in drawn.iter("text"))
    assert chart.rows()[1] == ["a", "10", "2", "1", "3"]


def test_long_lines_have_short_tables() -> None:
    many = list(range(1000))
    assert len(LineChart("t", "s", X, Y, [Line("a", many, many)]).rows()) <= 40


def test_the_front_is_filled() -> None:
    spots = [Spot("a", 1, 2, front=True), Spot("b", 2, 3)]
    circles = list(ScatterChart("t", "s", X, Y, spots).draw(WIDE).iter("circle"))
    assert ["hollow" in str(c.get("class")) for c in circles] == [False, True]
