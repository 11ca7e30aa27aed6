"""The queues of a recommendation service, event by event."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from ..errors import UserError
from .ranking import RankingLoad, RankingModel, RankingRun, RankingService

EXACT = 0.01  # of the greatest rate
MOST_STEPS = 60


def serve_ranking(service: RankingService, load: RankingLoad) -> RankingRun:
    """Return a run of a service under load. The same seed gives the same run."""
    run = _Run(service, load)
    run.go()
    return run.result()


def greatest_ranking_rate(
    service: RankingService, load: RankingLoad, progress: Callable[[int], object] = lambda done: None
) -> tuple[float, RankingRun]:
    """Return the most requests a second at which the 99th percentile keeps the promise, and the run at it.

    The draw is the same at each rate, only faster. Raises `UserError` where a request alone breaks it.
    """

    def kept(rate: float) -> bool:
        return serve_ranking(service, replace(load, rate_per_s=rate)).quantile(0.99) <= service.slo_s

    low = 1e-3 / service.slo_s
    if not kept(low):
        raise UserError(
            f"no rate keeps {service.slo_s:g} s at the 99th percentile: requests that meet no other break it "
            "(right: a longer promise, a shorter window or faster jobs)"
        )
    high = 2 * low
    for step in range(MOST_STEPS):
        progress(step)
        if not kept(high):
            break
        low, high = high, 2 * high
    while high - low > EXACT * low:
        progress(0)
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low, serve_ranking(service, replace(load, rate_per_s=low))


@dataclass
class _Batch:
    """A window's requests on their way; `waits` for so many jobs of a stage."""

    model: int
    opened_s: float
    requests: list[int] = field(default_factory=list)
    candidates: int = 0
    jobs_done: int = 0
    waits: int = 0
    remote_s: float = 0.0


class _Server:
    """Some servers behind one queue: first come first served, or by rank."""

    def __init__(self, run: _Run, servers: int) -> None:
        self.run, self.free, self.busy_s = run, servers, 0.0
        self.queue: list[tuple[float, int, float, Callable[[], None]]] = []

    def ask(self, seconds: float, done: Callable[[], None], rank: float = 0.0) -> None:
        """Serve for so many seconds when it is the caller's turn, then call `done`."""
        heapq.heappush(self.queue, (rank, next(self.run.numbers), seconds, done))
        self._next()

    def _next(self) -> None:
        while self.free and self.queue:
            _, _, seconds, done = heapq.heappop(self.queue)
            self.free -= 1
            self.busy_s += seconds
            self.run.after(seconds, lambda done=done: self._finish(done))  # type: ignore[misc]

    def _finish(self, done: Callable[[], None]) -> None:
        self.free += 1
        done()
        self._next()


