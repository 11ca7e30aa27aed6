"""Training a model: its step is built, compiled, timed and priced, and executed where that is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtia_emu.compiler.frontend.trainable import load_trainable
from mtia_emu.compiler.gradients.optimisers import optimiser
from mtia_emu.compiler.gradients.recompute import BALANCE, Throughput
from mtia_emu.compiler.gradients.step import LOSS, RATE, SCALE, STEP, TARGET, Recipe, TrainingStep
from mtia_emu.compiler.gradients.step import training_step as step_of
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.ops import work
from mtia_emu.compiler.pipeline import Compiled, compile_graph
from mtia_emu.compiler.reference import core_library, evaluate

from ..engine.bounds import roofs
from ..engine.function import execute
from ..errors import UserError, refuse_unknown
from ..gpu import load_gpu
from ..machine.chip import Chip, load_chip
from ..options import DEFAULT_CHIP, DEFAULT_GPU, Mode, Options
from ..results.machine import Machine
from ..results.report import Report
from ..results.training import Losses, Training
from ..sources import ZOO, Source, open_model
from ..types import dtype
from ..zoo import training_dims
from .accelerator import Accelerator, ProgramRun
from .peak_memory import peak_memory
from .tuning import tuning

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Progress = Callable[[str, int, int], None]
TOLERANCE = {
    "fp32": 1e-4,
    "bf16": 3e-2,
    "fp16": 3e-2,
}  # of the largest loss: accuracy of each format's digits
FIRST_SCALE, GROWS_AFTER = (
    65536.0,
    2000,
)  # of a loss in fp16: as torch.amp.GradScaler begins, and how it grows
REFERENCES = "the references of its ops"


@dataclass(frozen=True)
class Plan:
    """What training is asked to do beside the recipe of its step.

    `data` are arrays by input name, one batch or several along a first axis, which are taken in turn; without
    them one seeded batch is seen at every step. `rates` gives the learning rate of each step, from 1.
    """

    steps: int = 0
    data: Mapping[str, Array] | None = None
    seed: int = 0
    check: bool = False
    rates: Callable[[int], float] | None = None


def training_step(
    model: str | Path,
    loss: str,
    optimizer: str = "sgd",
    *,
    dims: Mapping[str, int] | None = None,
    seed: int | None = None,
    **recipe: Any,
) -> TrainingStep:
    """Return the training step of a model as a graph; see `train` for what may be given.

    With a `seed` a model of the zoo has random weights, else none.
    """
    with open_model(str(model), _dims(str(model), dims or {}), execute_seed=seed) as source:
        step = _step(source, Recipe(loss, optimiser(optimizer), **recipe))
        return replace(step, parameters={n: replace(c, data=_held(c, n)) for n, c in step.parameters.items()})


def _held(const: Any, name: str) -> Array | None:
    return const.array(name) if const.present else None


def train(
    model: str | Path,
    chip: str | Chip | None = None,
    *,
    loss: str,
    optimizer: str = "sgd",
    steps: int = 0,
    data: Mapping[str, Array] | None = None,
    check: bool = False,
    seed: int = 0,
    rates: Callable[[int], float] | None = None,
    settings: Mapping[str, object] | None = None,
    dims: Mapping[str, int] | None = None,
    gpu: str | Machine | None = DEFAULT_GPU,
    progress: Progress | None = None,
    **recipe: Any,
) -> Training:
    """Time and price a training step of a model on a chip, and execute `steps` of them.

    `loss` is cross-entropy, bce, bce-with-logits or mse; `optimizer` a text as `adamw{lr=3e-4}`; `recipe` has
    the other fields of `Recipe`: output, precision, clip, accumulate, train, freeze, keep, embeddings.
    For `data` and `rates` see `Plan`.
    `check` holds the losses to the same steps by the references of the ops. Raises `UserError` for what does
    not fit.
    """
    loaded = chip if isinstance(chip, Chip) else load_chip(chip or DEFAULT_CHIP, settings)
    plan = Plan(steps, data, seed, check, rates)
    bound = _dims(str(model), dims or {})
    with open_model(str(model), bound, execute_seed=seed if steps else None) as source:
        step = _step(source, Recipe(loss, optimiser(optimizer), **recipe), loaded)
        return _trained(source, step, loaded, plan, gpu, progress)


def _dims(model: str, dims: Mapping[str, int]) -> Mapping[str, int]:
    return training_dims(model.removeprefix(ZOO), dims) if model.startswith(ZOO) else dims


def _step(source: Source, recipe: Recipe, chip: Chip | None = None) -> TrainingStep:
    if source.is_graph:
        raise UserError(f"{source.path}: a graph's text is what a step becomes (right: the ONNX model)")
    graph, stored = load_trainable(source.path, {} if source.examples else source.dims)
    return step_of(graph, stored, recipe, BALANCE if chip is None else _pace(chip, recipe.precision))


def _pace(chip: Chip, precision: str) -> Throughput:
    """Return what computing a value again takes on a chip, by its peaks."""
    peaks = roofs(chip, dtype(precision))
    return Throughput(peaks.matrix_ops_per_s / 2 or peaks.simd_ops_per_s / 2, peaks.dram_bytes_per_s)


def _trained(
    source: Source,
    step: TrainingStep,
    chip: Chip,
    plan: Plan,
    gpu: str | Machine | None,
    progress: Progress | None,
) -> Training:
    compiled = [
        _compiled(source, graph, chip, step.recipe.precision, progress)
        for graph in ([step.micro] if step.micro is not None else []) + [step.graph]
    ]
    if progress is not None:
        progress("time", 0, 1)
    other = load_gpu(gpu).in_mode(Mode()) if isinstance(gpu, str) else gpu
    report = _whole(
        [Accelerator(chip).report(ProgramRun(c.program)) for c in compiled], step.recipe.accumulate
    )
    beside = None
    if other is not None:
        beside = _whole([other.report(ProgramRun(c.program)) for c in compiled], step.recipe.accumulate)
    peaks = [peak_memory(c.schedule, step.kind_of) for c in compiled]
    losses = _Executor(source, step, chip, compiled, plan, progress).losses() if plan.steps else None
    target = step.graph.inputs[TARGET]
    tokens = step.recipe.loss == "cross-entropy"
    items = step.recipe.accumulate * (target.size if tokens else (target.shape or (1,))[0])
    return Training(
        report,
        beside,
        max(peaks, key=lambda peak: peak.total),
        step.recipe.accumulate * _macs(step.forward),
        sum(const.type.size for const in step.parameters.values()),
        items,
        "tokens" if tokens and target.rank > 1 else "samples",
        losses,
    )


def _compiled(
    source: Source, graph: Graph, chip: Chip, precision: str, progress: Progress | None
) -> Compiled:
    options = Options.of(dtype=precision)
    about = About(f"{source.name} (training)", str(source.name), source.dims)
    return compile_graph(graph, chip, about=about, tuning=tuning(options), options=options, progress=progress)


def _whole(reports: list[Report], batches: int) -> Report:
    """Return the report of a step: all micro-batches but one by the first program, the last by the last."""
    return reports[-1] if batches == 1 else (batches - 1) * reports[0] + reports[-1]


def _macs(graph: Graph) -> int:
    return sum(work(graph, node).macs for node in graph.nodes)


@dataclass
class _Executor:
    """Executes steps: programs run on the chip, and graphs by the references beside them."""

    source: Source
    step: TrainingStep
    chip: Chip
    compiled: list[Compiled]
    plan: Plan
    progress: Progress | None
    skipped: list[int] = field(default_factory=list)

    def losses(self) -> Losses:
        """Return the loss of each step, beside that of the oracle."""
        batches = list(self._batches())
        seen = tuple(self._run(batches, self._on_chip))
        skipped = tuple(self.skipped)
        if not self.plan.check:
            return Losses(seen, skipped=skipped)
        expected = tuple(self._run(batches, self._by_reference))
        return Losses(seen, expected, REFERENCES, TOLERANCE[self.step.recipe.precision], skipped)

    def _on_chip(self, index: int, given: Arrays) -> Arrays:
        program = self.compiled[index].program
        return execute(program, self.chip, _taken(program.inputs, given), core_library()).outputs

    def _by_reference(self, index: int, given: Arrays) -> Arrays:
        graph = self.compiled[index].onnx
        return evaluate(graph, {name: given[name] for name in graph.inputs})

    def _run(self, batches: list[Arrays], once: Callable[[int, Arrays], Arrays]) -> Iterator[float]:
        """Yield the loss of each step, executed by a function of the program's number and its inputs."""
        kept, scale, taken, good = self._first(), FIRST_SCALE, 0, 0
        self.skipped = []
        count, last = self.step.recipe.accumulate, len(self.compiled) - 1
        for number in range(self.plan.steps):
            total = 0.0
            for micro in range(count):
                batch = batches[(number * count + micro) % len(batches)]
                scalars = self._scalars(taken + 1, scale)
                index = last if micro == count - 1 else 0
                outputs = once(index, {**batch, **kept, **scalars})
                states = self.compiled[index].onnx.states
                kept |= {old: outputs[new] for new, old in states.items()}
                total += float(outputs[LOSS]) / count
            finite = SCALE not in self.step.graph.inputs or bool(np.isfinite(outputs["gradient_norm"]))
            taken, good = taken + finite, good + 1 if finite else 0
            scale = scale / 2 if not finite else scale * 2 if good % GROWS_AFTER == 0 else scale
            if not finite:
                self.skipped.append(number + 1)
            if self.progress is not None:
                self.progress("steps", number + 1, self.plan.steps)
            yield total

    def _scalars(self, step: int, scale: float) -> Arrays:
        """Return the inputs that each step has of its own, besides its batch."""
        rates = self.plan.rates
        rate = rates(step) if rates is not None else self.step.recipe.optimiser.lr
        return {name: np.asarray(v, np.float32) for name, v in ((RATE, rate), (STEP, step), (SCALE, scale))}

    def _first(self) -> Arrays:
        """Return the weights and states before the first step."""
        step, kept = self.step, Arrays()
        for name, const in step.parameters.items():
            if not const.present:
                raise UserError(
                    f"{self.source.name}: the weights %{name} are absent, so the step can be timed but not "
                    "executed (right: put the weights' file beside the model, or leave out --steps)"
                )
            kept[name] = const.array(name).astype(step.graph.inputs[name].dtype.numpy)
            if f"{name}.master" in step.states:
                kept[f"{name}.master"] = const.array(name).astype(np.float32)
        return {n: np.zeros(k.shape, np.float32) for n, k in step.states.items()} | kept

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


def _taken(inputs: Any, given: Arrays) -> Arrays:
    return {binding.name: given[binding.name] for binding in inputs}


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
