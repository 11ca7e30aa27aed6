"""Ranges of values over samples, and where the samples come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.inputs.calibrate import Magnitudes, magnitudes, samples_of

from mtia_emu.errors import UserError

GRAPH = text.parse("""graph g {
  in %x : fp32[2,2]
  %y : fp32[2,2] = mul(%x, %x)
  out %y
}""")


def test_the_largest_magnitude_over_all_samples_counts() -> None:
    samples = [{"x": np.full((2, 2), v, np.float32)} for v in (1.0, -3.0, np.inf, 2.0)]
    found = magnitudes(GRAPH, {"x", "y"}, iter(samples))
    assert {name: m.largest for name, m in found.items()} == {"x": 3.0, "y": 9.0}


def test_outliers_are_cut_off_where_that_lessens_the_squared_error() -> None:
    rng = np.random.default_rng(0)
    values = np.append(rng.standard_normal(100_000), 40.0)
    seen = Magnitudes()
    seen.add(values)

    def error(top: float) -> float:
        step = top / 127
        return float(((np.clip(np.round(values / step), -127, 127) * step - values) ** 2).mean())

    chosen = seen.top(127)
    assert 5 < chosen < 40 and error(chosen) < error(40.0)
    assert error(chosen) <= 1.02 * min(error(top) for top in np.linspace(5, 40, 200))


@pytest.mark.parametrize("values", [np.zeros(3), np.full(9, 2.5), np.array([1e-30, np.nan, np.inf])])
def test_a_single_magnitude_is_the_top(values: np.ndarray) -> None:
    seen = Magnitudes()
    seen.add(values)
    assert seen.top(127) == seen.largest


def test_numbers_that_are_not_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "io.npz"
    np.savez(path, x=np.full((2, 2), np.nan))
    with pytest.raises(UserError, match="input x holds NaN"):
        list(samples_of(GRAPH, str(path)))


def test_random_samples_are_the_same_for_the_same_number() -> None:
    first, second = (list(samples_of(GRAPH, "3")) for _ in range(2))
    assert len(first) == 3 and all((a["x"] == b["x"]).all() for a, b in zip(first, second, strict=True))


def test_a_file_is_one_sample(tmp_path: Path) -> None:
    path = tmp_path / "io.npz"
    np.savez(path, **{"in:x": np.ones((2, 2)), "out:y": np.ones((2, 2))})
    (sample,) = samples_of(GRAPH, str(path))
    assert sample["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("0", "right: 1 to 1024"),
        ("many", "neither a number of samples nor a file .npz"),
        ("no.npz", "no such"),
    ],
)
def test_other_samples_are_refused(spelling: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(samples_of(GRAPH, spelling))


def test_a_file_of_other_inputs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "io.npz"
    np.savez(path, z=np.ones(3))
    with pytest.raises(UserError, match=r"input x : fp32\[2,2\] is not there"):
        list(samples_of(GRAPH, str(path)))


def test_absent_weights_cannot_be_calibrated() -> None:
    graph = text.parse("graph g {\n  in %x : fp32[2,2]\n  const %w : fp32[2,2] = absent\n"
                       "  %y : fp32[2,2] = matmul(%x, %w)\n  out %y\n}")  # fmt: skip
    with pytest.raises(UserError, match="1 weights are absent"):
        magnitudes(graph, {"x"}, iter(()))
