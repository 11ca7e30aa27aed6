"""Curves and surfaces between anchors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.serving.surfaces import Curve, MixedRatio, Surface

X, Y = np.array([1.0, 2, 8, 64]), np.array([16.0, 64, 256, 1024, 4096])
VALUES = np.random.default_rng(0).random((4, 5, 3))
SURFACE = Surface(X, Y, VALUES)
contexts = st.lists(st.integers(1, 4000), min_size=1, max_size=20)


def test_a_curve_is_linear_between_anchors_and_constant_below_the_first() -> None:
    values = np.array([[1.0, 10, 0], [3, 50, 1]])
    curve = Curve(np.array([4.0, 8]), values)
    assert curve.at(5).tolist() == [1.5, 20, 0.25]
    assert curve.at(1).tolist() == curve.at(4).tolist() == [1, 10, 0]
    assert curve.at(8).tolist() == [3, 50, 1] and curve.last == 8


@given(st.integers(1, 64), st.integers(16, 4096))
def test_a_surface_is_scipys_linear_interpolation(x: int, y: int) -> None:
    interpolate = pytest.importorskip("scipy.interpolate")
    right = interpolate.RegularGridInterpolator((X, Y), VALUES)([[x, y]])[0]
    np.testing.assert_allclose(SURFACE.each([x], [y])[0], right, rtol=1e-12)
    np.testing.assert_allclose(SURFACE.mean(x, np.array([y])), right, rtol=1e-9)


@given(st.integers(1, 64), contexts, st.integers(1, 90))
def test_means_are_those_of_each_point(x: int, y: list[int], steps: int) -> None:
    at = np.array(y)
    points = SURFACE.each([x] * len(y), y)
    np.testing.assert_allclose(SURFACE.mean(x, at), points.mean(0), rtol=1e-9)
    later = SURFACE.means(x, at, steps)
    assert later.shape == (steps, 3)
    np.testing.assert_allclose(later[-1], SURFACE.mean(x, at + steps - 1), rtol=1e-9)


def test_a_surface_of_one_anchor_is_constant() -> None:
    one = Surface(np.array([4.0]), np.array([8.0]), np.array([[[1.0, 2, 3]]]))
    assert one.each([2, 4], [8, 1]).tolist() == [[1, 2, 3]] * 2
    assert one.mean(3, np.array([1, 8])).tolist() == [1, 2, 3]


@given(st.tuples(st.floats(1, 9), st.floats(0, 9), st.floats(1, 9), st.floats(1, 9)))
def test_a_mixed_ratio_is_scipys_inside_and_the_edges_outside(point: tuple[float, ...]) -> None:
    interpolate = pytest.importorskip("scipy.interpolate")
    axes = tuple(np.array(a, float) for a in ([1, 4], [0, 2, 8], [1, 8], [2, 4, 8]))
    ratios = np.random.default_rng(1).random((2, 3, 2, 3))
    held = [np.clip(x, a[0], a[-1]) for x, a in zip(point, axes, strict=True)]
    right = interpolate.RegularGridInterpolator(axes, ratios)([held])[0]
    assert MixedRatio(axes, ratios).at(point) == pytest.approx(right, rel=1e-12)
