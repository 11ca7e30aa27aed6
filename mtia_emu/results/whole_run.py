"""Training from the first step to the last: what failures of chips and checkpoints take of it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Stops:
    """A job that stops now and then: it goes on from the last checkpoint, `restart_s` later.

    `mtbf_s` is the mean time between failures of the job; they come at any time, also while it starts again,
    independently of each other. A checkpoint is written behind every `every_s` of steps and takes
    `checkpoint_s`, in which no step is made.
    """

    mtbf_s: float
    checkpoint_s: float
    restart_s: float
    every_s: float

    @property
    def slowdown(self) -> float:
        """Return how many seconds a second of steps takes: the complete cost of Daly (FGCS 22, 2006)."""
        segment = math.expm1(min((self.every_s + self.checkpoint_s) / self.mtbf_s, 700.0))
        return self.mtbf_s * math.exp(min(self.restart_s / self.mtbf_s, 700.0)) * segment / self.every_s

    @property
    def goodput(self) -> float:
        """Return the share of time in which steps are made that are not lost."""
        return 1 / self.slowdown

    @property
    def checkpoints(self) -> float:
        """Return the share of time that checkpoints take which are not lost."""
        return self.goodput * self.checkpoint_s / self.every_s

    @property
    def restarts(self) -> float:
        """Return the share of time between a failure and the first step, or the next failure, behind it."""
        return -math.expm1(-self.restart_s / self.mtbf_s)

    @property
    def again(self) -> float:
        """Return the share of time whose steps and checkpoints are lost, and made again."""
        return max(0.0, 1 - self.goodput - self.checkpoints - self.restarts)


def best_interval(checkpoint_s: float, mtbf_s: float) -> float:
    """Return the seconds of steps between checkpoints at which a job loses least.

    It is the root of exp(-(t + checkpoint) / mtbf) = 1 - t / mtbf, where the slowdown is flat; for rare
    failures Young's sqrt(2 checkpoint mtbf) (CACM 17, 1974).
    """
    share = checkpoint_s / mtbf_s
    x = min(math.sqrt(2 * share), 1.0)
    for _ in range(60):  # convex, so Newton's steps come from above
        step = (x + math.exp(-x - share) - 1) / -math.expm1(-x - share)
        x -= step
        if abs(step) <= 1e-14 * x:
            break
    return x * mtbf_s


@dataclass(frozen=True)
class WholeRun:
    """All steps of a training, of `step_s` each; without `stops` nothing interrupts it. `chips` can fail."""

    steps: int
    step_s: float
    chips: int
    stops: Stops | None = None

    @property
    def seconds(self) -> float:
        """Return how long it takes, on average."""
        return self.steps * self.step_s * (1.0 if self.stops is None else self.stops.slowdown)

    @property
    def failures(self) -> float:
        """Return how many failures are to be expected."""
        return 0.0 if self.stops is None else self.seconds / self.stops.mtbf_s
