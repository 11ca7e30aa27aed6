"""Learning rates of steps, as texts name them: `cosine{total=1000,warmup=100}`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

from ..errors import UserError, refuse_unknown

Rates = Callable[[int], float]
_SPELLING = re.compile(r"^([\w-]+)(?:\{([^{}]*)\})?$")
RIGHT = "cosine{total=1000,warmup=100}"


@dataclass(frozen=True)
class RateSchedule:
    """A learning rate by step; its fields are its options.

    Over the first `warmup` steps it rises evenly, to the optimiser's own rate with the last of them; the step
    behind is the first of what the name says.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    warmup: int = 0

    def factor(self, step: int) -> float:
        """Return what a step, from 1, takes of the optimiser's rate."""
        return step / self.warmup if step <= self.warmup else self.after(step - 1 - self.warmup)

    def after(self, step: int) -> float:
        """Return the same of a step behind the warm-up, from 0."""
        return 1.0


@dataclass(frozen=True)
class Constant(RateSchedule):
    """The optimiser's rate behind the warm-up."""


@dataclass(frozen=True)
class Falling(RateSchedule):
    """A rate that falls to a share `floor` of the optimiser's until step `total`, and stays there."""

    needs: ClassVar[tuple[str, ...]] = ("total",)
    total: int = 0
    floor: float = 0.0

    def after(self, step: int) -> float:
        left = 1.0 - min(step / (self.total - self.warmup), 1.0)
        return self.floor + (1.0 - self.floor) * self.shape(left)

    def shape(self, left: float) -> float:
        """Return the rate of a step at which such a share of the way is left."""
        raise NotImplementedError


@dataclass(frozen=True)
class Cosine(Falling):
    """Half a cosine (Loshchilov and Hutter, SGDR, 2017): torch's CosineAnnealingLR."""

    def shape(self, left: float) -> float:
        return (1.0 - math.cos(math.pi * left)) / 2.0


@dataclass(frozen=True)
class Linear(Falling):
    """A straight line: torch's LinearLR."""

    def shape(self, left: float) -> float:
        return left


@dataclass(frozen=True)
class Polynomial(Falling):
    """A power of what is left: torch's PolynomialLR."""

    power: float = 2.0

    def shape(self, left: float) -> float:
        return left**self.power


@dataclass(frozen=True)
class Stairs(RateSchedule):
    """A rate that is multiplied by `gamma` each `every` steps: torch's StepLR."""

    needs: ClassVar[tuple[str, ...]] = ("every",)
    every: int = 0
    gamma: float = 0.1

    def after(self, step: int) -> float:
        return self.gamma ** (step // self.every)


@dataclass(frozen=True)
class Exponential(RateSchedule):
    """A rate that is multiplied by `gamma` each step: torch's ExponentialLR."""

    needs: ClassVar[tuple[str, ...]] = ("gamma",)
    gamma: float = 0.0

    def after(self, step: int) -> float:
        return self.gamma**step


SCHEDULES: dict[str, type[RateSchedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "linear": Linear,
    "polynomial": Polynomial,
    "step": Stairs,
    "exponential": Exponential,
}


def rate_schedule(spelling: str) -> RateSchedule:
    """Return the schedule that a text names.

    Raises `UserError` for another form, for a name or an option that is not known, and for one that is
    lacking.
    """
    match = _SPELLING.match(spelling.strip())
    if match is None:
        raise UserError(f"--schedule {spelling!r} (right: {RIGHT})")
    if match[1] not in SCHEDULES:
        raise refuse_unknown("schedule", match[1], SCHEDULES)
    kind = SCHEDULES[match[1]]
    known = {f.name: f for f in fields(kind)}
    values: dict[str, float] = {}
    for option in filter(None, map(str.strip, (match[2] or "").split(","))):
        key, _, text = map(str.strip, option.partition("="))
        if key not in known:
            raise refuse_unknown(f"option of {match[1]}", key, known)
        if key in values:
            raise UserError(f"--schedule {spelling!r} gives {key} twice (right: once)")
        values[key] = _value(key, text, whole=isinstance(known[key].default, int))
    for key in kind.needs:
        if key not in values:
            raise UserError(f"--schedule {spelling!r} lacks {key} (right: {match[1]}{{{key}=...}})")
    found = kind(**values)  # type: ignore[arg-type]
    if isinstance(found, Falling) and found.total <= found.warmup:
        raise UserError(
            f"--schedule {spelling!r} falls from step {found.warmup} to {found.total} "
            "(right: total above warmup)"
        )
    return found


def _value(key: str, text: str, *, whole: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    least = 0 if key in ("warmup", "floor", "power") else 1 if whole else 0
    most = 1.0 if key in ("floor", "gamma") else 1e12
    if not least <= value <= most or (whole and value != int(value)) or (key == "gamma" and not value):
        kind = "a whole number" if whole else "a number"
        above = (
            "above 0, 1 at most"
            if key == "gamma"
            else f"of {least} or more" + (", 1 at most" if most == 1 else "")
        )
        raise UserError(f"--schedule: {key}={text!r} (right: {kind} {above})")
    return int(value) if whole else value
