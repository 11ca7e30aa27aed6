"""Quantiles and how sure they are."""

from __future__ import annotations

import numpy as np
import pytest

from mtia_emu.serving.quantiles import distribution


def test_quantiles_are_values_that_were_seen() -> None:
    found = distribution(np.arange(1.0, 101.0)[::-1].copy())
    assert found is not None
    assert (found.p50.value, found.p90.value, found.p99.value, found.mean.value) == (50, 90, 99, 50.5)
    assert found.p90.low <= 90 <= found.p90.high


def test_a_weight_is_how_often_a_value_counts() -> None:
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 8.0, 91.0])
    one, other = distribution(values, weights), distribution(np.repeat(values, weights.astype(int)))
    assert one and other and one.count == other.count == 100
    assert [one.p50.value, one.p99.value, one.mean.value] == [2, 2, pytest.approx(other.mean.value)]


def test_none_and_few() -> None:
    assert distribution(np.array([])) is None
    few = distribution(np.array([1.0, 2.0]))
    assert few and np.isnan(few.mean.low)
    unasked = distribution(np.arange(100.0), seed=None)
    assert unasked and np.isnan(unasked.mean.low)


def test_intervals_of_a_mean_cover_it_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(60):
        shocks = rng.normal(size=900)
        values = np.convolve(shocks, np.ones(5) / 5)[:900]  # neighbours are alike
        found = distribution(values, seed=1)
        assert found is not None
        inside += found.mean.low <= 0 <= found.mean.high
    assert 50 <= inside <= 60


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(1).exponential(size=500)
    assert distribution(values, seed=4) == distribution(values, seed=4)
    assert distribution(values, seed=4) != distribution(values, seed=5)
