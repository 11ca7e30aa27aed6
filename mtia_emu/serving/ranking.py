"""Recommendation as it is served: a request ranks candidates; batches of requests are jobs on several chips.

Requests of a model are coalesced into a *window* until it is full or its time is over. A window's batch is
preprocessed on a core of the host and its inputs cross the host's memory. Then come remote jobs, on the chips
that hold shards of the embedding tables, and one merge job. Between jobs stands a hop through the host. A
chip runs one job at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .load import Floats

ORDERS = ("arrival", "oldest")  # of jobs on a chip: as they came, or those of the oldest batch first


@dataclass(frozen=True)
class JobTimes:
    """Seconds of a job by the candidates of its batch, linear in between and beyond, as sizes grow.

    Joules of a batch grow by the same rule.
    """

    candidates: tuple[int, ...]
    seconds: tuple[float, ...]

    def __call__(self, candidates: int) -> float:
        """Return the seconds of a batch of so many candidates; never less than at the least size."""
        x, y = self.candidates, self.seconds
        if len(x) > 1 and candidates > x[-1]:
            return y[-1] + (candidates - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])
        return float(np.interp(candidates, x, y))


@dataclass(frozen=True)
class RankingJobs:
    """What a model's jobs take on one chip that holds all its tables, by the candidates of a batch.

    `joules` are of a whole batch; weights, tables among them, lie in the memory of the chips that share it.
    """

    remote_s: JobTimes
    merge_s: JobTimes
    joules: JobTimes
    weight_bytes: int
    memory_bytes: int  # of a chip

    def least_chips(self, memory_share: float = 0.9) -> int:
        """Return how many chips the weights need, where they may use such a share of memory."""
        return math.ceil(self.weight_bytes / (memory_share * self.memory_bytes))


@dataclass(frozen=True)
class RankingModel:
    """A recommender on a server.

    `remote_s` is a shard's work for a batch, in `remote_jobs` equal jobs; `shards` are the loads of its chips
    as parts of the mean, so that the slowest decides. With `in_turn` a batch's next remote job is sent when
    the last is back, else all at once. Until `cold_batches` have run, caches are cold and `cold_remote_s`
    holds. `preprocess_share` is a batch's time on a core of the host, as a part of its time on chips.
    """

    name: str
    share: float
    remote_s: JobTimes
    merge_s: JobTimes
    remote_jobs: int = 1
    in_turn: bool = True
    shards: tuple[float, ...] = (1.0,)
    cold_remote_s: JobTimes | None = None
    cold_batches: int = 0
    window_s: float = 0.0
    most_candidates: int = 1 << 30
    most_windows: int = 1 << 30
    input_bytes: float = 0.0
    pooled_bytes: float = 0.0
    preprocess_share: float = 0.0


@dataclass(frozen=True)
class RankingServer:
    """What the models of a server share: chips, cores, the host's memory and the network between chips.

    `input_bytes` and `pooled_bytes` of a model are for each candidate. The first cross host memory; the
    second cross the network, but for the shard of the merge job. A bandwidth of 0 stands for no limit.
    """

    chips: int
    order: str = ORDERS[0]
    hop_s: float = 0.0
    cores: int = 1
    host_bytes_per_s: float = 0.0
    network_bytes_per_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an order that is not known."""
        if self.order not in ORDERS:
            raise UserError(f"order of jobs is {self.order!r} (right: {' or '.join(ORDERS)})")


@dataclass(frozen=True)
class RankingLoad:
    """Requests at random times (Poisson), each with candidates that are log-normal: their mean, and `cv`."""

    rate_per_s: float
    requests: int
    candidates: float
    cv: float = 0.0
    seed: int = 0

    def drawn(self) -> tuple[Floats, np.ndarray]:
        """Return when each request arrives, and how many candidates it ranks, 1 or more."""
        rng = np.random.default_rng(self.seed)
        arrivals = np.cumsum(rng.exponential(1.0, self.requests)) / self.rate_per_s
        spread = np.sqrt(np.log1p(self.cv**2))
        drawn = self.candidates * np.exp(rng.standard_normal(self.requests) * spread - spread**2 / 2)
        return arrivals, np.maximum(1, np.rint(drawn)).astype(np.int64)


@dataclass(frozen=True)
class RankingService:
    """A server, the models on it and the latency that it promises its requests at the 99th percentile."""

    server: RankingServer
    models: tuple[RankingModel, ...]
    slo_s: float

    def __post_init__(self) -> None:
        """Refuse shards that find no chip."""
        for model in self.models:
            if len(model.shards) > self.server.chips:
                raise UserError(
                    f"model {model.name} has {len(model.shards)} shards, its server {self.server.chips} "
                    "chips (right: at most a shard a chip)"
                )


@dataclass(frozen=True, eq=False)
class RankingRun:
    """What a run of a service came to: a latency for each request, in the order of arrival.

    `busy_share` is of each chip between the first arrival and the last answer, `fill` the mean share of
    `most_candidates` that a batch had.
    """

    arrivals_s: Floats
    latencies_s: Floats
    model: np.ndarray
    busy_share: tuple[float, ...]
    cores_share: float
    host_share: float
    network_share: float
    batches: int
    fill: float

    @property
    def requests_per_s(self) -> float:
        """Return the requests answered in a second, from the first arrival to the last answer."""
        return len(self.latencies_s) / float((self.arrivals_s + self.latencies_s).max() - self.arrivals_s[0])

    def quantile(self, share: float, model: int | None = None) -> float:
        """Return the latency that such a share of requests, of one model or of all, does not exceed."""
        latencies = self.latencies_s if model is None else self.latencies_s[self.model == model]
        return float(np.quantile(latencies, share))
