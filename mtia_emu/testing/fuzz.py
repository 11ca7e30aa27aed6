"""Random graphs through every pipeline, held to an executor that is not ours.

A graph goes by a seed and a number: the same two give the same graph, inputs, chip and verdict anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from mtia_emu.compiler.formats import choose_format, quantised
from mtia_emu.compiler.frontend.load import InputBindings, import_model
from mtia_emu.compiler.graph import Graph, Node
from mtia_emu.compiler.inputs.samples import KINDS
from mtia_emu.compiler.lower.choice import Tuning
from mtia_emu.compiler.pass_text import parse_passes
from mtia_emu.compiler.passes import Pass
from mtia_emu.compiler.passes.set_precision import own_dtype
from mtia_emu.compiler.pipeline import compile_graph, lower, mapping_passes, passes
from mtia_emu.compiler.reference import core_library, evaluate
from mtia_emu.compiler.to_onnx import Unwritten, to_onnx
from mtia_emu.compiler.watch import watch
from mtia_emu.kernels.search import MappingSearch

from ..engine.function import execute
from ..errors import UserError
from ..machine.chip import Chip, load_chip
from ..oracle import expected_outputs, reference_outputs
from ..program.verify import verify
from .grower import Seeded
from .judge import Allowance, Inputs, Judge, Sample, coarse, fault_of, hides, results, samples_for, typed
from .layouts import split_results
from .spread import Noise
from .verify import first_fault

Array = np.ndarray[Any, Any]
FORMATS = ("fp32", "fp16", "bf16", "int8")
COARSE = (  # formats whose codes are far from the weights: what follows their choice is held to it
    "quantise{weights=int4,group=2}",  # matrices of random graphs have few rows
    "quantise{weights=int4,group=3,zeros=true}",
    "quantise{activations=none}",
    "quantise{weights=fp8_e4m3,activations=none}",
    "quantise{activations=static,calibrate=2}",
)
COARSELY = 4  # one graph in so many runs in one of them
HALVES = 8  # one graph in so many is of halves
EMPTY = 16  # one in so many may have dimensions of 0
TOGETHER = Tuning(MappingSearch(beside=lambda block, chip: 1.0))  # whatever can share a launch does
SILENT = "special"  # the kind of sample for which ONNX does not say what all of its operators give
STEPS = {
    "round",
    "floor",
    "ceil",
    "sign",
    "mod",
    "fmod",
    "equal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
}
INEXACT = {
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "tanh",
    "erf",
    "sigmoid",
    "pow",
    "softplus",
    "gelu",
    "silu",
    "sin",
    "cos",
}
OVERFLOWING = "extremes"  # the kind in which infinities arise on the way
FAR = 1e30  # a constant from which on products of numbers like it leave the range of fp32
PAST_RANGE = ("large", OVERFLOWING)  # kinds in which sums of integers may be past what their type holds


@dataclass(frozen=True)
class Mismatch:
    """A random graph that something makes wrong: its number, the stage that does, and what is wrong."""

    number: int
    stage: str
    what: str


def random_chip(*seed: int) -> Chip:
    """Return the small chip of a seed, of the kinds that `testing.chips` draws."""
    from . import CHIP_CHOICES

    source = Seeded(*seed)
    return load_chip("tiny", {key: source.pick(choices) for key, choices in CHIP_CHOICES.items()})


def numbered_graph(seed: int, number: int, own: Sequence[str] = ()) -> Graph:
    """Return a random graph by seed and number: of halves, or with empty dimensions, now and then.

    With motifs of one's own, by name, half of what it is made of is one of them.
    """
    from . import BUILTIN, random_graph

    kind = "fp16" if number % HALVES == HALVES - 1 else "fp32"
    among = BUILTIN + tuple(own[i % len(own)] for i in range(len(BUILTIN))) if own else BUILTIN
    return random_graph(seed, number, dtype=kind, motifs=among, empty=number % EMPTY == EMPTY - 1)


def first_wrong(
    seed: int,
    numbers: Iterable[int],
    spelling: str | None = None,
    own: Sequence[str] = (),
    fired: Counter[str] | None = None,
    only: str = "",
) -> Iterator[Mismatch | None]:
    """Yield, for each number, what is wrong with its graph, or None; the rest as in `mismatch_of`."""
    for number in numbers:
        yield mismatch_of(numbered_graph(seed, number, own), seed, number, spelling, fired, only)


def mismatch_of(
    graph: Graph,
    seed: int,
    number: int,
    spelling: str | None = None,
    fired: Counter[str] | None = None,
    only: str = "",
) -> Mismatch | None:
    """Return what is wrong with what is made of a graph; None where all of it computes what the graph says.

    The graph is written as ONNX, and onnxruntime's results are what it says; on special numbers, of which
    ONNX is silent here and there, our references' are. Held to them are our references; the graph imported
    from that ONNX; the graph after the whole pipeline of every number format; the graph split over a random
    mesh, all ranks together; and the program compiled for a random chip in one format, executed. Of coarse
    formats the pipeline from where codes are chosen, and the program, are held to the graph with those codes.
    With `spelling`, as `--passes` has it, held to them are those passes alone, on samples of all kinds;
    `fired` counts the graphs on which each of them did something; `only` leaves the stages whose
    names begin with that word.
    """
    kinds = KINDS if spelling is not None else ("usual", KINDS[1 + number % (len(KINDS) - 1)])
    samples = samples_for(graph, number, kinds=kinds)
    said = cache(lambda index: _said(graph, samples[index]))
    for stage, make in _stages(graph, seed, number, samples[0], spelling, fired):
        if only and stage.partition(" ")[0] != only:
            continue
        try:
            result = make()
            wrong = _wrong(graph, result, samples, said)
        except Exception as error:  # whatever it is, it is a fault
            wrong = f"raises {type(error).__name__}: {error}"
        if wrong:
            return Mismatch(number, stage, wrong)
    return None


def _said(graph: Graph, sample: Sample) -> Mapping[str, Array]:
    """Return what a graph computes, by an executor that is not ours wherever ONNX has words for it."""
    halves = own_dtype(graph).bits < 32  # which onnxruntime computes in floats, whose range is another
    silent = sample.kind == SILENT or (halves and sample.kind == OVERFLOWING)
    if silent or (sample.kind in PAST_RANGE and any(map(_sums_integers, graph.nodes))):
        return results(graph, sample, graph)
    try:
        said = oracle(to_onnx(graph), sample, list(graph.outputs))
    except Unwritten:  # by a motif of somebody's
        return results(graph, sample, graph)
    known = [x.loaded.astype(np.float64) for x in graph.consts.values() if x.loaded is not None]
    far = any(np.any(np.abs(x) > FAR) for x in known)
    leaving = {OVERFLOWING, *(PAST_RANGE if halves else ()), *(["constants"] if far else [])}
    if sample.kind not in leaving:
        return said
    ours = results(graph, sample, graph)
    return {k: np.where(_finite(x) & _finite(ours[k]), x, ours[k]) for k, x in said.items()}


def _sums_integers(node: Node) -> bool:
    """Return whether a node adds integers: past their range onnxruntime clips sums, ONNX is silent."""
    return node.op == "reduce_sum" and not node.type.dtype.is_float


def _finite(x: Array) -> Array:
    """Return which elements have not left their type's range, in the same shape; of integers none."""
    return np.isfinite(x.astype(np.float64)) & (x.dtype.kind not in "iu")


