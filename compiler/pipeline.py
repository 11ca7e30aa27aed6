"""The passes in order, and compilation from a graph to a program."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Unpack

from mtia_emu import settings
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.options import Options, Words
from mtia_emu.program.isa import Program
from mtia_emu.reuse.memo import SameObject
from mtia_emu.types import DType, ModelWork, TensorType

from . import text
from .check import Known, check_made
from .foreign import apply, blamed
from .formats import Format, choose_format, format_text
from .graph import Graph
from .lower.assemble import About, assemble
from .lower.beside import gather
from .lower.choice import ESTIMATED, Tuning
from .lower.emit import emit
from .lower.launches import Launches
from .lower.place import Placement, place, room_notes
from .lower.prefetch import Ahead, as_launched, read_ahead
from .lower.price import StepPrices
from .lower.schedule import schedule
from .lower.steps import Schedule
from .ops.expert_matmul import LAW
from .pass_text import Steps, steps_of, without_folders
from .passes import (
    AppendCaches,
    Fold,
    FuseAttention,
    FuseBags,
    FuseEpilogue,
    FuseMaps,
    FuseNorms,
    FuseRotary,
    FuseStates,
    FuseTails,
    FuseUpdates,
    GroupHeads,
    KeepPacked,
    KeepRounding,
    Legalise,
    LowerIndexing,
    MergeSiblings,
    MergeTables,
    Pass,
    Prune,
    Quantise,
    RouteExperts,
    SetPrecision,
    SetWeightLayout,
    SplitIntoStrips,
)
from .passes.groups import GPU_PASSES, mark
from .passes.set_precision import own_dtype
from .stages import STAGES, Stage, stages_from

Progress = Callable[[str, int, int], None]
NOTHING = About()
DEFAULTS = Options()


def passes(
    own: DType, to: DType, *, quantise: Quantise | None = None, routing: str = LAW
) -> tuple[Pass, ...]:
    """Return the pipeline for a model of floats `own` that runs in `to`, whatever the machine.

    `quantise` puts the weights of products in few bits; `routing` is how popular experts are.
    """
    return (
        KeepRounding(),  # first: what it finds are types that the model itself gives
        Legalise(),  # the passes below match one spelling
        Fold(),
        RouteExperts(routing),  # before all that changes products
        FuseNorms(),  # before set-precision: the casts around a norm are part of its spelling
        FuseRotary(),
        FuseBags(),
        FuseUpdates(),  # before set-precision: what is made of states stays as it is
        FuseEpilogue(),  # before group-heads: scales leave the operands that it looks at
        GroupHeads(),
        FuseEpilogue(),  # again: group-heads opens the way for scales behind shared keys
        *([SetPrecision(own.name, to.name)] if own != to else []),
        Fold(),  # casts that set-precision made needless
        FuseMaps(),  # after all that matches single ops
        FuseTails(),
        MergeTables(),
        # fold: what several products read is quantised once; fuse-tails: a product may end in 8 bits
        *([quantise, Fold(), FuseTails()] if quantise is not None else []),
        KeepPacked(),  # after fuse-tails: it takes over the tape of the product
        Prune(),
    )


def mapping_passes(chip: Chip | None) -> tuple[Pass, ...]:
    """Return the passes that suit a graph to a chip, or to any; others are given the graph before them."""
    strip_bytes = chip.sram.bytes // 8 if chip is not None else 0
    return (
        LowerIndexing(),  # other machines index by element at no cost
        FuseMaps(),  # what lower-indexing compares
        FuseStates(),  # after fuse-maps: each value is one tape
        FuseAttention(),  # after fuse-maps and fuse-tails: what stands between its products is one tape
        Fold(),  # reshapes around it
        SplitIntoStrips(strip_bytes),  # what is no attention to the pass before
        MergeSiblings(),  # after fuse-tails and quantise, whose products it joins
        AppendCaches(),
        SetWeightLayout(),  # last: fold would undo the views of stored weights
        Prune(),
    )


def default_steps(own: DType, form: Format, chip: Chip | None, routing: str = LAW) -> Steps:
    """Return the passes that run on a model of floats `own` where nobody asks for others."""
    return Steps(passes(own, form.floats, quantise=form.quantise, routing=routing), mapping_passes(chip))


def chosen_steps(
    own: DType, form: Format, chip: Chip | None, spelling: str | None, routing: str = LAW
) -> Steps:
    """Return the passes that a text asks for: see `pass_text`. `routing` is how popular experts are.

    Raises `UserError` where they leave out the one that brings the model to its number format.
    """
    steps = steps_of(default_steps(own, form, chip, routing), spelling)
    missing = [
        needed
        for needed, kind, there in (
            (f"set-precision{{to={form.floats}}}", SetPrecision, form.floats != own),
            ("quantise", Quantise, form.quantise is not None),
        )
        if there and not any(isinstance(step, kind) for step in steps.fused)
    ]
    if missing:
        raise UserError(
            f"--passes {spelling!r} leaves out {missing[0]}, by which the model runs in {form.name} (right: "
            f"keep it, or --dtype {own})"
        )
    return steps


def asked_work(graph: Graph) -> ModelWork:
    """Return what a graph asks of a machine that is no chip of ours: work a node, and groups of nodes."""
    marked = mark(graph)
    for marking in GPU_PASSES:
        marked = marking(marked)
    return marked.asked


def lower(graph: Graph, pipeline: tuple[Pass, ...]) -> Graph:
    """Return the graph after all passes, checked after each; `MTIA_EMU_DEBUG=3` prints it each time."""
    debug = settings.integer(settings.DEBUG)
    known: Known = {}
    for step in pipeline:
        with blamed(step):
            graph = check_made(graph, apply(step, graph)[0], step.name, step.floats, known)
        if debug >= 1:
            print(f"{step.name}: {len(graph.nodes)} nodes", file=sys.stderr)
        if debug >= 3:
            print(text.dump(graph), file=sys.stderr)
    return graph


@dataclass(frozen=True)
class Compiled:
    """A model at each stage of lowering, by the names that the stages have for it (`Stage.at`).

    `onnx` is as imported, `fused` before the passes that suit it to a chip, `graph` after all of them;
    `steps` are the steps of the schedule that each launch runs, by number, `calls` what they call
    (`Launches.calls`).
    """

    onnx: Graph
    graph: Graph
    schedule: Schedule
    program: Program
    fused: Graph
    steps: tuple[tuple[int, ...], ...] = ()
    calls: tuple[tuple[Any, ...], ...] = ()

    def at(self, name: str) -> Graph | Schedule | Program:
        """Return the model at a stage, by the name that `show --at` has for it."""
        form: Graph | Schedule | Program = getattr(self, name)
        return form


@dataclass(frozen=True)
class Compilation:
    """What a graph is compiled for: a chip, options and what they come to, and what is said of the model."""

    chip: Chip
    options: Options
    tuning: Tuning = ESTIMATED
    about: About = NOTHING
    progress: Progress = field(default=lambda stage, done, total: None)


def compile_graph(
    graph: Graph,
    chip: Chip,
    *,
    about: About = NOTHING,
    tuning: Tuning = ESTIMATED,
    fused: Graph | None = None,
    progress: Progress | None = None,
    **options: Unpack[Words],
) -> Compiled:
    """Return a graph compiled for a chip: see `stages`.

    `about` is what the program says of the model: its name, the graph's own without one, source and
    dimensions; `tuning` is what `options` come to (`study.tuning`): how mappings are chosen, and what an
    earlier compilation of the same graph came to; `fused` is that stage of the graph, where it was compiled
    before for a chip that multiplies the same dtypes; `progress` is called with a stage, and what is done and
    to do of it.
    """
    task = Compilation(chip, _agreed(Options.of(**options), tuning), tuning, about)
    if progress is not None:
        task = replace(task, progress=progress)
    given = {"onnx": graph} | ({} if fused is None else {"fused": fused})
    results = run_stages(STAGES, given, task)
    launched = results["launched"]
    return Compiled(
        graph,
        results["graph"],
        launched.schedule,
        results["program"],
        results["fused"],
        tuple(launched.steps),
        tuple(launched.calls),
    )


def compile_lowered(
    graph: Graph, chip: Chip, *, dtype: str, options: Options = DEFAULTS, tuning: Tuning = ESTIMATED
) -> Program:
    """Return the program of a graph as it is, without a pass; `dtype` is the format for reports."""
    about = About(graph.name, dtype=dtype, types=_types(graph))
    given = {"graph": graph, "about": about}
    results = run_stages(stages_from("schedule"), given, Compilation(chip, options, tuning))
    program: Program = results["program"]
    return program


def run_stages(stages: Iterable[Stage], given: Mapping[str, Any], task: Compilation) -> dict[str, Any]:
    """Return the results of stages by name, and those that are `given`, which are not made again.

    A stage that is `memoised` is so by what it takes, the options that decide it and what it reads of the
    chip. `MTIA_EMU_DEBUG=1` prints a line a stage.
    """
    results, debug = dict(given), settings.integer(settings.DEBUG)
    for stage in stages:
        if stage.gives in results:
            continue
        task.progress(stage.name, 0, 1)
        begun = time.perf_counter()
        results[stage.gives] = _result(stage, [results[name] for name in stage.takes], task)
        if debug >= 1:
            print(f"{stage.name}: {(time.perf_counter() - begun) * 1e3:.1f} ms", file=sys.stderr)
    return results


def _result(stage: Stage, operands: list[Any], task: Compilation) -> Any:
    work = _WORK[stage.name]
    if not stage.memoised:
        return work(task, *operands)
    search = task.tuning.search
    chosen = (search.beside is not None, search.time is not None, search.thorough) if stage.tuned else ()
    key = (*map(_key, operands), task.options.deciding(stage.name), chosen)
    return task.tuning.memoise(
        stage.name, key, task.chip, lambda chip: work(replace(task, chip=chip), *operands)
    )


def _key(operand: Any) -> Hashable:
    """Return a part of a stage's key: formats by what they are, the rest as the very object."""
    return operand if isinstance(operand, DType | Format) else SameObject(operand)


