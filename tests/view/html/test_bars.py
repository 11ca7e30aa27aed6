"""Bars have the length of their amounts; the widest swing stands first."""

from __future__ import annotations

import pytest

from mtia_emu.view.html.bars import BarChart, Period, StackedBar, TimeChart, Tornado, TornadoBar
from mtia_emu.view.html.elements import Element
from mtia_emu.view.html.frame import NARROW, WIDE
from mtia_emu.view.html.scales import ChartAxis

USD = ChartAxis("cost", "$")


def _boxes(drawn: Element) -> list[float]:
    return [float(r.get("width", 0)) for r in drawn.iter("rect") if r.find("title") is not None]


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_bars_are_as_long_as_their_amounts(width: float) -> None:
    chart = BarChart("t", "s", USD, [StackedBar("a", [10, 30]), StackedBar("b", [20, 0])], ["x", "y"])
    a, b, c, d = _boxes(chart.draw(width))
    assert abs(b - 3 * a) < 0.1 and abs(c - 2 * a) < 0.1 and d == 0
    assert chart.rows()[0] == ["a", "10", "30", "40", "", ""]


def test_parts_are_those_of_the_chart() -> None:
    with pytest.raises(ValueError, match="one for each name"):
        BarChart("t", "s", USD, [StackedBar("a", [1.0, 2.0])])
    with pytest.raises(ValueError, match="none below 0"):
        BarChart("t", "s", USD, [StackedBar("a", [-1.0])])


def test_the_widest_swing_stands_first_and_guesses_are_marked() -> None:
    swings = [TornadoBar("small", 9, 11), TornadoBar("wide", 20, 0, guess=True)]
    chart = Tornado("t", "s", USD, 10, swings)
    assert [row[0] for row in chart.rows()] == ["wide", "small"]
    drawn = chart.draw(WIDE)
    guessed = [r for r in drawn.iter("rect") if "guess" in str(r.get("class"))]
    assert len(guessed) == 2 and any("(guess)" in (t.text or "") for t in drawn.iter("text"))


def test_what_may_come_later_is_pale() -> None:
    chart = TimeChart("t", "s", ChartAxis("time", "weeks"), [Period("a", 0, 10, 20), Period("b", 10, 15)])
    pale = [r for r in chart.draw(WIDE).iter("rect") if "pale" in str(r.get("class"))]
    assert len(pale) == 1 and chart.rows()[1] == ["b", "10", "15", ""]
