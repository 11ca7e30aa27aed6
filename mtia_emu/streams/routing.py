"""How many rows each expert of a mixture gets, where no values say: by a law of how popular experts are.

A row goes to several different experts. Under a law by which an expert has share p of the first choices, it
is among a row's choices with probability 1 - exp(-t p), t such that these add up to the choices of a row: the
inclusion probabilities of successive sampling (Rosen, "Asymptotic theory for successive sampling", Annals of
Mathematical Statistics 43, 1972). Rows choose independently, so an expert's rows are binomial.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import UserError
from . import GOLDEN, Law, parse

Array = np.ndarray[Any, Any]
GRID = 1 << 16  # points at which a law is asked which expert they fall on
WIDE = 10.0  # standard deviations around a mean beyond which no count is looked for
MOST_ROUTED = 1 << 40
FLAG = "--routing"


def included(law: Law, experts: int, each: int) -> Array:
    """Return how likely each expert is among the `each` that a row goes to: [experts], of sum `each`."""
    points = (np.arange(GRID) + 0.5) / GRID
    ranks = np.clip(law.ranks(points, experts).astype(np.int64), 0, experts - 1)
    shares = np.maximum(np.bincount(ranks, minlength=experts) / GRID, 1e-3 / GRID)
    low, high = 0.0, 1.0
    while -np.expm1(-high * shares).sum() < each and high < 1e12:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if -np.expm1(-middle * shares).sum() < each:
            low = middle
        else:
            high = middle
    found = -np.expm1(-high * shares)
    return np.asarray(np.minimum(found * (each / found.sum()), 1.0))


def _quantiles(rows: int, chance: Array, u: Array) -> Array:
    """Return the counts of binomial(rows, chance[n]) below which shares u[n] of them fall."""
    mean = rows * chance
    spread = np.sqrt(mean * (1 - chance)) + 1
    least = np.maximum(np.floor(mean - WIDE * spread), 0)[:, None]
    counts = least + np.arange(int(np.ceil(2 * WIDE * spread.max())) + 2)
    inside = counts <= rows
    counts = np.minimum(counts, rows)
    factorial = np.concatenate([np.zeros(1), np.cumsum(np.log(np.arange(1, rows + 1)))])
    ways = factorial[rows] - factorial[counts.astype(int)] - factorial[rows - counts.astype(int)]
    p = np.clip(chance, 1e-300, 1 - 1e-12)[:, None]
    mass = np.where(inside, np.exp(ways + counts * np.log(p) + (rows - counts) * np.log1p(-p)), 0.0)
    below = np.cumsum(mass, axis=1)
    below /= below[:, -1:]
    found = counts[np.arange(len(u)), (below < u[:, None]).sum(axis=1).clip(max=counts.shape[1] - 1)]
    return np.asarray(found.astype(np.int64))


@lru_cache(maxsize=1 << 10)
def loads(law: str, rows: int, experts: int, each: int) -> tuple[int, ...]:
    """Return how many of `rows` rows go to each expert, the most popular first; they add up to rows * each.

    Each expert has a different quantile of its own distribution, evenly spread, so that as many experts have
    rows, and as unevenly many, as are expected; a row more or less makes the sum right. `law` is a text as in
    `streams.parse`. Raises `UserError` for a row that goes to more experts than there are.
    """
    if not 0 < each <= experts or rows * each > MOST_ROUTED:
        raise UserError(f"{rows} rows go to {each} of {experts} experts each (right: 1 to all of them)")
    chance = included(parse(law, FLAG), experts, each)
    u = (np.arange(1, experts + 1) * GOLDEN) % 1.0
    found = np.minimum(_quantiles(rows, chance, u), rows) if rows < 1 << 22 else np.round(rows * chance)
    found = found.astype(np.int64)
    while gap := rows * each - int(found.sum()):
        order = np.argsort(-found, kind="stable")
        fit = order[(found[order] < rows) if gap > 0 else (found[order] > 1)]
        fit = fit if len(fit) else order
        found[fit[: abs(gap)]] += 1 if gap > 0 else -1
    return tuple(int(x) for x in found)


@lru_cache(maxsize=1 << 10)
def reached(law: str, experts: int, each: int, ranks: int) -> tuple[float, ...]:
    """Return how likely a row goes to any expert of each of `ranks` equal parts, the most popular first.

    Experts are drawn as if each were taken by itself with its odds, and only rows were kept that take `each`:
    conditional Poisson sampling (Chen, Dempster and Liu, Biometrika 81, 1994), exact where all are alike.
    Raises `UserError` as `loads` does, and for parts that are not equal.
    """
    if not 0 < each <= experts or experts % ranks:
        raise UserError(f"a row goes to {each} of {experts} experts in {ranks} equal parts")
    chance = np.minimum(included(parse(law, FLAG), experts, each), 1 - 1e-9)
    odds = chance / (1 - chance)
    parts = [_kept_counts(part, each) for part in np.split(odds / odds.max(), ranks)]
    whole = _product(parts, each)
    return tuple(float(1 - _product(parts[:r] + parts[r + 1 :], each) / whole) for r in range(ranks))


def _kept_counts(odds: Array, each: int) -> Array:
    """Return the weights of taking 0, 1, .. `each` of some: coefficients of the product of 1 + odds z."""
    found = np.zeros(each + 1)
    found[0] = 1.0
    for one in odds:
        found[1:] += one * found[:-1]
    return found


def _product(parts: Sequence[Array], each: int) -> float:
    """Return the weight of taking just `each` of all parts."""
    found = np.eye(1, each + 1)[0]
    for part in parts:
        found = np.convolve(found, part)[: each + 1]
    return float(found[each])
