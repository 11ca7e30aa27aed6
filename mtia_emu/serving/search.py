"""The greatest rate at which a service keeps its level."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import UserError
from .load import Load
from .record import Log
from .simulate import Service, simulate
from .slo import ServiceLevel

ALONE = 64  # requests that are served one at a time to see whether the level can be kept at all
EXACT = 0.01  # of the rate
MOST_DOUBLINGS = 24


@dataclass(frozen=True)
class Tried:
    """A rate that was tried, requests a second, and the share of requests that kept the level at it."""

    rate_per_s: float
    kept_share: float


@dataclass(frozen=True)
class GreatestRate:
    """The greatest rate found that keeps the level, None where none does; `log` is the run at it.

    `bounded` is False where the level is kept however fast the requests come: there are too few to fill the
    service.
    """

    rate_per_s: float | None
    log: Log
    tried: tuple[Tried, ...]
    bounded: bool = True
    reason: str = ""


def greatest_rate(
    service: Service,
    load: Load,
    level: ServiceLevel,
    *,
    exact: float = EXACT,
    progress: Callable[[int, int], object] | None = None,
) -> GreatestRate:
    """Return the greatest rate at which `load`, played faster or slower, keeps `level`; found by bisection.

    First, requests are served one at a time: where even these do not keep the level, no rate does, and that
    is the answer. Raises `UserError` for a level without a limit.
    """
    if level == ServiceLevel(share=level.share):
        raise UserError("the greatest rate needs a limit; right is like --slo ttft=0.5,tpot=0.05")
    search = _Search(service, load, level, progress)
    alone = replace(load.first(ALONE), concurrency=1)
    log = simulate(service, alone)
    kept = float(level.kept(log).mean())
    if kept < level.share:
        reason = f"one at a time, {kept:.0%} of the requests keep the level, and no rate can be slower"
        return GreatestRate(None, log, (Tried(0.0, kept),), reason=reason)
    own = load.rate_per_s if load.concurrency is None and len(load) > 1 else math.inf
    alone_s = max(float(log.e2e_s.mean()), 1e-9)
    low, high = search.bracket(own if math.isfinite(own) else 4 / alone_s)
    if high is None:
        return GreatestRate(low, search.best, tuple(search.tried), bounded=False)
    while low > 0 and high / low - 1 > exact:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if search.keeps(middle) else (low, middle)
    if low == 0:
        reason = "at the slowest rate tried, bursts of the load still break the level"
        return GreatestRate(None, search.best, tuple(search.tried), reason=reason)
    return GreatestRate(low, search.best, tuple(search.tried))


class _Search:
    """Rates tried so far, and the run at the greatest that kept the level."""

    def __init__(
        self, service: Service, load: Load, level: ServiceLevel, progress: Callable[[int, int], object] | None
    ) -> None:
        self._service, self._load, self._level = service, replace(load, concurrency=None), level
        self._progress = progress
        self.tried: list[Tried] = []
        self._kept: list[tuple[float, Log]] = []
        self._last: Log | None = None

    @property
    def best(self) -> Log:
        """The run at the greatest rate that kept the level, else the last run."""
        if self._kept:
            return max(self._kept, key=lambda pair: pair[0])[1]
        assert self._last is not None
        return self._last

    def keeps(self, rate_per_s: float) -> bool:
        """Try a rate."""
        log = simulate(self._service, self._load.at_rate(rate_per_s))
        kept = float(self._level.kept(log).mean())
        self.tried.append(Tried(rate_per_s, kept))
        self._last = log
        if self._progress is not None:
            self._progress(len(self.tried), 16)
        if kept < self._level.share:
            return False
        self._kept = [(rate_per_s, log)] if not self._kept or rate_per_s > self._kept[0][0] else self._kept
        return True

    def bracket(self, guess: float) -> tuple[float, float | None]:
        """Return a rate that keeps the level (0: none tried does) and one that does not (None: all do)."""
        if self.keeps(guess):
            low = guess
            for _ in range(MOST_DOUBLINGS):
                if not self.keeps(2 * low):
                    return low, 2 * low
                low *= 2
            return low, None
        high = guess
        for _ in range(MOST_DOUBLINGS // 3):
            if self.keeps(high / 2):
                return high / 2, high
            high /= 2
        return 0.0, high
