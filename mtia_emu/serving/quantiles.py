"""Mean and quantiles of what was observed one after another, and how sure they are.

Requests that follow one another share a queue, so they are no independent draws. Intervals come from a
moving-block bootstrap (Kuensch 1989): blocks of neighbours are drawn again and again, blocks as long as the
square root of their number, and the middle 95 % of the results are the interval. It says how far another
hour of the same traffic may be, not how right the model is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .load import Floats

SHARES = (0.5, 0.9, 0.99)
DRAWS = 100
LEAST = 20  # observations, below which no interval is given


@dataclass(frozen=True)
class Estimate95:
    """A value and the ends of its 95 % interval; these are NaN where there were too few observations."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Distribution:
    """Mean and quantiles of one measure, in its unit."""

    count: int
    mean: Estimate95
    p50: Estimate95
    p90: Estimate95
    p99: Estimate95


def distribution(
    values: Floats, weights: Floats | None = None, *, seed: int | None = 0
) -> Distribution | None:
    """Return the distribution of values in the order in which they came; None for none.

    A value counts as often as its weight says. Without a seed no intervals are made.
    """
    if not len(values):
        return None
    weight = np.ones(len(values)) if weights is None else weights
    found = _measures(values, weight)
    low = high = np.full(len(found), np.nan)
    if seed is not None and len(values) >= LEAST:
        low, high = _intervals(values, weight, seed)
    each = [Estimate95(*map(float, x)) for x in zip(found, low, high, strict=True)]
    return Distribution(round(float(weight.sum())), *each)


def _intervals(values: Floats, weights: Floats, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    count = len(values)
    block = max(1, round(count**0.5))
    drawn = np.empty((DRAWS, 1 + len(SHARES)))
    for draw in range(DRAWS):
        starts = rng.integers(0, count - block + 1, -(-count // block))
        at = (starts[:, None] + np.arange(block)).ravel()[:count]
        drawn[draw] = _measures(values[at], weights[at])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return low, high


def _measures(values: Floats, weights: Floats) -> Floats:
    """Return the mean and the quantiles: the least values that such shares of the weight do not exceed."""
    order = np.argsort(values)
    ordered, upto = values[order], np.cumsum(weights[order])
    total = upto[-1]
    at = np.searchsorted(upto, np.array(SHARES) * total * (1 - 1e-12))
    return np.array([float((values * weights).sum() / total), *ordered[np.minimum(at, len(ordered) - 1)]])
