"""How far apart two results are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def distance(got: Array, expected: Array) -> float:
    """Return the largest difference of two arrays, over the largest finite magnitude expected (at least 1).

    NaN equals NaN and an infinity itself; what should be finite and is not, is infinitely far.
    """
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return float("inf")
    a, b = (np.asarray(x).astype(np.float64) for x in (got, expected))
    with np.errstate(all="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    gap[np.isnan(gap)] = np.inf
    scale = np.abs(b[np.isfinite(b)]).max(initial=1.0)
    return float(gap.max(initial=0.0) / scale)


def assert_close(got: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float) -> None:
    """Raise `AssertionError` naming the first output that is farther than the tolerance; see `distance`."""
    assert list(got) == list(expected), f"outputs {list(got)}, expected {list(expected)}"
    for name, value in expected.items():
        far = distance(got[name], value)
        if far > tolerance:
            raise AssertionError(f"%{name} is {far:.2e} off (allowed: {tolerance:.0e})\n{got[name]}\n{value}")
