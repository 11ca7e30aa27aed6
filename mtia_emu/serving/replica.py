"""One engine in time: when each of its steps is put together, starts and ends."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from .record import StepRecord
from .scheduler import Scheduler, Sequence, ServingBatch
from .step_table import ServingStep, StepTable

NEVER = float("inf")
MOST_STEPS_AHEAD = 32  # that are priced in one call


class Finished(NamedTuple):
    """A step that has ended: what it computed, and when it started and ended, in seconds."""

    batch: ServingBatch
    start_s: float
    end_s: float


class Replica:
    """An engine with its scheduler and the step table of what it runs on.

    It acts in *turns*, at the time `next_s`: a turn ends the step that is over, then puts together as many
    as it may.
    """

    def __init__(self, scheduler: Scheduler, table: StepTable) -> None:
        self.scheduler = scheduler
        self.next_s = NEVER
        self.expected = 0  # requests whose caches are on their way
        self.record = StepRecord()
        self._prices = _Prices(table)
        self._running: deque[Finished] = deque()
        self._free_s = 0.0  # when the device has done all that was put together

    def submit(self, sequence: Sequence, now_s: float) -> None:
        """Let a request wait from now on."""
        self.scheduler.waiting.append(sequence)
        if not self._running:
            self.next_s = min(self.next_s, now_s)

    @property
    def open_requests(self) -> int:
        """Requests that wait or run, or whose caches are on their way."""
        return len(self.scheduler.waiting) + len(self.scheduler.running) + self.expected

    def turn(self) -> Finished | None:
        """Act at `next_s`; return the step that has ended, if any."""
        now_s, rules = self.next_s, self.scheduler.rules
        ended: Finished | None = None
        if self._running:
            ended = self._running.popleft()
            self.scheduler.finish(ended.batch)
        while len(self._running) < rules.depth:
            batch = self.scheduler.schedule()
            if batch is None:
                break
            seconds, joules = self._prices.of(batch, self.scheduler)
            start_s = max(now_s, self._free_s) + rules.idle_gap_s
            self._free_s = start_s + seconds
            self._running.append(Finished(batch, start_s, self._free_s))
            for sequence in batch.starting:
                if sequence.started_s < 0:
                    sequence.started_s = start_s
            self.record.add(batch, start_s, self._free_s, joules)
        self.next_s = self._running[0].end_s if self._running else NEVER
        return ended


class _Prices:
    """Seconds and joules of steps; those of steps that only decode are asked for many at once."""

    def __init__(self, table: StepTable) -> None:
        self._table = table
        self._composition = -1
        self._next = 0
        self._seconds: list[float] = []
        self._joules: list[float] = []

    def of(self, batch: ServingBatch, scheduler: Scheduler) -> tuple[float, float]:
        """Return what a batch takes, just put together by the scheduler."""
        if batch.chunks:
            cost = self._table.step(ServingStep(tuple(batch.chunks), tuple(batch.contexts.tolist())))
            self._composition = -1
            return cost.seconds, cost.joules
        if self._composition != batch.composition or self._next == len(self._seconds):
            alike = 1 if batch.composition != scheduler.composition else scheduler.steps_alike + 1
            costs = self._table.decodes(batch.contexts, min(alike, MOST_STEPS_AHEAD))
            self._seconds, self._joules = costs.seconds.tolist(), costs.joules.tolist()
            self._composition, self._next = batch.composition, 0
        at = self._next
        self._next += 1
        return self._seconds[at], self._joules[at]