def _agreed(options: Options, tuning: Tuning) -> Options:
    """Return the options; raise `ValueError` where a tuning was made of others, so that none is lost."""
    if options.tune == "full" and not tuning.search.thorough:
        raise ValueError("tune='full' needs its tuning (mtia_emu.study.tuning.tuning), not one by estimate")
    return options


def _format(task: Compilation, own: DType) -> Format:
    return choose_format(own, task.chip, format_text(task.options))


def _fuse(task: Compilation, graph: Graph, own: DType, form: Format) -> Graph:
    return lower(graph, chosen_steps(own, form, None, task.options.passes, task.options.routing).fused)


def _suit(task: Compilation, fused: Graph, own: DType, form: Format) -> Graph:
    return lower(fused, chosen_steps(own, form, task.chip, task.options.passes).mapping)


def _schedule(task: Compilation, graph: Graph) -> Schedule:
    prices = StepPrices(task.tuning)
    fastest = prices.fastest if prices.known else None
    return schedule(graph, task.chip, task.tuning.memoise, task.options.run_state, fastest)


def _beside(task: Compilation, calls: Schedule) -> Schedule:
    moments = replace(calls, chip=task.chip)
    if task.tuning.search.beside is not None:
        gather(moments, task.tuning.search)
    return moments


def _place(task: Compilation, moments: Schedule) -> Placement:
    return place(replace(moments, chip=task.chip), task.options.place, task.options.run_state)


