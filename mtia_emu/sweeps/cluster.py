"""Evaluate points on a dask cluster: of this machine, or of many."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakSet

from .. import settings
from ..errors import UserError
from ..files.scratch import scratch
from ..reuse.code import code_digest
from .evaluate import Job
from .local import lost
from .row import Row
from .space import Point
from .worker import KILL_SECONDS, Limits, Worker

CONNECT_SECONDS = 10  # in which a scheduler answers first, or again
QUIET_SECONDS = 5.0  # without a row, after which the scheduler is asked whether it is there
ANSWER_SECONDS = 10.0  # in which it says so
LOGGERS = ("distributed", "distributed.client")  # which dask gives levels and handlers of their own
AHEAD = 4  # points that wait at the scheduler for each worker
_mine = threading.local()  # the worker process that a thread of a dask worker keeps, and the job it is for
_ours: WeakSet[Worker] = WeakSet()  # all of them in this process


def on_cluster(
    job: Job, points: Iterator[Point], limits: Limits, *, scheduler: str | None = None, workers: int = 0
) -> Iterator[Row]:
    """Yield rows as they come, from the cluster at `scheduler` or from `workers` processes of this machine.

    Each dask worker keeps a process of its own for the points, so that one that hangs or takes too much
    memory
    can be ended. Where the dask worker itself is lost, dask gives its points to another; when dask gives up,
    the attempt counts as one of `limits.retries`. Raises `UserError` where the scheduler is lost.
    """
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise UserError(
            "a cluster needs dask.distributed: pip install 'mtia-emu[cluster]'; or leave out --workers "
            "and --scheduler"
        ) from None

    with ExitStack() as stack:
        stack.enter_context(_quiet())
        client = stack.enter_context(_client(stack, scheduler, workers))
        running = _Running(client, job, limits)
        for point in islice(points, AHEAD * max(1, sum(client.nthreads().values()) or workers)):
            running.submit(point)
        while running.points:
            point, answer = running.next()
            again = None
            if isinstance(answer, Row):
                yield answer
            else:
                running.attempts[point.index] += 1
                if running.attempts[point.index] <= limits.retries:
                    again = point
                else:
                    yield lost(point, answer, running.attempts[point.index])
            again = again or next(points, None)
            if again is not None:
                running.submit(again)


class _Running:
    """The points that are at the cluster, by their futures."""

    def __init__(self, client: Any, job: Job, limits: Limits) -> None:
        self.client, self.limits, self.job = client, limits, job  # the job goes with each point: what is
        self.digest = job.digest  # scattered dies with its workers
        self.ended: SimpleQueue[Any] = SimpleQueue()
        self.points: dict[Any, Point] = {}
        self.attempts: Counter[int] = Counter()

    def submit(self, point: Point) -> None:
        """Send a point."""
        key = f"mtia-emu-{self.digest}-{point.index}-{self.attempts[point.index]}"
        future = self.client.submit(evaluate, self.job, point, self.limits, key=key, pure=False)
        self.points[future] = point
        future.add_done_callback(self.ended.put)

    def next(self) -> tuple[Point, Row | str]:
        """Wait for a point; return it with its row, or with why it has none."""
        while True:
            try:
                future = self.ended.get(timeout=QUIET_SECONDS)
            except Empty:
                self._check()
                continue
            answer = _answer(future)
            if not isinstance(answer, Row):
                self._check()
            future.release()
            return self.points.pop(future), answer

    def _check(self) -> None:
        """Raise `UserError` where no scheduler answers, nor one that is there again in a while."""
        until = time.monotonic() + CONNECT_SECONDS
        while self.client.status == "connecting" and time.monotonic() < until:
            time.sleep(0.1)
        if self.client.status == "running" and _answers(self.client):
            return
        with contextlib.suppress(Exception):  # whatever it makes of a connection that is none
            self.client.close(timeout=1)
        raise UserError(
            "the dask scheduler of the sweep has gone, or the network to it; the rows so far are kept "
            "(right: start it again, and the sweep with --resume)"
        )


def _answers(client: Any) -> bool:
    """Return whether the scheduler answers."""

    async def ask() -> None:
        await asyncio.wait_for(client.scheduler.ncores(), ANSWER_SECONDS)

    try:
        client.sync(ask)
    except (OSError, TimeoutError, asyncio.CancelledError):
        return False
    return True


def evaluate(job: Job, point: Point, limits: Limits) -> Row | str:
    """Return a point's row, or why there is none: runs on a dask worker, in a process that it keeps."""
    if job.code != code_digest():
        raise UserError("the worker runs another version of mtia-emu than the one that started the sweep")
    worker: Worker | None = getattr(_mine, "worker", None)
    if worker is None or not worker.alive or _mine.key != (job.digest, limits):
        if worker is not None:
            worker.stop()
        worker = _mine.worker = Worker(job, limits)
        _ours.add(worker)
        _mine.key = (job.digest, limits)
    worker.give(point)
    if worker.connection.poll(worker.remaining_s):
        return worker.answer()
    worker.stop()
    return f"no result after {limits.timeout_s:g} s"


def _answer(future: Any) -> Row | str:
    """Return the row of a future that has ended, or why it has none."""
    from distributed import CancelledError

    if future.status == "finished":
        try:
            answer: Row | str = future.result(timeout=ANSWER_SECONDS)  # a scheduler may hang, too
            return answer
        except (CancelledError, OSError, TimeoutError) as gone:  # its worker died before it was fetched
            return f"the cluster lost it: {type(gone).__name__}"
    try:
        error = future.exception(timeout=ANSWER_SECONDS) if future.status == "error" else None
    except TimeoutError as late:
        error = late
    if isinstance(error, UserError):
        raise error
    return (
        f"the cluster lost it: {type(error).__name__}" if error else f"the cluster lost it: {future.status}"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep dask from printing what we tell ourselves; `MTIA_EMU_DEBUG=1` lets it."""
    loggers = [] if settings.integer(settings.DEBUG) else [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _client(stack: ExitStack, scheduler: str | None, workers: int) -> Any:
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            return Client(scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise UserError(
                f"--scheduler {scheduler}: no dask scheduler answers there within {CONNECT_SECONDS} s "
                f"({type(error).__name__}); start one with `dask scheduler`"
            ) from None
    # workers are threads, as each keeps a process for its points: nothing listens that would run what another
    # user of the machine sends; the pages that dask serves are for this machine alone
    near = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    folder = stack.enter_context(scratch())  # where dask puts its own, which it would leave behind
    stack.enter_context(dask.config.set({"temporary-directory": str(folder)}))
    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, processes=False, memory_limit=0, **near)
    stack.enter_context(cluster)
    stack.callback(_end_ours)
    return Client(cluster)


def _end_ours() -> None:
    """End what the threads of a local cluster wait for."""
    for worker in list(_ours):
        worker.process.kill()
        worker.process.wait(KILL_SECONDS)