class _Run:
    """One run: events by time, then by the order in which they were planned."""

    def __init__(self, service: RankingService, load: RankingLoad) -> None:
        self.service, server = service, service.server
        self.arrivals, self.candidates = load.drawn()
        rng = np.random.default_rng([load.seed, 1])
        shares = np.array([m.share for m in service.models])
        self.model = rng.choice(len(shares), load.requests, p=shares / shares.sum())
        self.now, self.events, self.numbers = 0.0, [], count()  # type: ignore[var-annotated]
        self.chips = [_Server(self, 1) for _ in range(server.chips)]
        self.cores, self.host, self.network = _Server(self, server.cores), _Server(self, 1), _Server(self, 1)
        self.windows: list[_Batch | None] = [None] * len(service.models)
        self.waiting: list[deque[_Batch]] = [deque() for _ in service.models]
        self.running = [0] * len(service.models)
        self.started = [0] * len(service.models)
        self.latency = np.full(load.requests, np.nan)
        self.fills: list[float] = []

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call later."""
        heapq.heappush(self.events, (self.now + seconds, next(self.numbers), call))

    def go(self) -> None:
        """Run until every request is answered."""
        for i, at in enumerate(self.arrivals.tolist()):
            heapq.heappush(self.events, (at, next(self.numbers), lambda i=i: self.arrive(i)))
        while self.events:
            self.now, _, call = heapq.heappop(self.events)
            call()

    def arrive(self, i: int) -> None:
        """Put a request into its model's window; one that it would overfill begins the next."""
        at = int(self.model[i])
        model, candidates = self.service.models[at], int(self.candidates[i])
        window = self.windows[at]
        if window is not None and window.candidates + candidates > model.most_candidates:
            self.close(at, window)
            window = None
        if window is None:
            window = self.windows[at] = _Batch(at, self.now)
            self.after(model.window_s, lambda: self.close(at, window))
        window.requests.append(i)
        window.candidates += candidates
        if window.candidates >= model.most_candidates:
            self.close(at, window)

    def close(self, at: int, window: _Batch) -> None:
        """End a window, if it is still open; its batch runs when its model has room for one more."""
        if self.windows[at] is window:
            self.windows[at] = None
            self.waiting[at].append(window)
            self.start(at)

    def start(self, at: int) -> None:
        """Start batches of a model while it has room for windows."""
        model, server = self.service.models[at], self.service.server
        while self.waiting[at] and self.running[at] < model.most_windows:
            batch = self.waiting[at].popleft()
            self.running[at] += 1
            cold = model.cold_remote_s is not None and self.started[at] < model.cold_batches
            self.started[at] += 1
            times = model.cold_remote_s if cold and model.cold_remote_s is not None else model.remote_s
            batch.remote_s = times(batch.candidates)
            self.fills.append(min(1.0, batch.candidates / model.most_candidates))
            chips_s = sum(model.shards) * batch.remote_s + model.merge_s(batch.candidates)
            inputs = _transfer(batch.candidates * model.input_bytes, server.host_bytes_per_s)
            self.cores.ask(
                model.preprocess_share * chips_s,
                lambda b=batch, s=inputs: self.host.ask(s, lambda: self.hop(b, self.remote)),  # type: ignore[misc]
            )

    def hop(self, batch: _Batch, then: Callable[[_Batch], None]) -> None:
        """Go on after a hop through the host."""
        self.after(self.service.server.hop_s, lambda: then(batch))

    def remote(self, batch: _Batch) -> None:
        """Send a batch's next remote job to each shard's chip, or all of them at once."""
        model = self.service.models[batch.model]
        jobs = 1 if model.in_turn else model.remote_jobs
        batch.waits = jobs * len(model.shards)
        for _ in range(jobs):
            for chip, load in self.placed(batch.model):
                self.ask(chip, batch, load * batch.remote_s / model.remote_jobs, self.remote_done)
        batch.jobs_done += jobs

    def remote_done(self, batch: _Batch) -> None:
        """Go on when the slowest shard is back: with the next remote job, or what is merged."""
        batch.waits -= 1
        if batch.waits:
            return
        model, server = self.service.models[batch.model], self.service.server
        if batch.jobs_done < model.remote_jobs:
            self.hop(batch, self.remote)
            return
        moved = batch.candidates * model.pooled_bytes * (len(model.shards) - 1)
        seconds = _transfer(moved, server.network_bytes_per_s)
        self.network.ask(seconds, lambda: self.hop(batch, self.merge))

    def merge(self, batch: _Batch) -> None:
        """Send the merge job to the chip of one shard, by turns."""
        model = self.service.models[batch.model]
        places = self.placed(batch.model)
        chip, _ = places[batch.requests[0] % len(places)]
        self.ask(chip, batch, model.merge_s(batch.candidates), lambda b: self.hop(b, self.answer))

    def ask(self, chip: int, batch: _Batch, seconds: float, done: Callable[[_Batch], None]) -> None:
        """Queue a job of a batch on a chip."""
        rank = batch.opened_s if self.service.server.order == "oldest" else 0.0
        self.chips[chip].ask(seconds, lambda: done(batch), rank)

    def placed(self, at: int) -> list[tuple[int, float]]:
        """Return chip and load of each shard of a model; models begin on chips one after another."""
        models, chips = self.service.models, len(self.chips)
        first = sum(len(m.shards) for m in models[:at])
        return [((first + i) % chips, load) for i, load in enumerate(models[at].shards)]

    def answer(self, batch: _Batch) -> None:
        """Answer a batch's requests; its model has room for another window."""
        self.latency[batch.requests] = self.now - self.arrivals[batch.requests]
        self.running[batch.model] -= 1
        self.start(batch.model)

    def result(self) -> RankingRun:
        """Return what the run came to."""
        whole = float((self.arrivals + self.latency).max() - self.arrivals[0])
        busy = tuple(chip.busy_s / whole for chip in self.chips)
        cores = self.cores.busy_s / whole / self.service.server.cores
        return RankingRun(
            *(self.arrivals, self.latency, self.model, busy, cores),
            *(self.host.busy_s / whole, self.network.busy_s / whole),
            *(len(self.fills), float(np.mean(self.fills))),
        )


def _transfer(bytes_: float, bytes_per_s: float) -> float:
    return bytes_ / bytes_per_s if bytes_per_s else 0.0


def with_model(service: RankingService, **changes: object) -> RankingService:
    """Return a service whose models all have other values of some fields."""
    models: list[RankingModel] = [replace(m, **changes) for m in service.models]  # type: ignore[arg-type]
    return replace(service, models=tuple(models))
