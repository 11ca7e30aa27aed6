"""The points of a sweep that are known before it starts: every one of a grid, or seeded samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from .spec import GUIDED, Spec

CONSENT_POINTS = 100_000  # more than these take a word from the user


@dataclass(frozen=True)
class Point:
    """One design point: its place in the sweep and the parameters that vary, links not yet followed."""

    index: int
    params: Mapping[str, Any]


class Space:
    """The points of a spec, made when asked for: `len` and iteration from any index on."""

    def __init__(self, spec: Spec) -> None:
        if spec.method in GUIDED:
            raise ValueError(f"the points of method {spec.method} are found as the sweep goes")
        self.spec, self.axes = spec, spec.axes
        self.strata = _latin(spec, len(self.axes)) if spec.method == "latin" else None

    def __len__(self) -> int:
        return size(self.spec)

    def __getitem__(self, index: int) -> Point:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Point(index, self._grid(index) if self.spec.method == "grid" else self._sample(index))

    def __iter__(self) -> Iterator[Point]:
        return (self[index] for index in range(len(self)))

    def _grid(self, index: int) -> dict[str, Any]:
        """Return the grid point of that number; the last parameter changes fastest."""
        out = {}
        for one in reversed(self.axes):
            index, at = divmod(index, len(one.values))
            out[one.key] = one.values[at]
        return {one.key: out[one.key] for one in self.axes}

    def _sample(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.spec.seed, index])
        shares = rng.random(len(self.axes))
        if self.strata is not None:
            shares = (self.strata[index] + shares) / len(self)
        return {one.key: one.at(float(share)) for one, share in zip(self.axes, shares, strict=True)}


def size(spec: Spec) -> int:
    """Return how many points a sweep has."""
    return math.prod(len(one.values) for one in spec.axes) if spec.method == "grid" else spec.points


def check_size(spec: Spec, consent: bool) -> None:
    """Refuse a sweep of very many points unless it is meant."""
    if not consent and size(spec) > CONSENT_POINTS:
        raise UserError(
            f"the sweep has {size(spec):,} points, each compiled and timed for {len(spec.model)} models; "
            "say --yes if that is meant, or choose fewer values, or --method latin --points 1000"
        )


def _latin(spec: Spec, axes: int) -> np.ndarray[Any, Any]:
    """Return [points, axes]: each axis cut into as many strata as there are points, one point in each."""
    rng = np.random.default_rng([spec.seed, 1 << 32])
    return np.stack([rng.permutation(spec.points) for _ in range(axes)], axis=1)