Run = Callable[[Inputs], Mapping[str, Array]]


@dataclass(frozen=True)
class Made:
    """What is made of a graph, as a function of its inputs, and how far its results may be off.

    `noise` is that of its number format, `share` what was given up of an output's largest magnitude; `right`
    gives what it is held to, where that is not what the graph says; `hidden` as `judge.hides` has it.
    """

    run: Run
    noise: Noise
    share: float = 0.0
    right: Run | None = None
    hidden: bool = False
    floats: str = ""  # the format of its floats, where that was chosen
    after: Graph | None = None  # the graph itself, where it gives nothing up


Stage = tuple[str, Callable[[], Made]]


def _wrong(
    graph: Graph, result: Made, samples: Sequence[Sample], said: Callable[[int], Mapping[str, Array]]
) -> str:
    """Return what is wrong with what was made of a graph, on the first sample that shows it; else ""."""
    kinds = _kinds(graph, result)
    for index, sample in enumerate(samples):
        if sample.kind not in kinds:
            continue
        got = result.run(sample)
        expected = result.right(sample) if result.right is not None else said(index)
        may = Allowance(result.noise, result.share, result.hidden)
        wrong = fault_of(graph, sample, got, expected, may)
        if wrong and not _undefined(graph):
            return f"{wrong} (sample: {sample.name})"
    if result.after is None or _undefined(graph):
        return ""
    return Judge(graph, [sample for sample in samples if sample.kind in kinds]).fault(graph, result.after)


