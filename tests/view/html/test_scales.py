"""Scales hold their values, ticks are round and inside; numbers are written as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.view import units
from mtia_emu.view.html.scales import ChartAxis, dollars, plain, scale, share

NUMBERS = st.lists(st.floats(-1e15, 1e15), min_size=1, max_size=9)


@given(NUMBERS, st.booleans(), st.integers(1, 9))
def test_a_linear_scale_keeps_order_and_its_ticks_lie_inside(
    values: list[float], zero: bool, most: int
) -> None:
    on = scale(values, (10.0, 300.0), zero=zero)
    pixels = [on(v) for v in sorted(values)]
    assert pixels == sorted(pixels) and 10.0 - 1e-6 <= pixels[0] <= pixels[-1] <= 300.0 + 1e-6
    ticks = on.ticks(most)
    slack = 1e-6 * (on.high - on.low)
    assert len(ticks) <= most + 1
    assert all(on.low - slack <= t <= on.high + slack for t in ticks)
    assert not zero or on.low <= 0 <= on.high


@given(st.lists(st.floats(1e-9, 1e15), min_size=1, max_size=9), st.integers(2, 9))
def test_a_logarithmic_scale_has_round_ticks(values: list[float], most: int) -> None:
    on = scale([*values, -1.0, 0.0], (0.0, 100.0), log=True)
    assert on.low > 0
    for tick in on.ticks(most):
        digits = tick / 10.0 ** math.floor(math.log10(tick) + 1e-9)
        assert min(abs(digits - d) for d in (1, 2, 3, 5)) < 1e-6
    if on.high / on.low > 1.01:
        assert abs(on(math.sqrt(on.low * on.high)) - 50.0) < 1e-6


def test_a_scale_of_nothing_is_one() -> None:
    assert scale([math.nan], (0.0, 1.0)).ticks(4)
    assert scale([], (0.0, 1.0), log=True).ticks(4)


def test_numbers_for_people() -> None:
    assert [plain(v) for v in (0, 0.25, 12, 999.96, 1234.5, 9999, 99_000, 352_400, 1.02e6, 3.38e12)] == [
        "0", "0.25", "12", "1,000", "1,234", "9,999", "99 k", "352 k", "1.02 M", "3.38 T",
    ]  # fmt: skip
    assert [dollars(v) for v in (-1.2e9, 2.72e8, 45_900, 3100)] == ["-$1.2 B", "$272 M", "$45.9 k", "$3,100"]
    assert [share(v) for v in (0, 0.001, 0.44, 0.999, 1)] == ["0%", "0.1%", "44%", "99.9%", "100%"]


def test_an_axis_without_a_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="has no unit"):
        ChartAxis("odds", "")
    assert ChartAxis("power", "MW").label == "power, MW" and ChartAxis("power", "MW").amount(386) == "386 MW"
    assert ChartAxis("NPV", "$", show=dollars).amount(1e9) == "$1 B"


def test_a_unit_stands_at_the_axis_or_at_its_numbers() -> None:
    assert ChartAxis("die area", "mm2").label == "die area, mm2"
    assert ChartAxis("cost", "$", show=dollars).label == "cost, $"
    timed = ChartAxis("time", "s", show=units.seconds)
    assert (timed.label, timed.headed("rest"), timed.amount(0.02)) == ("time", "rest", "20.0 ms")
