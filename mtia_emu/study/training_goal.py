"""What a training is to come to: how much is learnt from, and how often its machine fails on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from ..errors import UserError, refuse_unknown
from ..results.training import Training
from ..results.whole_run import Stops, WholeRun, best_interval

HOUR_S = 3600.0
MOST_ITEMS = 1e24
MOST_SLOWDOWN = 1e6  # seconds a second of steps, beyond which a training does not end


@dataclass(frozen=True)
class Failures:
    """How often chips fail and what that costs; what is None follows from the run.

    One of `chips` fails every `mtbf_h` hours, and the job with it: 419 unexpected interruptions in 54 days of
    16,384 GPUs (Llama Team, The Llama 3 Herd of Models, 2024, section 3.3.4), whatever failed. Weights and
    the optimiser's state of a chip are written at `write_mb_per_s`: 2 TB/s for as many (section 3.3.1), in
    which training waits. `restart_s`, from a failure to the next step, is an estimate.
    """

    mtbf_h: float = 54 * 24 * 16384 / 419
    write_mb_per_s: float = 2e6 / 16384
    restart_s: float = 600.0
    checkpoint_s: float | None = None
    every_s: float | None = None
    chips: int | None = None


@dataclass(frozen=True)
class Goal:
    """How many tokens or samples are learnt from (`until`), and `failures` as a text: mtbf_h=5e4,chips=64."""

    until: float | None = None
    failures: str | None = None

    def __post_init__(self) -> None:
        if self.until is not None and not 0 < self.until <= MOST_ITEMS:
            raise UserError(f"--until {self.until} (right: tokens or samples to learn from, as in 1e12)")
        if self.failures is not None:
            failures(self.failures)

    def of(self, training: Training) -> WholeRun | None:
        """Return the whole run of which a step is known; None where nothing was asked."""
        if self.until is None and self.failures is None:
            return None
        used = training.report.system
        found = Failures() if self.failures is None else failures(self.failures)
        chips = found.chips or (1 if used is None else used.chips)
        steps = math.ceil(self.until / training.items) if self.until else 0
        stops = None if self.failures is None else _stops(found, chips, training)
        return WholeRun(steps, training.report.seconds, chips, stops)


def failures(text: str) -> Failures:
    """Return what a text says: `mtbf_h=5e4,restart_s=300`, or `default` for all that is not said.

    Raises `UserError` for what it does not know and for a value that is not a number above 0 (`restart_s`
    may be 0).
    """
    known, values = {field.name for field in fields(Failures)}, dict[str, Any]()
    if text.strip() == "default":
        return Failures()
    for part in map(str.strip, text.split(",")):
        key, _, given = map(str.strip, part.partition("="))
        if key not in known:
            raise refuse_unknown("option of --failures", key, sorted(known))
        if key in values:
            raise UserError(f"--failures {text!r} gives {key} twice (right: once)")
        values[key] = _whole(key, given) if key == "chips" else _number(key, given)
    return Failures(**values)


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if key == "restart_s" and value == 0:
        return value
    if not 0 < value < math.inf:
        raise UserError(f"--failures: {key}={text!r} (right: a number above 0)")
    return value


def _whole(key: str, text: str) -> int:
    value = _number(key, text)
    if not value.is_integer():
        raise UserError(f"--failures: {key}={text!r} (right: a whole number above 0)")
    return int(value)


def _stops(found: Failures, chips: int, training: Training) -> Stops:
    """Return how a job on so many chips stops; without an interval, at the best one."""
    mtbf_s = found.mtbf_h * HOUR_S / chips
    state = training.memory.weights + training.memory.optimizer
    written = found.checkpoint_s or state / (found.write_mb_per_s * 1e6)
    stops = Stops(mtbf_s, written, found.restart_s, found.every_s or best_interval(written, mtbf_s))
    if stops.slowdown > MOST_SLOWDOWN:
        raise UserError(
            f"--failures: a failure every {mtbf_s:.3g} s, {stops.restart_s:.3g} s to start again and a "
            f"checkpoint of {written:.3g} s every {stops.every_s:.3g} s: such a training does not end "
            "(right: fewer chips, a longer mtbf_h, a shorter restart_s, checkpoint_s or every_s)"
        )
    return stops
