"""Requests: when they arrive, how long their prompts are, how many tokens each generates."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

MOST_REQUESTS = 2_000_000
MOST_TOKENS = 1 << 24  # of a prompt or an answer
LATEST_S = 1e9

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Load:
    """Requests in the order of arrival; arrays of one length.

    `prefixes` has for each request the hashes of its prompt's pieces, `piece_tokens` tokens each: equal
    hashes are equal tokens from the beginning up to there. `known_tokens` are tokens at a prompt's
    beginning that some store outside the engine has. With a `concurrency`, arrival times do not count: so
    many requests are open at any time.
    """

    name: str
    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    prefixes: tuple[tuple[int, ...], ...] = ()
    piece_tokens: int = 512
    known_tokens: Ints | None = None
    concurrency: int | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        count = len(self.arrival_s)
        if not 1 <= count <= MOST_REQUESTS:
            raise UserError(f"{self.name}: {count} requests; right are 1 to {MOST_REQUESTS}")
        self._check_times()
        for what in ("input_tokens", "output_tokens"):
            values = getattr(self, what)
            wrong = np.flatnonzero((values < 1) | (values > MOST_TOKENS))
            if len(wrong):
                raise UserError(
                    f"{self.name}: request {wrong[0] + 1} has {values[wrong[0]]} {what.replace('_', ' ')}; "
                    f"right are 1 to {MOST_TOKENS}"
                )
        if self.concurrency is not None and self.concurrency < 1:
            raise UserError(f"{self.name}: {self.concurrency} requests open at once; right is 1 or more")

    def _check_times(self) -> None:
        times = self.arrival_s
        wrong = np.flatnonzero(~((times >= 0) & (times <= LATEST_S)))
        if len(wrong):
            raise UserError(
                f"{self.name}: request {wrong[0] + 1} arrives at {times[wrong[0]]} s; "
                f"right is 0 to {LATEST_S:g} s"
            )
        back = np.flatnonzero(np.diff(times) < 0)
        if len(back):
            at = int(back[0])
            raise UserError(
                f"{self.name}: request {at + 2} arrives at {times[at + 1]} s, before request {at + 1} at "
                f"{times[at]} s; right are times that do not go backwards"
            )

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def rate_per_s(self) -> float:
        """Requests a second, from the first arrival to the last."""
        span = float(self.arrival_s[-1] - self.arrival_s[0])
        return (len(self) - 1) / span if span > 0 else float("inf")

    def at_rate(self, rate_per_s: float) -> Load:
        """Return the same requests in the same rhythm, played so that their mean rate is `rate_per_s`."""
        if not 0 < rate_per_s <= 1e9:
            raise UserError(f"a rate of {rate_per_s} requests a second; right is more than 0, at most 1e9")
        if len(self) < 2 or self.arrival_s[-1] == self.arrival_s[0]:
            raise UserError(f"{self.name}: all requests arrive at once, so there is no rate to change")
        factor = self.rate_per_s / rate_per_s
        return replace(self, arrival_s=(self.arrival_s - self.arrival_s[0]) * factor)

    def first(self, count: int) -> Load:
        """Return the first so many requests."""
        known = None if self.known_tokens is None else self.known_tokens[:count]
        return replace(
            self,
            arrival_s=self.arrival_s[:count],
            input_tokens=self.input_tokens[:count],
            output_tokens=self.output_tokens[:count],
            prefixes=self.prefixes[:count],
            known_tokens=known,
        )
