"""Scores of a model against measurements, and the split into fitted and scored rows."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

SEED = 0  # of every split: half of the groups are fitted, the other half scored


@dataclass(frozen=True)
class Score:
    """How far modelled times are from measured ones; errors are relative to the measured time."""

    rows: int
    median: float
    ninth: float
    bias: float
    low: float
    high: float


def score(modelled: np.ndarray, measured: np.ndarray) -> Score:
    """Return the score of modelled times, in the units of the measured ones."""
    signed = modelled / measured - 1
    low, high = np.quantile(measured / modelled, (0.1, 0.9))
    return Score(
        len(measured),
        float(np.median(abs(signed))),
        float(np.quantile(abs(signed), 0.9)),
        float(np.median(signed)),
        float(low),
        float(high),
    )


def fitted_groups(groups: Sequence[Hashable], seed: int = SEED) -> set[Hashable]:
    """Return the half of the distinct groups that may be fitted."""
    distinct = sorted(set(groups))  # type: ignore[type-var]
    return set(random.Random(seed).sample(distinct, len(distinct) // 2))


def halves(groups: Sequence[Hashable], seed: int = SEED) -> np.ndarray:
    """Return by row whether its group may be fitted; the other rows are for scoring."""
    chosen = fitted_groups(groups, seed)
    return np.array([g in chosen for g in groups], bool)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(x: float, signed: bool = False) -> str:
    """Return a share as a percentage."""
    return f"{100 * x:+.1f} %" if signed else f"{100 * x:.1f} %"


def cells(s: Score) -> list[str]:
    """Return the cells rows, median, 90th percentile, bias."""
    return [f"{s.rows:,}", percent(s.median), percent(s.ninth), percent(s.bias, signed=True)]