def _kinds(graph: Graph, result: Made) -> tuple[str, ...]:
    """Return the kinds of samples that what is made of a graph is held on.

    Few codes do not tell numbers of many magnitudes apart; formats of another range, and what is fused of
    narrow ones, give infinities elsewhere.
    """
    if result.share or result.noise.codes:
        return KINDS[:1]
    own, ops = own_dtype(graph), {node.op for node in graph.nodes}
    left_out = {"constants"} if ops & STEPS and ops & INEXACT else set()  # a last digit decides at a tie
    narrow = (result.floats and result.floats != own.name) or own.bits < 32
    if narrow and "softmax" in ops:  # a last digit decides which score is the largest
        left_out.add("large")
    if result.hidden:  # scores below what masks put in place of others
        left_out |= {"constants", OVERFLOWING}
    elif narrow and result.floats:
        left_out |= {SILENT, OVERFLOWING}
    return tuple(kind for kind in KINDS if kind not in left_out)


def _undefined(graph: Graph) -> bool:
    """Return whether there is a mean of no elements: ONNX's ReduceMean calls that undefined."""
    means = (node for node in graph.nodes if node.op == "reduce_mean" and node.type.size)
    return any(not graph.type_of(node.inputs[0]).size for node in means)


def _stages(
    graph: Graph,
    seed: int,
    number: int,
    inputs: Inputs,
    spelling: str | None,
    fired: Counter[str] | None = None,
) -> Iterator[Stage]:
    """Yield the stages by name, each as a function that makes it; `inputs` are some that the graph takes."""
    chip = random_chip(seed, number)
    if spelling is not None:
        yield f"passes {spelling}", partial(_passed, graph, parse_passes(spelling), fired)
        return
    yield "reference", lambda: Made(lambda given: evaluate(graph, given), Noise(loose=True))
    yield "import", lambda: Made(_imported(graph), Noise(loose=True))
    for form in FORMATS:
        yield f"pipeline {form}", partial(_lowered, graph, pipeline_of(graph, chip, form), form)
    yield "split over ranks", lambda: Made(partial(split_results, graph, seed, number), Noise(loose=True))
    form = FORMATS[number % len(FORMATS)]
    yield f"program {form}", partial(_executed, graph, chip, form)
    if number % COARSELY == 0:
        yield from coarse_stages(graph, chip, COARSE[number // COARSELY % len(COARSE)])


def coarse_stages(graph: Graph, chip: Chip, form: str) -> Iterator[Stage]:
    """Yield the stages of a format that chooses codes: held to the graph's results with those codes."""
    steps = pipeline_of(graph, chip, form)
    at = 1 + next((i for i, step in enumerate(steps) if step == quantised(form)), len(steps))
    if at > len(steps):  # a graph of integers, which has no other format
        return

    @cache
    def coded() -> Graph:
        return lower(graph, steps[:at])

    def right(inputs: Inputs) -> Mapping[str, Array]:
        return results(coded(), inputs, graph)

    def lowered() -> Made:
        after = lower(coded(), steps[at:])
        share = coarse(after)
        return Made(
            lambda given: results(after, given, graph),
            _noise(form),
            share,
            right,
            hides(after),
            _floats(form),
        )

    def executed() -> Made:
        result = _executed(graph, chip, form)
        return Made(result.run, result.noise, result.share, right, result.hidden, result.floats)

    yield f"pipeline {form}", lowered
    yield f"program {form}", executed


def pipeline_of(graph: Graph, chip: Chip, number_format: str | None) -> tuple[Pass, ...]:
    """Return all passes that compiling a graph for a chip in a number format runs."""
    own = own_dtype(graph)
    form = choose_format(own, chip, number_format)
    return (*passes(own, form.floats, quantise=form.quantise), *mapping_passes(chip))


def _noise(form: str) -> Noise:
    """Return the noise of a number format of `--dtype`, held to functions of another library."""
    few, floats = quantised(form), _floats(form)
    return Noise("" if floats == "fp32" else floats, few is not None and few.mode != "none", True)


def _floats(form: str) -> str:
    """Return what the floats of a number format of `--dtype` are."""
    return form if quantised(form) is None else "fp16"


def _lowered(graph: Graph, steps: Sequence[Pass], form: str) -> Made:
    after = lower(graph, tuple(steps))
    run = partial(results, after, first=graph)
    return Made(run, _noise(form), coarse(after), hidden=hides(after), floats=_floats(form))


def _passed(graph: Graph, steps: Sequence[Pass], fired: Counter[str] | None) -> Made:
    """Return a graph after some passes; count those that did something."""
    after, share, floats = graph, 0.0, ""
    for ran in watch(graph, steps):
        after, share, floats = ran.after, share + ran.step.tolerance, ran.step.floats or floats
        if fired is not None and ran.changed:
            fired[ran.step.spelling] += 1
    same = not share and not floats and coarse(after) <= coarse(graph)
    return Made(
        partial(results, after, first=graph),
        Noise(floats, loose=True),
        share + coarse(after),
        hidden=hides(after),
        after=after if same else None,
    )


def _imported(graph: Graph) -> Run:
    shapes = {name: kind.shape for name, kind in graph.inputs.items()}
    imported = import_model(to_onnx(graph), Path("random.onnx"), InputBindings(shapes=shapes))
    return lambda given: {k.removeprefix("out:"): v for k, v in evaluate(imported, dict(given)).items()}


def _executed(graph: Graph, chip: Chip, form: str) -> Made:
    compiled = compile_graph(graph, chip, dtype=form, tuning=TOGETHER)
    verify(compiled.program, chip)

    def run(inputs: Inputs) -> dict[str, Array]:
        with np.errstate(all="ignore"):
            got = execute(compiled.program, chip, typed(compiled.graph, inputs), core_library()).outputs
            return {k: v.astype(graph.type_of(k).dtype.numpy) for k, v in got.items()}

    return Made(run, _noise(form), coarse(compiled.graph), hidden=hides(compiled.graph), floats=_floats(form))


def oracle(model: Any, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Return the outputs of an ONNX model under these names; onnx's where nothing else runs it."""
    try:
        values = expected_outputs(model, inputs).outputs
    except UserError:  # onnxruntime is not installed, or has no such kernel
        values = reference_outputs(model, inputs, {})
    return dict(zip(names, values.values(), strict=True))


def blamed(graph: Graph, mismatch: Mismatch, seed: int, spelling: str | None = None) -> str:
    """Return the pass after which a graph's results are off, where one is to blame; else ""."""
    kind, _, form = mismatch.stage.partition(" ")
    if kind not in ("pipeline", "passes"):
        return ""
    chip = random_chip(seed, mismatch.number)
    steps = parse_passes(spelling) if spelling is not None else pipeline_of(graph, chip, form)
    fault = first_fault(graph, steps, samples_for(graph, mismatch.number))
    return fault.step.spelling if fault is not None else ""