def _describe(
    task: Compilation,
    graph: Graph,
    form: Format,
    asked: ModelWork,
    moments: Schedule,
    placement: Placement,
) -> About:
    """Return what the program says of the model, with what to say of passes that were asked for."""
    spelling = task.options.passes
    passes = () if spelling is None else (f"passes: {without_folders(spelling)}",)
    notes = passes + _place_notes(moments) + room_notes(placement, task.chip)
    return replace(
        task.about,
        name=task.about.name or graph.name,
        dtype=form.name,
        types=_types(graph),
        works=asked.works,
        groups=asked.groups,
        notes=graph.notes + form.notes + notes,
    )


def _emit(task: Compilation, moments: Schedule, placement: Placement) -> Launches:
    tick = partial(task.progress, "emit")
    return emit(replace(moments, chip=task.chip), placement, task.tuning, tick)


def _prefetch(task: Compilation, launched: Launches, placement: Placement) -> Ahead:
    if not task.options.prefetch:
        return as_launched(launched, placement)
    return read_ahead(_on(task, launched), placement, task.tuning.memoise)


def _assemble(
    task: Compilation, launched: Launches, placement: Placement, about: About, ahead: Ahead
) -> Program:
    return assemble(_on(task, launched), placement, about, ahead)


def _on(task: Compilation, launched: Launches) -> Launches:
    """Return launches whose schedule is for the chip at hand, which may note what is read of it."""
    return replace(launched, schedule=replace(launched.schedule, chip=task.chip))


_WORK: dict[str, Callable[..., Any]] = {
    "own": lambda task, graph: own_dtype(graph),
    "format": _format,
    "fuse": _fuse,
    "count": lambda task, fused: asked_work(fused),
    "suit": _suit,
    "schedule": _schedule,
    "beside": _beside,
    "place": _place,
    "describe": _describe,
    "emit": _emit,
    "prefetch": _prefetch,
    "assemble": _assemble,
}
if missing := {stage.name for stage in STAGES if stage.takes} ^ set(_WORK):
    raise TypeError(f"stages and what they do are not the same: {', '.join(sorted(missing))}")


def _types(graph: Graph) -> dict[str, TensorType]:
    """Return the types of a model's inputs and outputs, as its user sees them."""
    return dict(graph.inputs) | {name: graph.type_of(name) for name in graph.outputs}


def _place_notes(schedule: Schedule) -> tuple[str, ...]:
    """Return what to say of inputs that lie in the memory of outputs."""
    graph, after = schedule.graph, {old: new for new, old in schedule.graph.states.items()}
    grown = [v for v in graph.inputs if v in after and graph.type_of(after[v]) != graph.inputs[v]]
    if not grown:
        return ()
    return (
        f"{len(grown)} inputs (%{grown[0]}, ...) grow in place: each is taken to lie where the output that "
        "continues it begins, in one memory with room for both; only what is new is written",
    )
