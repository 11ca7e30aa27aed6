"""What a simulated run says: latencies, throughput, energy, and how full the engines were.

- *TTFT*, time to first token: from a request's arrival to the end of the step that gives its first token.
  The way back to the client is not in it.
- *TPOT*, time per output token: (last token - first token) / (tokens - 1), the definition of vLLM's
  benchmarks; the first token is not in it, and a request of one token has none.
- *ITL*, inter-token latency: every gap between two tokens of one request, so waiting after a preemption is
  in it.
- *E2E*: from arrival to the last token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .load import Floats
from .quantiles import Distribution, distribution
from .record import EngineSteps, Log
from .slo import ServiceLevel

OUTRUN = 0.1  # of the time of arrivals; at a load of rho < 1 what waits at the end does not grow with it


@dataclass(frozen=True)
class Fullness:
    """How full an engine was: means over time, and the most. `cache` is the share of its blocks in use."""

    mean_decoding: float
    mean_waiting: float
    most_waiting: int
    cache_mean: float
    cache_most: float


@dataclass(frozen=True)
class Answers:
    """What a run says. Seconds, joules, shares of 1; None where a value does not exist or is not known.

    `last_taken_up_s` is from the last arrival until a step works for the last of those that wait.
    """

    requests: int
    span_s: float
    offered_rate_per_s: float
    served_rate_per_s: float
    ttft_s: Distribution | None
    tpot_s: Distribution | None
    itl_s: Distribution | None
    e2e_s: Distribution | None
    input_tokens_per_s: float
    output_tokens_per_s: float
    output_tokens_per_s_per_chip: float
    output_tokens_per_s_per_user: float | None
    joules: float | None
    idle_joules: float | None
    joules_per_output_token: float | None
    utilisation: float
    fullness: Fullness
    preemptions: int
    recomputed_tokens: int
    cached_tokens: int
    chips: int
    steps: int
    last_taken_up_s: float
    level: ServiceLevel | None = None
    kept_share: float | None = None
    goodput_per_s: float | None = None

    @property
    def is_outrun(self) -> bool:
        """Return whether more requests come than are served: who waits at the end waits long."""
        if not 0 < self.offered_rate_per_s < np.inf:
            return False
        arrivals_s = (self.requests - 1) / self.offered_rate_per_s
        return self.last_taken_up_s > OUTRUN * arrivals_s

    @property
    def keeps_level(self) -> bool | None:
        """Return whether enough requests keep the service level; None without one."""
        if self.level is None or self.kept_share is None:
            return None
        return self.kept_share >= self.level.share


def answers(log: Log, level: ServiceLevel | None = None, *, seed: int | None = 0) -> Answers:
    """Return what a run says; intervals of its quantiles are drawn by the seed, or left out without one."""
    span_s = log.end_s - float(log.arrival_s[0])
    tpot = log.tpot_s[~np.isnan(log.tpot_s)]
    output = int(log.load.output_tokens.sum())
    busy, slots = sum(e.busy_s for e in log.engines), span_s * len(log.engines)
    joules = float(sum(e.joules.sum() for e in log.engines))
    idle = max(slots - busy, 0.0) * log.idle_w
    kept = None if level is None else float(level.kept(log).mean())
    return Answers(
        requests=len(log),
        span_s=span_s,
        offered_rate_per_s=log.offered_rate_per_s,
        served_rate_per_s=len(log) / span_s,
        ttft_s=distribution(log.ttft_s, seed=seed),
        tpot_s=distribution(tpot, seed=seed),
        itl_s=distribution(*inter_token(log), seed=seed),
        e2e_s=distribution(log.e2e_s, seed=seed),
        input_tokens_per_s=int(log.load.input_tokens.sum()) / span_s,
        output_tokens_per_s=output / span_s,
        output_tokens_per_s_per_chip=output / span_s / log.chips,
        output_tokens_per_s_per_user=float(1 / np.median(tpot)) if len(tpot) else None,
        joules=_known(joules + idle),
        idle_joules=_known(idle),
        joules_per_output_token=_known((joules + idle) / output),
        utilisation=busy / slots,
        fullness=_fullness(log, slots),
        preemptions=int(log.preemptions.sum()),
        recomputed_tokens=log.recomputed_tokens,
        cached_tokens=log.cached_tokens,
        chips=log.chips,
        steps=sum(len(e) for e in log.engines),
        last_taken_up_s=float(log.scheduled_s.max() - log.arrival_s.max()),
        level=level,
        kept_share=kept,
        goodput_per_s=None if kept is None else kept * len(log) / span_s,
    )


def inter_token(log: Log) -> tuple[Floats, Floats]:
    """Return gaps between tokens and how often each was seen, in the order of the steps that end them."""
    values: list[Floats] = []
    weights: list[Floats] = []
    ends = [engine.end_s for engine in log.engines]
    changes = [np.zeros(len(engine) + 1) for engine in log.engines]
    breaks: list[float] = []
    for parts in log.parts:
        before = None
        for engine, first, last in parts:
            changes[engine][first + 1] += 1
            changes[engine][last + 1] -= 1
            if before is not None:
                breaks.append(ends[engine][first] - before)
            before = ends[engine][last]
    for end, change in zip(ends, changes, strict=True):
        count = np.cumsum(change)[1:-1]
        values.append(np.diff(end)[count > 0])
        weights.append(count[count > 0])
    values.append(np.array(breaks))
    weights.append(np.ones(len(breaks)))
    return np.concatenate(values), np.concatenate(weights)


def _fullness(log: Log, slots: float) -> Fullness:
    sums = np.zeros(3)
    for steps, blocks in zip(log.engines, log.blocks, strict=True):
        lasts = _lasts(steps)
        sums += lasts @ np.stack([steps.decoding, steps.waiting, steps.used_blocks / blocks], axis=1)
    decoding, waiting, cache = (sums / slots).tolist()
    most_waiting = max(int(e.waiting.max(initial=0)) for e in log.engines)
    return Fullness(decoding, waiting, most_waiting, cache, max(map(_most_used, log.engines, log.blocks)))


def _most_used(steps: EngineSteps, blocks: int) -> float:
    return float(steps.used_blocks.max(initial=0)) / blocks


def _lasts(steps: EngineSteps) -> Floats:
    return steps.end_s - steps.start_s


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
