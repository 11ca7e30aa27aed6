"""One number of a scenario: its value, how far it may lie off, and who says so."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import Any, Literal, Self, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
Array = np.ndarray[Any, Any]
Numbers = Array | float
Shape = Literal["fixed", "uniform", "log-uniform", "triangular"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
Status = Literal[
    "quoted", "quoted-secondary", "derived", "digitised", "measured", "analyst", "computed", "chosen",
    "estimate", "guess", "recalled-unverified",
]  # fmt: skip
STATUSES: tuple[Status, ...] = get_args(Status)
UNSURE = ("estimate", "guess", "recalled-unverified")  # what a page shades
FIRST_YEAR, LAST_YEAR = 2000, 2100


def total(parts: Iterable[Numbers]) -> Numbers:
    """Return the sum of numbers, each added to those before it."""
    return reduce(add, parts, 0.0)


def mean(values: Numbers) -> float:
    """Return the mean over samples."""
    return float(np.mean(np.asarray(values, dtype=float)))


class Quantity(BaseModel):
    """A number with its band, the shape of the band, its source and the source's status.

    The unit stands in the key that the quantity is under. Without `low` and `high` the number is fixed. A
    `triangular` band has its mode at `value`; `log-uniform` is even in the logarithm. `year` is that
    whose dollars an amount is in; a scenario brings it to its own currency year.
    """

    model_config = STRICT

    value: float
    low: float | None = None
    high: float | None = None
    shape: Shape = "uniform"
    source: str = Field(min_length=1, max_length=600)
    status: Status
    year: int | None = Field(default=None, ge=FIRST_YEAR, le=LAST_YEAR)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high stand together, or neither")
        if self.low is not None and self.high is not None:
            if self.low > self.high:
                raise ValueError(f"low, {self.low:g}, is above high, {self.high:g}")
            if not self.low <= self.value <= self.high:
                raise ValueError(
                    f"value, {self.value:g}, is not from low, {self.low:g}, to high, {self.high:g}"
                )
            if self.shape == "log-uniform" and self.low <= 0:
                raise ValueError(f"low is {self.low:g}: a log-uniform band lies above 0")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Return the least and the most that the number may be."""
        if self.low is None or self.high is None or self.shape == "fixed":
            return self.value, self.value
        return self.low, self.high

    @property
    def varies(self) -> bool:
        """Return whether the number has a band of some width."""
        low, high = self.ends
        return high > low

    @property
    def is_unsure(self) -> bool:
        """Return whether the number is somebody's guess, or has no source that was found."""
        return self.status in UNSURE

    def at(self, share: Array) -> Array:
        """Return the number at points of its band, in any shape: 0 is its low end, 1 its high one.

        The inverse of the band's cumulative distribution.
        """
        low, high = self.ends
        if self.shape == "log-uniform" and self.varies:
            return np.asarray(low * (high / low) ** share)
        if self.shape == "triangular" and self.varies:
            return _triangular(share, low, self.value, high)
        return np.asarray(low + (high - low) * share)

    def scaled(self, factor: float) -> Quantity:
        """Return the number and its band times a factor above 0."""
        ends = {name: None if (x := getattr(self, name)) is None else x * factor for name in ("low", "high")}
        return self.model_copy(update={"value": self.value * factor, **ends})


def _triangular(share: Array, low: float, mode: float, high: float) -> Array:
    turn = (mode - low) / (high - low)
    up = low + np.sqrt(share * (high - low) * (mode - low))
    down = high - np.sqrt((1 - share) * (high - low) * (high - mode))
    return np.where(share < turn, up, down)
