"""The passes in order, and compilation from a graph to a program."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Unpack

from mtia_emu import settings
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip
from mtia_emu.options import Options, Words
from mtia_emu.program.isa import Program
from mtia_emu.reuse.memo import SameObject, unmemoised
from mtia_emu.types import DType, ModelWork, TensorType, dtype

from . import text
from .check import Known, check_made
from .foreign import apply, blamed
from .graph import Graph
from .lower.beside import gather
from .lower.choice import ESTIMATED, Tuning
from .lower.emit import DEFAULTS, About, emit
from .lower.place import Placement, place, room_notes
from .lower.schedule import schedule
from .lower.steps import Schedule
from .pass_text import Steps, parse_passes, steps_of, without_folders
from .passes import (
    AppendCaches,
    Fold,
    FuseAttention,
    FuseBags,
    FuseEpilogue,
    FuseMaps,
    FuseNorms,
    FuseRotary,
    FuseTails,
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
    SetPrecision,
    SetWeightLayout,
    SplitIntoStrips,
)
from .passes.groups import MarkAttention, MarkChains, Marking, MarkProjections, mark
from .passes.set_precision import own_dtype

Progress = Callable[[str, int, int], None]
NOTHING = About()


def passes(own: DType, to: DType, *, quantise: Quantise | None = None) -> tuple[Pass, ...]:
    """Return the pipeline for a model of floats `own` that runs in `to`, whatever the machine.

    `quantise` puts the weights of products in few bits.
    """
    return (
        KeepRounding(),  # first: what it finds are types that the model itself gives
        Legalise(),  # the passes below match one spelling
        Fold(),
        FuseNorms(),  # before set-precision: the casts around a norm are part of its spelling
        FuseRotary(),
        FuseBags(),
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


def mapping_passes(chip: Chip) -> tuple[Pass, ...]:
    """Return the passes that suit a graph to a chip; other machines are given the graph before them."""
    return (
        LowerIndexing(),  # other machines index by element at no cost
        FuseMaps(),  # what lower-indexing compares
        FuseAttention(),  # after fuse-maps and fuse-tails: what stands between its products is one tape
        Fold(),  # reshapes around it
        SplitIntoStrips(chip.sram.bytes // 8),  # what is no attention to the pass before
        MergeSiblings(),  # after fuse-tails and quantise, whose products it joins
        AppendCaches(),
        SetWeightLayout(),  # last: fold would undo the views of stored weights
        Prune(),
    )


def default_steps(own: DType, form: Format, chip: Chip) -> Steps:
    """Return the passes that run on a model of floats `own` where nobody asks for others."""
    return Steps(passes(own, form.floats, quantise=form.quantise), mapping_passes(chip))


def chosen_steps(own: DType, form: Format, chip: Chip, spelling: str | None) -> Steps:
    """Return the passes that a text asks for: see `pass_text`.

    Raises `UserError` where they leave out the one that brings the model to its number format.
    """
    steps = steps_of(default_steps(own, form, chip), spelling)
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


GPU_PASSES: tuple[Marking, ...] = (
    MarkAttention(),  # first: it takes the softmax, and the work around it, whole
    MarkProjections(),
    MarkChains(),  # last: what is in no other kernel
)
"""The passes that mark what a GPU runs as one kernel, on the graph that no chip is known to yet."""


def asked_work(graph: Graph) -> ModelWork:
    """Return what a graph asks of a machine that is no chip of ours: work a node, and groups of nodes."""
    marked = mark(graph)
    for marking in GPU_PASSES:
        marked = marking(marked)
    return marked.asked


@dataclass(frozen=True)
class Compiled:
    """A model at each stage of lowering; `fused` is before the passes that suit it to a chip.

    `steps` are the steps of the schedule that each launch runs, by number.
    """

    imported: Graph
    lowered: Graph
    schedule: Schedule
    program: Program
    fused: Graph
    steps: tuple[tuple[int, ...], ...] = ()


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
class Format:
    """The number format of a run: the model's floats, and how weights of products are quantised."""

    floats: DType
    quantise: Quantise | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the dtype that reports show and measure utilization by: the one that is multiplied."""
        if self.quantise is not None and self.quantise.mode != "none":
            return self.quantise.weights
        return self.floats.name


FORMATS = {
    "int8": Quantise(),
    "int4": Quantise(weights="int4"),
    "fp8": Quantise(weights="fp8_e4m3"),
    "fp8_e4m3": Quantise(weights="fp8_e4m3"),
    "fp8_e5m2": Quantise(weights="fp8_e5m2"),
}
"""What `--dtype` may name beside the floats; the text of a `quantise` pass says it in full."""


def quantised(wanted: str | None) -> Quantise | None:
    """Return how a format quantises weights: one of FORMATS, or the text of a `quantise` pass; else None."""
    if wanted is None or not wanted.startswith("quantise"):
        return FORMATS.get(wanted or "")
    steps = parse_passes(wanted)
    if len(steps) != 1 or not isinstance(steps[0], Quantise):
        raise UserError(f"--dtype {wanted}: not one quantise pass (right: quantise{{weights=int4,group=64}})")
    return steps[0]


def wanted_format(options: Options) -> str | None:
    """Return the number format that options ask for, with activations scaled by samples where they say so."""
    if options.calibrate is None:
        return options.dtype
    few, samples = quantised(options.dtype), options.calibrate
    if few is None or few.mode == "none":
        raise UserError(f"--calibrate {samples}: needs activations in few bits (right: --dtype int8 or fp8)")
    if set(samples) & set(",{}"):
        raise UserError(f"--calibrate {samples!r}: a path with none of , {{ }}")
    return replace(few, activations="static", calibrate=samples).spelling


def choose_format(own: DType, chip: Chip, wanted: str | None) -> Format:
    """Return the format for a model whose own arithmetic is in `own`, with notes where it is another."""
    if not own.is_float:  # a model of integers runs as it is
        return Format(own)
    few = quantised(wanted) if wanted != own.name else None
    kind = dtype(wanted) if wanted is not None and few is None else chip.nearest_matrix_dtype(own)
    if not kind.is_float or (kind.bits < 16 and kind != own):
        right = f"fp16, bf16, fp32, or {', '.join(FORMATS)}"
        raise UserError(f"--dtype {wanted}: a model runs in {right} (weights quantised)")
    if few is not None and few.mode != "none" and not chip.pe.matrix.supports(few.weights):
        raise UserError(
            f"--dtype {wanted}: the matrix unit of {chip.name} has no rate for {few.weights} "
            f"(right: {', '.join(chip.pe.matrix.rates)}; weights alone: "
            f"--dtype 'quantise{{weights={few.weights},activations=none}}')"
        )
    notes = []
    if kind != own:
        notes.append(f"the model's {own} runs as {kind}")
    if few is not None:
        notes.append(_said(few))
    if (few is None or few.mode == "none") and not chip.pe.matrix.supports(kind.name):
        notes.append(
            f"the matrix unit of {chip.name} has no rate for {kind}: products run on the SIMD engine"
        )
    return Format(kind, few, tuple(notes))


def _said(few: Quantise) -> str:
    """Return the note of a run with quantised weights."""
    if few.mode == "none":
        return f"weights of products are {few.weights}, expanded on their way to the matrix unit"
    rows = {
        "dynamic": "a scale a row of activations, found at run time,",
        "static": f"a scale a tensor of activations, calibrated on {few.calibrate},",
    }[few.mode]
    return f"products with weights run in {few.weights}: {rows} and a scale a column of weights"


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
    """Return a graph compiled for a chip.

    `about` is what the program says of the model: its name, the graph's own without one, source and
    dimensions; `tuning` is what `options` come to (`study.tuning`): how mappings are chosen, and what an
    earlier compilation of the same graph came to; `fused` is that stage of the graph, where it was compiled
    before for a chip that multiplies the same dtypes; `progress` is called with a stage, and what is done and
    to do of it.
    """
    chosen = _agreed(Options.of(**options), tuning)
    report, memoise = progress or (lambda stage, done, total: None), tuning.memoise
    own = memoise("own", SameObject(graph), chip, lambda _: own_dtype(graph))
    form = choose_format(own, chip, wanted_format(chosen))
    report("lower", 0, 1)
    lowering = _Lowering(graph, own, form, chosen.passes)
    key = (SameObject(graph), form.floats, form.quantise, SameObject(fused), chosen.deciding("lower"))
    ready = memoise("fuse", key, chip, lambda _: _with_works(fused or lowering.fuse(chip)))
    report("schedule", 0, 1)
    mapped = lowering.mapped(ready.graph, chip, chosen, tuning)
    plan, placement = replace(mapped.plan, chip=chip), mapped.placement
    told = replace(
        about,
        name=about.name or graph.name,
        dtype=form.name,
        types=_types(graph),
        works=ready.asked.works,
        groups=ready.asked.groups,
        notes=graph.notes + form.notes + _notes(chosen, plan, placement),
    )
    tick = partial(report, "emit")
    done = emit(plan, placement, told, options=chosen, tuning=tuning, progress=tick)
    return Compiled(graph, plan.graph, done.schedule, done.program, ready.graph, done.steps)


def _agreed(options: Options, tuning: Tuning) -> Options:
    """Return the options; raise `ValueError` where a tuning was made of others, so that none is lost."""
    if options.tune == "full" and tuning.search.time is None:
        raise ValueError("tune='full' needs its tuning (mtia_emu.study.tuning.tuning), not one by estimate")
    return options


@dataclass(frozen=True)
class _Fused:
    """A graph after all passes that know no chip, and its work, which any machine would have."""

    graph: Graph
    asked: ModelWork


@dataclass(frozen=True)
class _Mapped:
    """A graph suited to a chip, as steps, and where their buffers lie."""

    plan: Schedule
    placement: Placement


def _with_works(fused: Graph) -> _Fused:
    return _Fused(fused, asked_work(fused))


@dataclass(frozen=True)
class _Lowering:
    """Which passes take a model to the graph that is scheduled."""

    graph: Graph
    own: DType
    form: Format
    spelling: str | None

    def fuse(self, chip: Chip) -> Graph:
        """Return the graph after the passes that know no chip; `chip` only bounds what may be asked for."""
        return lower(self.graph, chosen_steps(self.own, self.form, chip, self.spelling).fused)

    def mapped(self, fused: Graph, chip: Chip, options: Options, tuning: Tuning) -> _Mapped:
        """Return a fused graph suited to a chip, as placed steps."""
        together = tuning.search.beside and (tuning.search.time is not None)  # what `gather` reads of it
        key = (SameObject(fused), options.deciding("map"), together)
        return tuning.memoise(
            "map", key, chip, lambda c: _placed(self._map(fused, c, tuning), c, options, tuning)
        )

    def _map(self, fused: Graph, chip: Chip, tuning: Tuning) -> Graph:
        def mapped(c: Chip) -> Graph:
            return lower(fused, chosen_steps(self.own, self.form, c, self.spelling).mapping)

        return tuning.memoise("lower", (SameObject(fused), self.spelling), chip, mapped)


def _placed(lowered: Graph, chip: Chip, options: Options, tuning: Tuning) -> _Mapped:
    """Return a graph after all passes as steps, those side by side together, and where buffers lie."""
    plan = schedule(lowered, chip, tuning.memoise)
    if tuning.search.beside is not None:
        gather(plan, tuning.search)
    return _Mapped(replace(plan, memo={}, memoise=unmemoised), place(plan, options.place))


def compile_lowered(
    graph: Graph, chip: Chip, *, dtype: str, options: Options = DEFAULTS, tuning: Tuning = ESTIMATED
) -> Program:
    """Return the program of a graph as it is, without a pass; `dtype` is the format for reports."""
    mapped = _placed(graph, chip, options, tuning)
    about = About(graph.name, dtype=dtype, types=_types(graph))
    return emit(mapped.plan, mapped.placement, about, options=options, tuning=tuning).program


def _types(graph: Graph) -> dict[str, TensorType]:
    """Return the types of a model's inputs and outputs, as its user sees them."""
    return dict(graph.inputs) | {name: graph.type_of(name) for name in graph.outputs}


def _notes(options: Options, plan: Schedule, placement: Placement) -> tuple[str, ...]:
    """Return what to say of passes that were asked for, and of where values lie."""
    passes = () if options.passes is None else (f"passes: {without_folders(options.passes)}",)
    return passes + _place_notes(plan) + room_notes(placement, plan.chip)


def _place_notes(plan: Schedule) -> tuple[str, ...]:
    """Return what to say of inputs that lie in the memory of outputs."""
    states = set(plan.graph.states.values())
    shared = [v for v in plan.graph.inputs if v in states]
    if not shared:
        return ()
    return (
        f"{len(shared)} inputs (%{shared[0]}, ...) grow in place: each is taken to lie where the output that "
        "continues it begins, in one memory with room for both; only what is new is written",
    )
