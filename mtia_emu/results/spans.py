"""Launches in time: tracks that each run one launch at a time, and when each launch runs on its track."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..sums import add_up


@dataclass(frozen=True)
class Track:
    """What runs one launch at a time, by a clock of its own: a chip, a GPU, a link between them."""

    name: str
    clock_hz: float

    def seconds(self, ticks: float) -> float:
        """Return a time in ticks of the clock in seconds."""
        return ticks / self.clock_hz

    def exact_seconds(self, ticks: int) -> Fraction:
        """Return a time in ticks of the clock in seconds, without rounding."""
        return Fraction(ticks) / Fraction(self.clock_hz)

    def ticks_in(self, seconds: Fraction) -> int:
        """Return a time in ticks of the clock; a tick that has begun counts as a whole one."""
        return math.ceil(seconds * Fraction(self.clock_hz))

    def tick_after(self, span: Span) -> int:
        """Return the first tick of the clock at which a span, of any track, has ended."""
        if span.track.clock_hz == self.clock_hz:
            return span.end
        return self.ticks_in(span.track.exact_seconds(span.end))


@dataclass(frozen=True)
class Task:
    """A launch that is yet to be put in time: `setup` ticks to start it on its track, then `ticks` to run.

    `after` are the numbers of the tasks that it waits for, all before it.
    """

    track: Track
    launch: int
    setup: int
    ticks: int
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Span:
    """When a launch runs on its track, in ticks of the track's clock.

    It takes the track from `start`, its commands run from `begin` to `end`, `after` are the numbers of the
    spans that it waited for.
    """

    track: Track
    launch: int
    start: int
    begin: int
    end: int
    after: tuple[int, ...] = ()

    @property
    def start_s(self) -> float:
        """Return when it starts, in seconds."""
        return self.track.seconds(self.start)

    @property
    def end_s(self) -> float:
        """Return when it ends, in seconds."""
        return self.track.seconds(self.end)

    @property
    def ticks(self) -> int:
        """Return how long it takes its track."""
        return self.end - self.start


def chain(count: int) -> list[tuple[int, ...]]:
    """Return what each of a number of launches waits for where each follows the one before it."""
    return [(number - 1,) if number else () for number in range(count)]


def laid_out(tasks: Iterable[Task]) -> tuple[Span, ...]:
    """Return when each task runs: as soon as its track is free and the tasks that it waits for have ended.

    A track takes its tasks in the order given. Raises `ValueError` for a task that waits for none before it.
    """
    spans: list[Span] = []
    free: dict[Track, int] = {}
    for number, task in enumerate(tasks):
        if any(not 0 <= other < number for other in task.after):
            raise ValueError(f"task {number} waits for {task.after} (right: numbers from 0 below {number})")
        start = max([free.get(task.track, 0), *(task.track.tick_after(spans[i]) for i in task.after)])
        begin = start + task.setup
        spans.append(Span(task.track, task.launch, start, begin, begin + task.ticks, task.after))
        free[task.track] = spans[-1].end
    return tuple(spans)


def seconds_by(amounts: Iterable[tuple[str, Track, float]]) -> dict[str, float]:
    """Return the seconds of each name, the largest first, of times in ticks of tracks."""
    ticks: dict[str, dict[Track, float]] = {}
    for name, track, amount in amounts:
        of_name = ticks.setdefault(name, {})
        of_name[track] = of_name.get(track, 0.0) + amount
    sums = {name: add_up(t.seconds(n) for t, n in of_name.items()) for name, of_name in ticks.items()}
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def own_ticks(starts: Sequence[int], ends: Sequence[int]) -> list[float]:
    """Return how much of the time each of several intervals is answerable for: while n overlap, 1/n each.

    The sum is the time that any interval covers, so shares never exceed the whole. Without overlap each has
    its own length; one that ends before it starts has none.
    """
    own, group, latest = [0.0] * len(starts), list[int](), float("-inf")
    for i in sorted(range(len(starts)), key=lambda i: starts[i]):
        if starts[i] >= latest:
            _divide(starts, ends, group, own)
            group = []
        group.append(i)
        latest = max(latest, ends[i])
    _divide(starts, ends, group, own)
    return own


def _divide(starts: Sequence[int], ends: Sequence[int], group: Sequence[int], own: list[float]) -> None:
    """Divide the time of intervals that overlap: put own ticks at their numbers."""
    if len(group) == 1:
        own[group[0]] = float(max(ends[group[0]] - starts[group[0]], 0))
    if len(group) < 2:
        return
    first = starts[group[0]]
    low = np.array([starts[i] - first for i in group], dtype=np.float64)
    high = np.maximum(low, [ends[i] - first for i in group])
    times = np.unique(np.concatenate([low, high]))
    running = np.sort(low).searchsorted(times, "right") - np.sort(high).searchsorted(times, "right")
    weight = np.divide(1.0, running, out=np.zeros(len(times)), where=running > 0)
    until = np.concatenate([[0.0], np.cumsum(np.diff(times) * weight[:-1])])
    shares = until[times.searchsorted(high)] - until[times.searchsorted(low)]
    for i, ticks in zip(group, shares, strict=True):
        own[i] = float(ticks)
