"""Training steps executed one after another, each with its batch; and the same by an oracle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mtia_emu.compiler.gradients.step import DRAW, LOSS, NORM, RATE, SCALE, STEP, TARGET, TrainingStep
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.ops.draws import DRAWS

from ..errors import UserError, refuse_unknown
from ..results.training import Losses
from ..sources import Source
from .rates import rate_schedule
from .training_oracle import StepOracle

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Progress = Callable[[str, int, int], None]
Execute = Callable[
    [Sequence[Arrays], Arrays], tuple[Arrays, list[Arrays]]
]  # of micro-batches, and what is kept
TOLERANCE = {
    "fp32": 1e-4,
    "bf16": 3e-2,
    "fp16": 3e-2,
    "fp8": 1e-1,
}  # of the largest loss: accuracy of each format's digits
FIRST_SCALE, GROWS_AFTER = (
    65536.0,
    2000,
)  # of a loss in fp16: as torch.amp.GradScaler begins, and how it grows
NUDGES = 8  # runs from weights that differ in their last digit, where losses part from the oracle's
SEEDS_APART = (
    0x9E3779B1  # draws between those of two seeds, an odd number of them: 2^32 over the golden ratio
)


@dataclass(frozen=True)
class Plan:
    """What training is asked to do beside the recipe of its step.

    `data` are arrays by input name, one batch or several along a first axis, which are taken in turn; without
    them one seeded batch is seen at every step. `rates` gives the learning rate of each step, from 1, or a
    `schedule` what it takes of the optimiser's, as a text: "cosine{total=1000,warmup=100}".
    """

    steps: int = 0
    data: Mapping[str, Array] | None = None
    seed: int = 0
    check: bool = False
    rates: Callable[[int], float] | None = None
    schedule: str | None = None

    def __post_init__(self) -> None:
        """Refuse what only executed steps can answer where none is executed."""
        flags = {"--check": self.check, "--data": self.data is not None}
        for flag, asked in {**flags, "--schedule": self.schedule is not None}.items():
            if asked and not self.steps:
                raise UserError(f"{flag} is of steps that are executed (right: --steps INT too)")
        if self.rates is not None and self.schedule is not None:
            raise UserError("rates and a schedule say the same thing twice (right: one of them)")
        if self.schedule is not None:
            rate_schedule(self.schedule)

    def rate(self, step: int, own: float) -> float:
        """Return the learning rate of a step, from 1, given the optimiser's `own`."""
        if self.rates is not None:
            return self.rates(step)
        return own if self.schedule is None else own * rate_schedule(self.schedule).factor(step)


def in_turn(step: TrainingStep, execute: Callable[[int, Arrays], Arrays]) -> Execute:
    """Return what executes a step graph by graph: `execute` runs one, by its number and inputs."""
    graphs = step.graphs

    def run(batches: Sequence[Arrays], kept: Arrays) -> tuple[Arrays, list[Arrays]]:
        each = []
        for micro, batch in enumerate(batches):
            index = len(graphs) - 1 if micro == len(batches) - 1 else 0
            each.append(execute(index, {**batch, **kept}))
            kept = kept | {old: each[-1][new] for new, old in graphs[index].states.items()}
        return kept, each

    return run


