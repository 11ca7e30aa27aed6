"""Training a model: its step is built, compiled, timed and priced, and executed where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any, Required, TypedDict, TypeVar, Unpack

from mtia_emu.compiler.frontend.trainable import load_trainable
from mtia_emu.compiler.gradients.optimisers import optimiser
from mtia_emu.compiler.gradients.recompute import Throughput
from mtia_emu.compiler.gradients.step import NEAREST, TARGET, Recipe, TrainingStep
from mtia_emu.compiler.gradients.step import training_step as step_of
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.lower.assemble import About
from mtia_emu.compiler.ops import work
from mtia_emu.compiler.pipeline import Compiled, compile_graph
from mtia_emu.compiler.reference import core_library

from ..engine.bounds import roofs
from ..engine.function import execute
from ..errors import UserError
from ..gpu import load_gpu
from ..machine.chip import Chip, load_chip
from ..options import DEFAULT_CHIP, DEFAULT_GPU, Mode, Options
from ..results.machine import Machine
from ..results.report import Report
from ..results.training import Losses, PeakMemory, PipelineUse, Training
from ..sources import Source, open_model, training_dims
from ..types import dtype
from .accelerator import Accelerator, GraphModel, ProgramRun
from .partition import Exchanges
from .peak_memory import peak_memory
from .rank_runs import RankRuns
from .stage_time import StageRun
from .staged_training import StagedTraining, even
from .system_run import beside
from .training_goal import Goal
from .training_spread import Sharing, Spread, spread
from .training_steps import Array, Arrays, Execute, Plan, StepRunner, in_turn
from .tuning import tuning

Progress = Callable[[str, int, int], None]
EXACT: dict[str, Any] = {"precision": "fp32", "keep": inf, "rounding": NEAREST}  # what a recipe is held to
Value = TypeVar("Value", Plan, Sharing, Goal)


class RecipeWords(TypedDict, total=False):
    """The fields of `Recipe` behind loss and optimizer, as keywords of a function."""

    output: str
    precision: str
    clip: float
    accumulate: int
    train: tuple[str, ...]
    freeze: tuple[str, ...]
    keep: float
    embeddings: str
    rounding: str


class TrainingWords(RecipeWords, total=False):
    """What training is asked for, as keywords: the fields of `Recipe`, `Sharing`, `Plan` and `Goal`."""

    loss: Required[str]
    optimizer: str
    system: str | None
    parallel: str | None
    zero: int
    steps: int
    data: Mapping[str, Array] | None
    seed: int
    check: bool
    rates: Callable[[int], float] | None
    schedule: str | None
    until: float | None
    failures: str | None


def training_step(
    model: str | Path,
    loss: str,
    optimizer: str = "sgd",
    *,
    chip: str | Chip = DEFAULT_CHIP,
    dims: Mapping[str, int] | None = None,
    seed: int | None = None,
    **recipe: Unpack[RecipeWords],
) -> TrainingStep:
    """Return the training step of a model as a graph; see `train` for what may be given.

    With a `seed` a model of the zoo has random weights, else none. What is computed again under a `keep`
    follows from the pace of the `chip`.
    """
    pace = load_chip(chip) if isinstance(chip, str) else chip
    with open_model(str(model), training_dims(str(model), dims or {}), execute_seed=seed) as source:
        step = _step(source, Recipe(loss, optimiser(optimizer), **recipe), pace)
        return replace(step, parameters={n: replace(c, data=_held(c, n)) for n, c in step.parameters.items()})


def _held(const: Any, name: str) -> Array | None:
    return const.array(name) if const.present else None


def train(
    model: str | Path,
    chip: str | Chip | None = None,
    *,
    settings: Mapping[str, object] | None = None,
    dims: Mapping[str, int] | None = None,
    gpu: str | Machine | None = DEFAULT_GPU,
    progress: Progress | None = None,
    **words: Unpack[TrainingWords],
) -> Training:
    """Time and price a training step of a model on a chip, and execute `steps` of them.

    `loss` is cross-entropy, bce, bce-with-logits or mse; `optimizer` a text as `adamw{lr=3e-4}`. The other
    keywords are the fields of `Recipe`: output, precision, clip, accumulate, train, freeze, keep, embeddings,
    rounding; of `Plan`: steps, data, seed, check, rates, schedule; of `Goal`: with `until` or `failures` the
    result says what the whole training takes; and of `Sharing`: with a `system` the step is split over its
    chips by `parallel`, as in dp=4,tp=2,pp=2; `zero` is the stage of ZeRO, 1 to 3, of what is shared out over
    dp.
    `check` holds the losses to the same steps in fp32 by onnxruntime. Raises `UserError` for what does not
    fit.
    """
    given: dict[str, Any] = dict(words)
    plan, sharing, goal = _taken(Plan, given), _taken(Sharing, given), _taken(Goal, given)
    recipe = Recipe(optimiser=optimiser(given.pop("optimizer", "sgd")), **given)
    on = _place(chip, settings, sharing)
    pace = on if isinstance(on, Chip) else on.machine.chip
    _refuse_without_rate(recipe, pace)
    bound = training_dims(str(model), dims or {})
    with open_model(str(model), bound, execute_seed=plan.seed if plan.steps else None) as source:
        step = _step(source, recipe, pace)
        exact = _step(source, replace(recipe, **EXACT), pace) if plan.check else None
        timed = _timed(source, step, on, gpu, progress or _silent)
        runner = StepRunner(source, timed.step, timed.execute, plan, progress or _silent, exact)
        done = _training(step, timed, runner.losses() if plan.steps else None)
        return replace(done, whole=goal.of(done))


def _taken(kind: type[Value], words: dict[str, Any]) -> Value:
    """Return a value of a class whose fields are taken out of keywords."""
    return kind(**{f.name: words.pop(f.name) for f in fields(kind) if f.name in words})


def _silent(stage: str, done: int, total: int) -> None:
    """Say nothing of progress."""


def _place(chip: str | Chip | None, settings: Mapping[str, object] | None, sharing: Sharing) -> Chip | Spread:
    """Return the chip that trains, or the system with how the step is split over it."""
    if sharing.system is None:
        return chip if isinstance(chip, Chip) else load_chip(chip or DEFAULT_CHIP, settings)
    changed = chip if isinstance(chip, Chip) else None if chip is None else load_chip(chip, settings)
    return spread(sharing, dict(settings or {}), changed)


def _refuse_without_rate(recipe: Recipe, chip: Chip) -> None:
    """Refuse floats of 8 bits on a chip that multiplies none; those of 32 may run on its SIMD engine."""
    kind = _format(recipe)
    if recipe.precision == "fp8" and not chip.pe.matrix.supports(kind):
        raise UserError(
            f"--precision fp8: the matrix unit of {chip.name} has no rate for {kind} "
            "(right: bf16, or a chip that has one, as mtia-300)"
        )


def _step(source: Source, recipe: Recipe, chip: Chip) -> TrainingStep:
    if source.is_graph:
        raise UserError(f"{source.path}: a graph's text is what a step becomes (right: the ONNX model)")
    graph, stored = load_trainable(source.path, {} if source.examples else source.dims)
    return step_of(graph, stored, recipe, _pace(chip, _format(recipe)))


def _pace(chip: Chip, precision: str) -> Throughput:
    """Return what computing a value again takes on a chip, by its peaks."""
    peaks = roofs(chip, dtype(precision))
    return Throughput(peaks.matrix_ops_per_s / 2 or peaks.simd_ops_per_s / 2, peaks.dram_bytes_per_s)


def _training(step: TrainingStep, timed: _Timed, losses: Losses | None) -> Training:
    target = step.graph.inputs[TARGET]
    tokens = step.recipe.loss == "cross-entropy"
    items = step.recipe.accumulate * (target.size if tokens else (target.shape or (1,))[0])
    return Training(
        timed.report,
        timed.beside,
        max(timed.peaks, key=lambda peak: peak.total),
        step.recipe.accumulate * _macs(step.forward),
        sum(const.type.size for const in step.parameters.values()),
        items,
        "tokens" if tokens and target.rank > 1 else "samples",
        losses,
        pipeline=timed.pipeline,
    )


@dataclass(frozen=True)
class _Timed:
    """What a step came to, and how it is executed: `step` is the one that is, with more weights in stages."""

    step: TrainingStep
    report: Report
    beside: Report | None
    peaks: list[PeakMemory]
    execute: Execute
    pipeline: PipelineUse | None = None


def _timed(
    source: Source, step: TrainingStep, on: Chip | Spread, gpu: str | Machine | None, tick: Progress
) -> _Timed:
    if isinstance(on, Chip):
        return _on_chip(source, step, on, gpu, tick)
    return _on_system(source, step, on, gpu, tick)


def _on_chip(
    source: Source, step: TrainingStep, chip: Chip, gpu: str | Machine | None, tick: Progress
) -> _Timed:
    compiled = [_compiled(source, graph, chip, _format(step.recipe), tick) for graph in step.graphs]
    tick("time", 0, 1)
    other, count = load_gpu(gpu).in_mode(Mode()) if isinstance(gpu, str) else gpu, step.recipe.accumulate
    report = _whole([Accelerator(chip).report(ProgramRun(c.program)) for c in compiled], count)
    beside = None
    if other is not None:
        beside = _whole([other.report(ProgramRun(c.program)) for c in compiled], count)

    def run(index: int, given: Arrays) -> Arrays:
        program = compiled[index].program
        inputs = {binding.name: given[binding.name] for binding in program.inputs}
        return execute(program, chip, inputs, core_library()).outputs

    peaks = [peak_memory(c.schedule, step.kind_of) for c in compiled]
    return _Timed(step, report, beside, peaks, in_turn(step, run))


def _on_system(
    source: Source, step: TrainingStep, on: Spread, gpu: str | Machine | None, tick: Progress
) -> _Timed:
    """Split a step over the chips of a system: all of them run the program of their part."""
    if on.machine.mesh.stages > 1 or step.recipe.accumulate > 1:
        return _in_stages(source, step, on, gpu, tick)
    machine, parts = on.machine, on.parts(step)
    compiled = _compiled(source, parts.graph(0, 0), machine.chip, _format(step.recipe), tick)
    tick("time", 0, 1)
    options, exchanges = _options(_format(step.recipe)), Exchanges(machine.system, machine.mesh)
    model = GraphModel(compiled.onnx, options, _about(source))
    run = StageRun(parts, 0, compiled.program, machine.chip, exchanges)
    report = machine.timed(model, parts, [run])
    other = beside(machine.system, gpu, machine.mesh) if isinstance(gpu, str) else None
    ranks = RankRuns(
        parts,
        machine.system,
        machine.chip,
        lambda graph: _compiled(source, graph, machine.chip, _format(step.recipe), tick).program,
        {(0, 0): compiled.program},
    )
    return _Timed(
        step,
        report,
        None if other is None else other.timed(model, parts),
        [peak_memory(compiled.schedule, step.kind_of)],
        in_turn(step, lambda index, given: ranks.outputs({name: given[name] for name in parts.split.inputs})),
    )


def _in_stages(
    source: Source, step: TrainingStep, on: Spread, gpu: str | Machine | None, tick: Progress
) -> _Timed:
    """Split a step of several stages or micro-batches: chips run the programs of their stages by turns."""
    machine, pieces = on.machine, on.pieces(step)
    form = _format(step.recipe)
    staged = StagedTraining(pieces, machine, lambda g: _compiled(source, g, machine.chip, form, tick))
    model = GraphModel(pieces.staged.step.graph, _options(form), _about(source))
    if machine.mesh.cut == "time":
        staged = even(step, staged, on.zero)
        pieces = staged.pieces
    report, used = staged.timed(model)
    tick("time", 0, 1)
    other = beside(machine.system, gpu, machine.mesh) if isinstance(gpu, str) else None
    return _Timed(
        pieces.staged.step,
        report,
        None if other is None else staged.beside(other, model),
        [peak.memory for peak in used.peaks],
        staged.execute,
        used if machine.mesh.stages > 1 else None,
    )


def _about(source: Source) -> About:
    return About(f"{source.name} (training)", str(source.name), source.dims)


def _format(recipe: Recipe) -> str:
    """Return the floats that layers multiply in."""
    return "fp8_e4m3" if recipe.precision == "fp8" else recipe.precision


def _options(precision: str) -> Options:
    return Options.of(dtype=precision)


def _compiled(
    source: Source, graph: Graph, chip: Chip, precision: str, progress: Progress | None
) -> Compiled:
    options = _options(precision)
    return compile_graph(
        graph, chip, about=_about(source), tuning=tuning(options), options=options, progress=progress
    )


def _whole(reports: list[Report], batches: int) -> Report:
    """Return the report of a step: all micro-batches but one by the first program, the last by the last."""
    return reports[-1] if batches == 1 else (batches - 1) * reports[0] + reports[-1]


def _macs(graph: Graph) -> int:
    return sum(work(graph, node).macs for node in graph.nodes)
