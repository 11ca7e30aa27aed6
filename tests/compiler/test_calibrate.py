"""Ranges of values over samples, and where the samples come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.calibrate import ranges, samples_of

from mtia_emu.errors import UserError

GRAPH = text.parse("""graph g {
  in %x : fp32[2,2]
  %y : fp32[2,2] = mul(%x, %x)
  out %y
}""")


def test_the_largest_magnitude_over_all_samples_counts() -> None:
    samples = [{"x": np.full((2, 2), v, np.float32)} for v in (1.0, -3.0, np.inf, 2.0)]
    assert ranges(GRAPH, {"x", "y"}, iter(samples)) == {"x": 3.0, "y": 9.0}


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
        ranges(graph, {"x"}, iter(()))
