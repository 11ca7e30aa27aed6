"""Numbers with bands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mtia_emu.fleet.quantity import Quantity, Shape

POINTS = np.linspace(0, 1, 101)


def quantity(shape: Shape, low: float = 1.0, value: float = 2.0, high: float = 5.0) -> Quantity:
    return Quantity(value=value, low=low, high=high, shape=shape, source="x", status="guess")


@pytest.mark.parametrize(
    ("shape", "law"),
    [
        ("uniform", stats.uniform(1, 4)),
        ("log-uniform", stats.loguniform(1, 5)),
        ("triangular", stats.triang(0.25, 1, 4)),
    ],
)
def test_points_are_quantiles_of_the_law(shape: Shape, law: object) -> None:
    np.testing.assert_allclose(quantity(shape).at(POINTS), law.ppf(POINTS), rtol=1e-12)  # type: ignore[attr-defined]


def test_a_number_without_a_band_is_fixed() -> None:
    fixed = Quantity(value=3.0, source="x", status="quoted")
    assert not fixed.varies and (fixed.at(POINTS) == 3).all()


@given(st.floats(0.01, 100), st.sampled_from(["uniform", "log-uniform", "triangular"]))
def test_a_scaled_number_is_scaled_at_every_point(factor: float, shape: Shape) -> None:
    one = quantity(shape)
    np.testing.assert_allclose(one.scaled(factor).at(POINTS), one.at(POINTS) * factor, rtol=1e-9)
