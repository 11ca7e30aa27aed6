"""Evaluate points on the cores of this machine, by processes that may die, hang or run out of memory."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
from multiprocessing.connection import wait

from .evaluate import Evaluator, Job
from .row import FAILED, Row
from .space import Point
from .worker import Limits, Worker

SPAN = 64  # neighbouring points that a worker is given the first refusal of


def in_process(job: Job, points: Iterator[Point], evaluator: Evaluator | None = None) -> Iterator[Row]:
    """Yield the row of each point, evaluated here: no timeout, no limit."""
    mine = evaluator or Evaluator(job)
    yield from map(mine.row, points)


def on_cores(job: Job, points: Iterator[Point], jobs: int, limits: Limits) -> Iterator[Row]:
    """Yield rows as they come, from `jobs` worker processes.

    Neighbouring points go to the same worker: they have most in common. An attempt that ends without a row
    (the
    worker died, hung or ran out of memory) is made again up to `limits.retries` times; then the point's row
    is "failed" with the reason. Each point has one row.
    """
    pool = Pool(job, points, jobs, limits)
    try:
        yield from pool.rows()
    finally:
        pool.stop()


class Pool:
    """The workers, each with a queue of neighbouring points; an idle one takes from the longest."""

    def __init__(self, job: Job, points: Iterator[Point], jobs: int, limits: Limits) -> None:
        self.job, self.points, self.limits = job, points, limits
        self.queues: list[deque[Point]] = [deque() for _ in range(jobs)]
        self.workers: list[Worker | None] = [None] * jobs
        self.attempts: Counter[int] = Counter()

    def rows(self) -> Iterator[Row]:
        """Yield rows until every point has one."""
        while True:
            for seat in range(len(self.workers)):
                self._feed(seat)
            busy = [w for w in self.workers if w is not None and w.point is not None]
            if not busy:
                return
            wait([w.connection for w in busy], min(w.remaining_s for w in busy))
            for seat, worker in enumerate(self.workers):
                if worker is not None and worker.point is not None:
                    yield from self._look(seat, worker)

    def stop(self) -> None:
        """End all workers."""
        for worker in self.workers:
            if worker is not None:
                worker.stop()

    def _feed(self, seat: int) -> None:
        """Give a worker without work its next point; start the worker if need be."""
        worker = self.workers[seat]
        if worker is not None and worker.point is not None:
            return
        point = self._next(seat)
        if point is None:
            return
        if worker is None or not worker.alive:
            if worker is not None:
                worker.stop()
            worker = self.workers[seat] = Worker(self.job, self.limits)
        worker.give(point)

    def _next(self, seat: int) -> Point | None:
        """Return the next point for a seat: of its own, of a new stretch, or of another's end."""
        mine = self.queues[seat]
        if not mine:
            mine.extend(islice(self.points, SPAN))
        if mine:
            return mine.popleft()
        longest = max(self.queues, key=len)
        return longest.pop() if longest else None

    def _look(self, seat: int, worker: Worker) -> Iterator[Row]:
        """Yield the row of a worker that has one, or that has used up its attempts."""
        assert worker.point is not None
        point = worker.point
        if worker.connection.poll():
            answer = worker.answer()
        elif not worker.remaining_s:
            worker.stop()
            answer = f"no result after {self.limits.timeout_s:g} s"
        else:
            return
        worker.point = None
        if isinstance(answer, Row):
            yield answer
            return
        self.attempts[point.index] += 1
        if self.attempts[point.index] <= self.limits.retries:
            self.queues[seat].appendleft(point)
        else:
            yield lost(point, answer, self.attempts[point.index])


def lost(point: Point, reason: str, attempts: int) -> Row:
    """Return the row of a point that no attempt gave a result for."""
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return Row(point.index, dict(point.params), FAILED, f"{reason} ({times})")
