"""What happened: by step and by request."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .load import Floats, Ints, Load
from .scheduler import ServingBatch


class StepRecord:
    """A row for each step of one engine, in their order."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, float, float, int, int, int, int, int, int]] = []

    def add(self, batch: ServingBatch, start_s: float, end_s: float, joules: float) -> None:
        """Add a step."""
        self._rows.append(
            (
                start_s,
                end_s,
                joules,
                batch.tokens_in,
                len(batch.contexts),
                batch.tokens_out,
                batch.used_blocks,
                batch.running,
                batch.waiting,
            )
        )

    def steps(self) -> EngineSteps:
        """Return the rows as columns."""
        values = np.array(self._rows, float).reshape(len(self._rows), 9)
        whole = values[:, 3:].astype(np.int64).T
        return EngineSteps(*values[:, :3].T, *whole)


@dataclass(frozen=True, eq=False)
class EngineSteps:
    """Steps of one engine, a value each: seconds, joules, tokens, sequences, blocks.

    `waiting` counts requests just after the step was put together.
    """

    start_s: Floats
    end_s: Floats
    joules: Floats
    prompt_tokens: Ints
    decoding: Ints
    tokens_out: Ints
    used_blocks: Ints
    running: Ints
    waiting: Ints

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def busy_s(self) -> float:
        """Seconds in which a step ran."""
        return float((self.end_s - self.start_s).sum())


@dataclass(frozen=True, eq=False)
class Log:
    """A simulated run: a value for each request, and the steps of each engine.

    Times are seconds since the run's beginning; `parts` are, for each request, (engine, first step, last
    step): each of these steps gave it one token. `prefill_engines` counts the engines that only compute
    prompts, 0 where all do both.
    """

    load: Load
    arrival_s: Floats
    scheduled_s: Floats
    first_token_s: Floats
    last_token_s: Floats
    preemptions: Ints
    engine: Ints
    parts: tuple[tuple[tuple[int, int, int], ...], ...]
    engines: tuple[EngineSteps, ...]
    blocks: tuple[int, ...]
    cached_tokens: int
    recomputed_tokens: int
    idle_w: float
    chips: int = 1
    transfer_s: Floats | None = None
    prefill_engines: int = 0
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def end_s(self) -> float:
        """When the last token came out."""
        return float(self.last_token_s.max())

    @property
    def ttft_s(self) -> Floats:
        """From each request's arrival to its first token."""
        return self.first_token_s - self.arrival_s

    @property
    def tpot_s(self) -> Floats:
        """Seconds a token after the first; NaN for a request of one."""
        tokens = self.load.output_tokens
        return np.where(
            tokens > 1, (self.last_token_s - self.first_token_s) / np.maximum(tokens - 1, 1), np.nan
        )

    @property
    def e2e_s(self) -> Floats:
        """From each request's arrival to its last token."""
        return self.last_token_s - self.arrival_s

    @property
    def offered_rate_per_s(self) -> float:
        """Requests a second as they came, infinite where all came at once."""
        span_s = float(self.arrival_s.max() - self.arrival_s.min())
        return (len(self) - 1) / span_s if span_s > 0 else float("inf")

    def token_times(self, request: int) -> NDArray[np.float64]:
        """Return when each token of a request came out."""
        each = [self.engines[e].end_s[first : last + 1] for e, first, last in self.parts[request]]
        return np.concatenate(each)
