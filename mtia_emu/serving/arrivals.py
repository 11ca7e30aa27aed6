"""Requests made up by law: when they come, and how long they are. The same seed gives the same requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .load import MOST_REQUESTS, Floats, Ints, Load

Draw = Callable[[np.random.Generator, int], Ints]


@dataclass(frozen=True, eq=False)
class TokenLengths:
    """Token counts with weights: one value is a fixed length. Ranges are drawn evenly between their ends."""

    tokens: Ints
    weights: Floats
    ends: Ints | None = None  # of ranges [tokens, ends)

    @classmethod
    def fixed(cls, tokens: int) -> TokenLengths:
        """Return one length for all."""
        return cls(np.array([tokens], np.int64), np.ones(1))

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        """Return so many lengths."""
        at = rng.choice(len(self.tokens), count, p=self.weights / self.weights.sum())
        low = self.tokens[at]
        return low if self.ends is None else rng.integers(low, self.ends[at])


def poisson(rate_per_s: float, count: int, seed: int = 0) -> Floats:
    """Return arrival times without memory: gaps are exponential with the mean 1 / rate."""
    return gamma(rate_per_s, count, 1.0, seed)


def gamma(rate_per_s: float, count: int, cv: float, seed: int = 0) -> Floats:
    """Return arrival times with Gamma gaps of the coefficient of variation `cv`; 0 is evenly spaced."""
    _check(rate_per_s, count)
    if not 0 <= cv <= 100:
        raise UserError(f"a coefficient of variation of {cv}; right is 0 (evenly spaced) to 100")
    if cv == 0:
        return np.arange(1, count + 1) / rate_per_s
    shape = 1.0 / cv**2
    gaps = np.random.default_rng(seed).gamma(shape, 1.0 / (rate_per_s * shape), count)
    return np.cumsum(gaps)


def diurnal(
    rate_per_s: float, count: int, *, peak_to_mean: float = 2.0, period_s: float = 86400.0, seed: int = 0
) -> Floats:
    """Return arrivals without memory at a rate that goes up and down as a sine of `period_s`; its mean is
    `rate_per_s`.

    The peak is `peak_to_mean` times the mean, at most twice. The first request comes at the mean, while the
    rate rises.
    """
    _check(rate_per_s, count)
    swing = peak_to_mean - 1
    if not 0 <= swing <= 1:
        raise UserError(f"a peak of {peak_to_mean} times the mean; right is 1 to 2, where a sine touches 0")
    if not 0 < period_s <= 1e9:
        raise UserError(f"a period of {period_s} s; right is more than 0")
    due = np.cumsum(np.random.default_rng(seed).exponential(1.0, count)) / rate_per_s
    turn = 2 * np.pi / period_s
    low, high = np.zeros(count), due + period_s
    for _ in range(60):  # halves until doubles end
        middle = (low + high) / 2
        early = middle + swing / turn * (1 - np.cos(turn * middle)) < due
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    return np.maximum.accumulate(high)


def synthetic(
    name: str, arrival_s: Floats, inputs: TokenLengths, outputs: TokenLengths, seed: int = 0
) -> Load:
    """Return requests at these times, with lengths drawn independently."""
    rng = np.random.default_rng([seed, 1])
    count = len(arrival_s)
    return Load(name, arrival_s, inputs.draw(rng, count), outputs.draw(rng, count))


def closed_loop(
    concurrency: int, count: int, inputs: TokenLengths, outputs: TokenLengths, seed: int = 0
) -> Load:
    """Return requests of which `concurrency` are open at any time: the next comes when one is answered."""
    _check(1.0, count)
    rng = np.random.default_rng([seed, 1])
    return Load(
        f"closed loop of {concurrency}",
        np.zeros(count),
        inputs.draw(rng, count),
        outputs.draw(rng, count),
        concurrency=concurrency,
    )


def _check(rate_per_s: float, count: int) -> None:
    if not 0 < rate_per_s <= 1e9:  # not a number, too
        raise UserError(f"a rate of {rate_per_s} requests a second; right is more than 0, at most 1e9")
    if not 1 <= count <= MOST_REQUESTS:
        raise UserError(f"{count} requests; right are 1 to {MOST_REQUESTS}")
