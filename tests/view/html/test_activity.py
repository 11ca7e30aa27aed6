"""Lanes over time: as high as they are busy, their rests where they are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.view.html.activity import MOST_LANES, TALL, ActivityChart, Busy, busiest, rests
from mtia_emu.view.html.elements import markup
from mtia_emu.view.html.scales import ChartAxis

TIME = ChartAxis("time", "s")
SHARES = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=1, max_size=30)


def chart(*lanes: Busy, strip: tuple[str, ...] = ()) -> ActivityChart:
    kinds = tuple(dict.fromkeys(filter(None, strip)))
    return ActivityChart("When", "What ran.", TIME, 8.0, lanes, strip, kinds)


def test_rows_say_how_busy_and_where_the_longest_rest_is() -> None:
    """Parts of 2 s: busy 1, 0, 0, 0.5; the rest lasts 4 s from second 2 on."""
    drawn = chart(Busy("dma", [1.0, 0.0, 0.0, 0.5]), Busy("simd", [1.0] * 4))
    assert drawn.rows() == [["dma", "38%", "4", "2"], ["simd", "100%", "0", "0"]]


@given(SHARES)
def test_the_longest_rest_is_a_rest_and_no_longer_one_is(shares: list[float]) -> None:
    start, length = Busy("x", shares).longest_gap()
    assert not any(shares[start : start + length])
    assert (
        max(map(len, re.findall("0+", "".join("0" if not v else "1" for v in shares))), default=0) == length
    )


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5]), st.sampled_from([0.0, 0.5])), min_size=1, max_size=20))
def test_all_rest_where_no_lane_is_busy(pairs: list[tuple[float, float]]) -> None:
    lanes = [Busy("a", [a for a, _ in pairs]), Busy("b", [b for _, b in pairs])]
    idle, start, length = rests(lanes)
    assert idle == pytest.approx(sum(a + b == 0 for a, b in pairs) / len(pairs))
    assert all(a + b == 0 for a, b in pairs[start : start + length])
    assert rests([]) == (0.0, 0, 0)


def test_a_lane_is_drawn_as_high_as_it_is_busy() -> None:
    text = markup(chart(Busy("dma", [1.0, 0.5, 0.5, 0.0])).draw(720.0))
    (outline,) = re.findall(r'd="(M[^"]*Z)"', text)
    heights = [float(v) for v in re.findall(r"V([\d.]+)", outline)]
    assert [heights[-1] - v for v in heights] == pytest.approx([TALL, TALL / 2, 0.0, 0.0], abs=0.11)
    assert outline.count("H") == 3  # equal parts are one step


def test_what_bounds_is_a_strip_with_gaps() -> None:
    strip = ("dram", "dram", "", "launch")
    text = markup(chart(Busy("dma", [1.0, 1.0, 0.0, 1.0]), strip=strip).draw(380.0))
    assert "dram: 0 to 4" in text and "launch: 6 to 8" in text and "what bounds" in text


def test_of_many_lanes_the_busiest_are_drawn_and_all_are_listed() -> None:
    lanes = [Busy(f"l{n}", [n / 99]) for n in range(99)]
    assert [x.name for x in busiest(lanes, 2)] == ["l97", "l98"]
    drawn = chart(*lanes)
    assert markup(drawn.draw(720.0)).count("<path") == MOST_LANES and len(drawn.rows()) == 99
