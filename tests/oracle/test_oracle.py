"""How far outputs are from onnxruntime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtia_emu.errors import UserError
from mtia_emu.oracle import compare_outputs, onnxruntime_outputs

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("got", "expected", "absolute", "relative"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0, 0),
        ([1.0, 2.5], [1.0, 2.0], 0.5, 0.25),
        ([0.0, 0.5], [0.0, 0.0], 0.5, 0.5),
        ([INF, -INF, NAN], [INF, -INF, NAN], 0, 0),
        ([1.0, INF], [1.0, 2.0], INF, INF),
        ([1.0, 2.0], [1.0, INF], INF, INF),
        ([NAN, 2.0], [1.0, 2.0], INF, INF),
        ([INF], [-INF], INF, INF),
        ([4.0, INF], [5.0, INF], 1, 0.2),
        ([], [], 0, 0),
    ],
)
def test_distance(got: list[float], expected: list[float], absolute: float, relative: float) -> None:
    check = compare_outputs({"y": np.array(got)}, {"y": np.array(expected)}, 0.1)
    assert (check.max_abs_error, check.max_rel_error) == (absolute, relative)
    assert check.passed == (relative <= 0.1)


def test_cosine_and_signal_to_noise() -> None:
    (found,) = compare_outputs({"y": np.array([3.0, 4.0])}, {"y": np.array([3.0, 3.0])}, 1).outputs.values()
    assert found.cosine == pytest.approx(21 / (5 * 18**0.5))
    assert found.sqnr_db == pytest.approx(10 * np.log10(18))
    for got, expected in (([0.0], [0.0]), ([INF], [1.0])):
        (found,) = compare_outputs({"y": np.array(got)}, {"y": np.array(expected)}, 1).outputs.values()
        assert (found.cosine, found.sqnr_db) == (None, None)


def test_scalars_booleans_and_integers() -> None:
    got = {"a": np.array(3.0), "b": np.array([True]), "c": np.array([7], np.uint8)}
    expected = {"a": np.array(3.0), "b": np.array([True]), "c": np.array([9], np.uint8)}
    check = compare_outputs(got, expected, 1e-2)
    assert [d.max_abs_error for d in check.outputs.values()] == [0, 0, 2]


def test_outputs_that_are_missing_or_of_another_shape_fail() -> None:
    for got in ({}, {"y": np.zeros((2, 1))}):
        assert not compare_outputs(got, {"y": np.zeros(2)}, 1e9).passed


def test_what_onnxruntime_refuses(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(
        UserError, match=r"onnxruntime cannot run m\.onnx, so there is nothing to check against"
    ):
        onnxruntime_outputs(tmp_path / "m.onnx", {})
