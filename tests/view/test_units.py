"""Quantities as text, at the edges."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.view import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 s"),
        (-0.0, "0 s"),
        (0.0123, "12.3 ms"),
        (0.9996, "1.00 s"),
        (0.0009996, "1.00 ms"),
        (9.994e-7, "999 ns"),
        (9.996e-7, "1.00 us"),
        (1.0, "1 s"),
        (3600, "3,600 s"),
        (59.96, "60.0 s"),
        (1e7, "1.00e+07 s"),
        (1e-18, "1.00 as"),
        (1e-30, "1.00e-30 s"),
        (-0.0123, "-12.3 ms"),
        (math.nan, "nan s"),
        (math.inf, "inf s"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert units.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(59.0, "59 s"), (90.0, "1.50 min"), (3600.0, "1 h"), (11_136.6, "3.09 h"), (54 * 86_400, "54 days")],
)
def test_durations(value: float, text: str) -> None:
    assert units.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (4_200_000, "4.20 MB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (16_060_522_496, "16.1 GB"),
        (0.5, "0.500 B"),
        (2**80, "1.21e+24 B"),
        (-2048, "-2.05 kB"),
    ],
)
def test_size(value: float, text: str) -> None:
    assert units.size(value) == text


def test_other_quantities() -> None:
    assert units.joules(1.02) == "1.02 J"
    assert units.joules(3.2e-13) == "320 fJ"
    assert units.watts(82.94) == "82.9 W"
    assert units.hertz(1.35e9) == "1.35 GHz"
    assert units.count(8_030_000_000, "MAC") == "8.03 GMAC"
    assert units.count(12) == "12"
    assert units.ratio(0.1204) == "0.120x"
    assert units.ratio(1500) == "1,500x"
    assert units.percent(0.3414) == "34.1%"
    assert units.percent(1e-9) == "<0.1%"
    assert units.percent(0.0) == "0.0%"


@given(st.floats(min_value=1e-17, max_value=9e20))
def test_three_digits_are_right(value: float) -> None:
    number, _, unit = units.si(value, "J").partition(" ")
    factor = {prefix: 1000.0**i for i, prefix in enumerate("afpnum kMGTPE", -6)}
    shown = float(number.replace(",", "")) * factor.get(unit[:-1], 1.0)
    assert math.isclose(shown, value, rel_tol=0.00501)
    assert 1 <= float(number.replace(",", "")) < 1000


@given(st.lists(st.floats(min_value=0, max_value=1e12), min_size=1, max_size=20))
def test_percents_sum(parts: list[float]) -> None:
    texts = units.percents(parts)
    if sum(parts) == 0:
        assert texts == ["-"] * len(parts)
        return
    assert round(sum(float(text[:-1]) * 10 for text in texts)) == 1000
    exact = [100 * part / math.fsum(parts) for part in parts]
    assert all(abs(float(text[:-1]) - x) < 0.1001 for text, x in zip(texts, exact, strict=True))


def test_percents_of_what_is_no_whole() -> None:
    assert units.percents([]) == []
    assert units.percents([math.nan, 1.0]) == ["-", "-"]
    assert units.percents([math.inf, 1.0]) == ["-", "-"]
    assert units.percents([-1.0, 2.0]) == ["-", "-"]
    assert units.percents([1, 1, 1]) == ["33.4%", "33.3%", "33.3%"]


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (2048, "2,048 steps")]
)
def test_one_thing_is_not_many(number: int, text: str) -> None:
    assert units.many(number, "step") == text
