"""What the rows of a sweep say: the front, the best, which parameter matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError, nearest
from .row import FAILED, OK, Row, record
from .spec import ALL_OBJECTIVES, Spec
from .store import Store

Array = np.ndarray[Any, Any]
BINS = 8  # of a parameter with more values than these
BASE = "base chip"
SHUFFLES = 200  # random orders that show what chance explains
SIGNED = ("npv_usd",)  # columns that may be below 0


@dataclass(frozen=True)
class ParameterMove:
    """A parameter's least and greatest value in a sweep, and a column's mean over the rows with each."""

    parameter: str
    least: float
    most: float
    at_least: float
    at_most: float


@dataclass(frozen=True)
class Study:
    """The rows of a store for looking at: `good` are those of status "ok", by number."""

    spec: Spec
    path: str
    counts: Counter[str]
    good: list[Row]
    failures: list[tuple[str, int]]
    base: Row
    gpu: dict[str, Any]
    origin: dict[str, Any]

    @classmethod
    def of(cls, store: Store, *, layers: bool = False) -> Study:
        """Return the study of a store; raise `UserError` where what it holds is not a sweep's."""
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        good = []
        for row in store.rows(layers=layers):
            counts[row.status] += 1
            if row.status == OK:
                good.append(row)
            elif row.status == FAILED:
                reasons[row.reason] += 1
        origin = {key: store.get(key) for key in ("version", "code", "seed", "created_utc")}
        return cls(
            store.spec,
            store.path,
            counts,
            good,
            reasons.most_common(),
            store.base(BASE),
            _gpu(store),
            origin,
        )

    @property
    def parameters(self) -> list[str]:
        """Return the parameters that vary, linked ones last."""
        return [*self.spec.set, *self.spec.link]

    def column(self, name: str, rows: Sequence[Row] | None = None) -> list[Any]:
        """Return one column of the good rows; raise `UserError` for one that there is not."""
        known = record(self.base, self.spec)
        if name not in known:
            raise UserError(f"no column '{name}' in the sweep{nearest(name, known)}")
        return [record(row, self.spec)[name] for row in (self.good if rows is None else rows)]

    def numbers(self, name: str) -> Array:
        """Return one column as floats [row], NaN for what is no number."""
        return np.array([_float(value) for value in self.column(name)])

    def larger_is_better(self, name: str) -> bool:
        """Return whether more of a column is better; of most it is not."""
        return ALL_OBJECTIVES.get(name, False) or name.endswith(("utilization", "_per_s"))

    def front(self, names: Sequence[str]) -> Array:
        """Return which good rows, [row], no other one beats: as good in all columns, better in one."""
        signs = [-1.0 if self.larger_is_better(name) else 1.0 for name in names]
        values = np.stack(
            [sign * self.numbers(name) for sign, name in zip(signs, names, strict=True)], axis=1
        )
        return pareto(values)

    def best(self) -> dict[str, Row]:
        """Return, for each objective, the good row that is best in it, where any is."""
        winners = {}
        for name in self.spec.objectives:
            values = self.numbers(name)
            if len(values) and not np.isnan(values).all():
                winners[name] = self.good[
                    int((np.nanargmax if self.larger_is_better(name) else np.nanargmin)(values))
                ]
        return winners

    def sensitivity(self, name: str) -> dict[str, float]:
        """Return, by parameter, the share of a column's variance that it explains alone.

        The variance is that of the logarithm, but for columns in `SIGNED`, which may be below 0.
        """
        groups, seen = self._varied(name)
        return {key: explained(group, seen) for key, group in groups.items()}

    def by_chance(self, name: str) -> dict[str, float]:
        """Return, by parameter, the share that it explains of the same values in a random order.

        The 95th percentile of `SHUFFLES`, seeded: what a parameter without any effect exceeds once in twenty
        sweeps of as many points.
        """
        groups, seen = self._varied(name)
        rng = np.random.default_rng(0)
        orders = [rng.permutation(len(seen)) for _ in range(SHUFFLES)]
        return {
            key: float(np.quantile([explained(group, seen[order]) for order in orders], 0.95))
            for key, group in groups.items()
        }

    def _varied(self, name: str) -> tuple[dict[str, Array], Array]:
        """Return each parameter's groups of the points that have a column, and its values or logarithms."""
        values = self.numbers(name)
        usable = np.isfinite(values) & ((values > 0) | (name in SIGNED))
        seen = values[usable] if name in SIGNED else np.log(values[usable])
        columns = {key: self.column(key) for key in self.spec.set}
        return {
            key: _groups([v for v, u in zip(column, usable, strict=True) if u])
            for key, column in columns.items()
        }, seen

    def moves(self, name: str) -> list[ParameterMove]:
        """Return what each parameter does to a column's mean, from its least value to its greatest."""
        values, found = self.numbers(name), []
        for key in self.spec.set:
            at = self.numbers(key)
            usable = np.isfinite(values) & np.isfinite(at)
            if not usable.any():
                continue
            ends = float(at[usable].min()), float(at[usable].max())
            means = [float(values[usable & (at == end)].mean()) for end in ends]
            if ends[0] < ends[1]:
                found.append(ParameterMove(key, *ends, *means))
        return sorted(found, key=lambda move: -abs(move.at_most - move.at_least))


def pareto(values: Array) -> Array:
    """Return a mask of the rows of [n, k] that no other dominates; smaller is better, NaN never is."""
    mask: Array = np.logical_not(np.isnan(values).any(axis=1))
    order = np.flatnonzero(mask)
    order = order[np.lexsort(values[order].T[::-1])]
    kept: list[int] = []
    for index in order.tolist():
        held = values[kept]
        beaten = (
            len(kept) and ((held <= values[index]).all(axis=1) & (held < values[index]).any(axis=1)).any()
        )
        if beaten:
            mask[index] = False
        else:
            kept.append(index)
    return mask


def explained(groups: Array, values: Array) -> float:
    """Return the share of the variance of values [n] that lies between their groups [n], 0 to 1.

    Epsilon squared (Kelley 1935): the correlation ratio less what groups of chance would explain.
    """
    n, (labels, place) = len(values), np.unique(groups, return_inverse=True)
    off = values - values.mean() if n else values
    total = float((off**2).sum())
    if n <= len(labels) or len(labels) < 2 or total <= 1e-24 * max(1.0, n):
        return 0.0
    sums, counts = np.bincount(place, off), np.bincount(place)
    within = max(total - float((sums**2 / counts).sum()), 0.0)
    return max(0.0, 1.0 - within / total * (n - 1) / (n - len(labels)))


def _groups(values: list[Any]) -> Array:
    """Return a group for each value, [value]: the value's own, or one of BINS equal parts of many."""
    distinct = {text: place for place, text in enumerate(sorted(set(map(str, values))))}
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if len(distinct) <= BINS or not numeric:
        return np.array([distinct[str(v)] for v in values], int)
    ranks = np.argsort(np.argsort(np.array(values, float), kind="stable"), kind="stable")
    return ranks * BINS // len(values)


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def _gpu(store: Store) -> dict[str, Any]:
    """Return the GPU's metrics, empty where there is none; only numbers, besides its name."""
    values = store.get("gpu")
    if not isinstance(values, dict) or not isinstance(values.get("name", ""), str):
        raise UserError(f"store {store.path} is damaged: the GPU's figures cannot be read")
    return {k: v for k, v in values.items() if k == "name" or v is None or isinstance(v, int | float)}
