"""A check passes where every output is within tolerance, and every layer within what it is allowed."""

from __future__ import annotations

import math

import pytest

from mtia_emu.results.check import Check, LayerCheck


def layer(name: str, error: float) -> LayerCheck:
    return LayerCheck(name, "matmul", "k", 0, error, error, 0.004, 64)


@pytest.mark.parametrize(
    ("worst", "errors", "passed"),
    [
        (0.01, [], True),
        (0.011, [], False),
        (math.nan, [], False),
        (0.0, [0.004, 0.0], True),
        (0.0, [0.0, 0.0041], False),
        (0.0, [math.nan], False),
    ],
)
def test_all_must_be_within_bounds(worst: float, errors: list[float], passed: bool) -> None:
    layers = tuple(layer(f"l{i}", x) for i, x in enumerate(errors))
    assert Check(worst, worst, 0.01, layers=layers).passed == passed


def test_the_first_wrong_layer_is_named() -> None:
    layers = (layer("a", 0.0), layer("b", 1.0), layer("c", 2.0))
    assert Check(0.0, 0.0, 0.01, layers=layers).first_wrong == layers[1]
    assert Check(0.0, 0.0, 0.01, layers=layers[:1]).first_wrong is None
