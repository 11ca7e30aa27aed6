"""Arrivals by law: rate, spread and shape; the same seed, the same requests."""

from __future__ import annotations

import numpy as np
import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.arrivals import TokenLengths, closed_loop, diurnal, gamma, poisson, synthetic


@pytest.mark.parametrize("cv", [0.5, 1.0, 4.0])
def test_gaps_have_the_rate_and_the_spread_asked_for(cv: float) -> None:
    gaps = np.diff(gamma(5.0, 200_000, cv, seed=3))
    assert gaps.mean() == pytest.approx(0.2, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_poisson_is_gamma_of_one_and_none_is_even() -> None:
    assert np.array_equal(poisson(2.0, 10, seed=1), gamma(2.0, 10, 1.0, seed=1))
    assert np.allclose(np.diff(gamma(4.0, 10, 0)), 0.25)
    assert not np.array_equal(poisson(2.0, 10, seed=1), poisson(2.0, 10, seed=2))


def test_a_day_has_its_peak_in_its_first_half() -> None:
    times = diurnal(100.0, 100_000, peak_to_mean=2.0, period_s=1000.0, seed=1)
    counts, _ = np.histogram(times, bins=np.linspace(0, 1000, 5))
    # a sine about 1: quarters hold 1/4 of the mean and 1/(2 pi) more or less
    share = 1 / (2 * np.pi)
    assert counts / 100_000 == pytest.approx(
        np.array([0.25 + share, 0.25 + share, 0.25 - share, 0.25 - share]), abs=0.01
    )
    assert (np.diff(times) >= 0).all()


def test_a_flat_day_is_poisson() -> None:
    assert np.allclose(diurnal(5.0, 50, peak_to_mean=1.0, seed=4), poisson(5.0, 50, seed=4))


def test_lengths_come_by_their_weights() -> None:
    lengths = TokenLengths(np.array([10, 20]), np.array([1.0, 3.0]))
    drawn = synthetic("x", poisson(1.0, 40_000), lengths, TokenLengths.fixed(7), seed=2)
    assert (drawn.input_tokens == 20).mean() == pytest.approx(0.75, abs=0.01)
    assert set(drawn.output_tokens.tolist()) == {7}
    ranges = TokenLengths(np.array([10]), np.ones(1), np.array([13]))
    assert set(ranges.draw(np.random.default_rng(0), 200).tolist()) == {10, 11, 12}


def test_a_closed_loop_says_how_many_are_open() -> None:
    assert closed_loop(4, 9, TokenLengths.fixed(1), TokenLengths.fixed(1)).concurrency == 4


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: poisson(0, 5), "a rate of 0"),
        (lambda: poisson(float("nan"), 5), "a rate of nan"),
        (lambda: poisson(1, 0), "0 requests"),
        (lambda: gamma(1, 5, -1), "coefficient of variation of -1"),
        (lambda: diurnal(1, 5, peak_to_mean=3), "a peak of 3 times"),
        (lambda: diurnal(1, 5, period_s=0), "a period of 0 s"),
    ],
)
def test_laws_that_cannot_be_are_refused(call: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        call()  # type: ignore[operator]
