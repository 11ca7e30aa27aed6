"""Guided search: an established library proposes points in batches, and is told what came of them.

A batch is asked for, evaluated and told as a whole and in order, so that the points do not depend on how many
workers there are or on which of them was first; told the same rows again, the search proposes the same
points.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import UserError
from .axis import Axis
from .row import OK, Row
from .space import Point
from .spec import ALL_OBJECTIVES, Spec

TRIES = 200  # proposals in a row that may break a constraint or be known; the second half are random
BROKEN = "broken"  # the constraint of a trial that cannot be


class Search:
    """A study of one spec. `excluded` says which constraint a point breaks, empty where it breaks none."""

    def __init__(self, spec: Spec, excluded: Callable[[Point], str]) -> None:
        optuna = _library()
        self.spec, self.excluded, self.axes = spec, excluded, spec.axes
        kind: Any = optuna.samplers.TPESampler
        if spec.method == "nsga2":
            kind = partial(optuna.samplers.NSGAIISampler, population_size=max(2, spec.batch))
        self.guide = kind(seed=spec.seed)
        self.chance = optuna.samplers.RandomSampler(seed=spec.seed)
        directions = ["maximize" if ALL_OBJECTIVES[name] else "minimize" for name in spec.objectives]
        self.study = optuna.create_study(directions=directions, sampler=self.guide)
        self.worst = [-math.inf if ALL_OBJECTIVES[name] else math.inf for name in spec.objectives]
        self.known: dict[tuple[Any, ...], Sequence[float] | None] = {}
        self.trials: dict[int, Any] = {}

    def ask(self) -> list[Point]:
        """Return the next batch; empty when all points are made, or no new one is found."""
        batch: list[Point] = []
        tries = 0
        while len(batch) < self.spec.batch and len(self.trials) < self.spec.points and tries < TRIES:
            self.study.sampler = self.guide if tries < TRIES // 2 else self.chance
            trial = self.study.ask()
            point = Point(len(self.trials), {one.key: _suggest(trial, one) for one in self.axes})
            key = tuple(point.params.values())
            if key in self.known or self.excluded(point):
                self._tell(trial, self.known.get(key))
                tries += 1
                continue
            self.known[key] = None
            self.trials[point.index] = trial
            batch.append(point)
            tries = 0
        return batch

    def tell(self, points: Sequence[Point], rows: Sequence[Row]) -> None:
        """Take in the rows of a batch, in the order of its points."""
        for point, row in zip(points, rows, strict=True):
            values: list[float] | None = None
            if row.status == OK:
                measured = [row.metrics.get(name) for name in self.spec.objectives]
                values = [float(v) for v in measured if v is not None and math.isfinite(v)]
                values = values if len(values) == len(measured) else None
            self.known[tuple(point.params.values())] = values
            self._tell(self.trials[point.index], values)

    def _tell(self, trial: Any, values: Sequence[float] | None) -> None:
        """Tell the library a point's objectives; None: it cannot be, which is a constraint that it breaks."""
        trial.set_constraint(BROKEN, float(values is None))
        self.study.tell(trial, self.worst if values is None else values)


def _suggest(trial: Any, one: Axis) -> Any:
    """Return the library's proposal for a parameter; a list of numbers keeps its order, names have none."""
    if one.values:
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in one.values)
        if numbers:
            return one.values[trial.suggest_int(one.key, 0, len(one.values) - 1)]
        return one.values[trial.suggest_categorical(one.key, range(len(one.values)))]
    if one.whole:
        return trial.suggest_int(one.key, int(one.low), int(one.high), log=one.log)
    return float(f"{trial.suggest_float(one.key, one.low, one.high, log=one.log):.12g}")


def _library() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError(
            "methods tpe and nsga2 need optuna: pip install 'mtia-emu[search]'; or use --method latin"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
