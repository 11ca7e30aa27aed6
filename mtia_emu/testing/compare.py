"""How far apart two results are, as a whole and element by element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
DIGITS = 18  # one more than tell any two floats apart


def distance(got: Array, expected: Array) -> float:
    """Return the largest difference of arrays of one shape, over the largest finite magnitude (at least 1).

    NaN equals NaN and an infinity itself; what should be finite and is not, is infinitely far.
    """
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return float("inf")
    scale = largest(expected, 1.0)
    return float(gaps(got, expected).max(initial=0.0) / scale)


def largest(values: Array, least: float = 0.0) -> float:
    """Return the largest finite magnitude of an array of any shape, at least `least`."""
    wide = np.abs(values.astype(np.float64))
    return float(wide[np.isfinite(wide)].max(initial=least))


def gaps(got: Array, expected: Array) -> Array:
    """Return differences in the same shape: 0 for two NaN, or one infinity; infinite for NaN and another."""
    a, b = (np.asarray(x).astype(np.float64) for x in (got, expected))
    with np.errstate(all="ignore"):
        same = (got == expected) | (np.isnan(a) & np.isnan(b))
        gap = np.where(same, 0.0, np.abs(a - b))
        if got.dtype.kind in "iu":  # integers beyond 2^53 may differ, and not as floats of 64 bits
            gap = np.where(same, 0.0, np.maximum(gap, 1.0))
    return np.where(np.isnan(gap), np.inf, gap)


@dataclass(frozen=True)
class Miss:
    """The element of an output that is off by most of those beyond what is allowed."""

    output: str
    index: tuple[int, ...]
    got: float
    expected: float
    allowed: float

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        off = abs(self.got - self.expected)
        beyond, limit = _apart(off, self.allowed, 1, "e")
        far = f"{beyond} off, {limit} is allowed" if np.isfinite(off) else "which no rounding explains"
        got, expected = _apart(self.got, self.expected, 5, "g")
        return f"output %{self.output}{where} is {got}, expected {expected}: {far}"


def _apart(a: float, b: float, least: int, form: str) -> tuple[str, str]:
    """Return two numbers with `least` digits, or with as many as tell one from the other."""
    words = ((f"{a:.{digits}{form}}", f"{b:.{digits}{form}}") for digits in range(least, DIGITS))
    return next(((x, y) for x, y in words if x != y), (f"{a:.{least}{form}}", f"{b:.{least}{form}}"))


def worst(name: str, got: Array, expected: Array, allowed: Array) -> Miss | None:
    """Return the element that is off by most beyond `allowed`, which broadcasts; None where none is."""
    gap = gaps(got, expected)
    beyond = gap > allowed
    if not beyond.any():
        return None
    off_by = np.where(beyond, gap, -1.0)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(off_by)), off_by.shape))
    limit = float(np.broadcast_to(allowed, gap.shape)[index])
    return Miss(name, index, float(got[index]), float(expected[index]), limit)


def assert_close(got: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float) -> None:
    """Raise `AssertionError` naming the first output that is farther than the tolerance; see `distance`."""
    assert list(got) == list(expected), f"outputs {list(got)}, expected {list(expected)}"
    for name, value in expected.items():
        far = distance(got[name], value)
        if far > tolerance:
            raise AssertionError(f"%{name} is {far:.2e} off (allowed: {tolerance:.0e})\n{got[name]}\n{value}")