@dataclass
class StepRunner:
    """Steps of a recipe, executed: `execute` gives weights and states behind a step, and its other outputs.

    `exact` are the steps in fp32 that they are held to, where they are. Steps in `skips`, from 1, change
    nothing. With a `nudge`, a seed, each weight begins a last digit above or below its own.
    """

    source: Source
    step: TrainingStep
    execute: Execute
    plan: Plan
    progress: Progress
    exact: TrainingStep | None = None
    skips: tuple[int, ...] = ()
    nudge: int = 0

    def losses(self) -> Losses:
        """Return the loss of each step, beside that of the oracle."""
        skipped: list[int] = []
        seen = tuple(self._run(skipped))
        if self.exact is None:
            return Losses(seen, skipped=tuple(skipped))
        oracle, precision = StepOracle(self.exact.graphs), self.step.recipe.precision
        execute = in_turn(self.exact, oracle)
        held = replace(self, step=self.exact, execute=execute, exact=None, skips=tuple(skipped))
        name = oracle.name if precision == "fp32" else f"{oracle.name} in fp32"
        found = Losses(seen, tuple(held._run([])), name, TOLERANCE[precision], tuple(skipped))
        return found if found.within else replace(found, spread=held._spread(found.expected))

    def _spread(self, losses: Sequence[float]) -> tuple[float, ...]:
        """Return how far the loss of each step moves at most where first weights change by a last digit."""
        runs = [tuple(replace(self, nudge=seed)._run([])) for seed in range(1, NUDGES + 1)]
        return tuple(max(abs(x - loss) for x in each) for loss, *each in zip(losses, *runs, strict=True))

    def _run(self, skipped: list[int]) -> Iterator[float]:
        """Yield the loss of each step; steps whose gradients are not finite are added to `skipped`."""
        kept, scale, taken, good = self._first(), FIRST_SCALE, 0, 0
        batches, count = list(self._batches()), self.step.recipe.accumulate
        for number in range(self.plan.steps):
            before, micros = kept, range(number * count, (number + 1) * count)
            given = [batches[i % len(batches)] | self._scalars(taken + 1, scale, i) for i in micros]
            kept, outputs = self.execute(given, kept)
            total = sum(float(each[LOSS]) / count for each in outputs)
            finite = SCALE not in self.step.graph.inputs or bool(np.isfinite(outputs[-1][NORM]))
            if number + 1 in self.skips:
                kept, finite = before, False
            taken, good = taken + finite, good + 1 if finite else 0
            scale = scale / 2 if not finite else scale * 2 if good % GROWS_AFTER == 0 else scale
            if not finite:
                skipped.append(number + 1)
            self.progress("steps", number + 1, self.plan.steps)
            yield total

    def _scalars(self, step: int, scale: float, batch: int) -> Arrays:
        """Return the inputs that each step has of its own, besides its batch: the number of that among them.

        Random bits are of that number and the seed.
        """
        rate = self.plan.rate(step, self.step.recipe.optimiser.lr)
        scalars = {n: np.asarray(v, np.float32) for n, v in ((RATE, rate), (STEP, step), (SCALE, scale))}
        draw = (self.plan.seed * SEEDS_APART + batch) % DRAWS
        return {**scalars, DRAW: np.asarray(draw, np.uint32)}

    def _first(self) -> Arrays:
        """Return the weights and states before the first step."""
        step, kept = self.step, Arrays()
        for name, const in step.parameters.items():
            if not const.present:
                raise UserError(
                    f"{self.source.name}: the weights %{name} are absent, so the step can be timed but not "
                    "executed (right: put the weights' file beside the model, or leave out --steps)"
                )
            kept[name] = self._nudged(name, const.array(name).astype(step.graph.inputs[name].dtype.numpy))
            if f"{name}.master" in step.states:
                kept[f"{name}.master"] = const.array(name).astype(np.float32)
        return {n: np.zeros(k.shape, np.float32) for n, k in step.states.items()} | kept

    def _nudged(self, name: str, weights: Array) -> Array:
        if not self.nudge:
            return weights
        draw = np.random.default_rng([self.nudge, *name.encode()])
        up = np.where(draw.integers(0, 2, weights.shape), np.inf, -np.inf).astype(weights.dtype)
        return np.asarray(np.nextafter(weights, up))

    def _batches(self) -> Iterator[Arrays]:
        """Yield the batches, each an array for each input of the model and the target."""
        given, step = self.plan.data, self.step
        arrays = dict(given) if given is not None else self._random()
        for name in arrays:
            if name not in step.data:
                raise refuse_unknown("input of the training step", name, step.data)
        missing = [name for name in step.data if name not in arrays]
        if missing:
            raise UserError(f"no array for {', '.join(missing)} (given: {', '.join(arrays) or 'none'})")
        counts = {name: _batches_in(name, arrays[name], step.graph) for name in step.data}
        whole = math.lcm(*counts.values())
        for i in range(whole):
            yield {
                n: (a[i % counts[n]] if counts[n] and a.ndim > step.graph.inputs[n].rank else a)
                for n, a in ((n, _typed(arrays[n], step.graph, n)) for n in step.data)
            }

    def _random(self) -> Arrays:
        """Return seeded inputs, and targets that fit the loss."""
        step, seed = self.step, self.plan.seed
        arrays = self.source.examples(seed) if self.source.examples else random_inputs(step.forward, seed)
        kind, rng = step.graph.inputs[TARGET], np.random.default_rng(seed)
        if step.recipe.loss == "cross-entropy":
            target: Array = rng.integers(0, step.scores.shape[-1], kind.shape)
        elif step.recipe.loss == "mse":
            target = rng.standard_normal(kind.shape)
        else:
            target = rng.integers(0, 2, kind.shape).astype(np.float64)
        return {**{name: arrays[name] for name in step.data if name != TARGET}, TARGET: target}


def _typed(array: Array, graph: Graph, name: str) -> Array:
    to = graph.inputs[name].dtype.numpy
    if array.dtype.kind in "iub" or graph.inputs[name].dtype.is_float:
        return np.asarray(array).astype(to)
    raise UserError(f"input %{name} : {graph.inputs[name]} is given as {array.dtype}{list(array.shape)}")


def _batches_in(name: str, array: Array, graph: Graph) -> int:
    """Return how many batches an array holds; raise `UserError` for another shape."""
    shape = graph.inputs[name].shape
    if array.shape == shape:
        return 1
    if array.ndim == len(shape) + 1 and array.shape[1:] == shape and len(array):
        return len(array)
    raise UserError(
        f"%{name} is given as {array.dtype}{list(array.shape)} "
        f"(right: {list(shape)}, or some of them along a first axis)"
    )
