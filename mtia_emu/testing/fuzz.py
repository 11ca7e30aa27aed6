"""Random graphs through every pipeline, held to an executor that is not ours.

A graph goes by a seed and a number: the same two give the same graph, inputs, chip and verdict anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..chip import Chip, load_chip
from ..compiler.choice import Tuning
from ..compiler.frontend.load import import_model
from ..compiler.graph import Graph
from ..compiler.ops import reference
from ..compiler.passes import Pass
from ..compiler.passes.precision import own_dtype
from ..compiler.pipeline import (
    choose_format,
    compile_graph,
    lower,
    mapping_passes,
    parse_passes,
    passes,
    quantised,
)
from ..compiler.reference import core_library, evaluate
from ..compiler.samples import random_inputs
from ..engine.function import execute
from ..errors import UserError
from ..kernels.search import Search
from ..oracle import expected_outputs, reference_outputs
from ..verify import verify
from .compare import distance
from .grower import Seeded
from .to_onnx import to_onnx
from .verify import first_fault, results, tolerance_of

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
EXACT = 2e-5  # of an output's largest value: sums in another order
HALVES = 8  # one graph in so many is of halves
EMPTY = 16  # one in so many may have dimensions of 0
STEPS = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8, "int8": 2.0**-11}  # half a step, relative
SPREAD = (
    3.0  # times a graph's own spread under rounding that results may be off: draws are not the worst case
)
TOGETHER = Tuning(Search(beside=lambda block, chip: 1.0))  # whatever can share a launch does
LARGE = 1e3  # results beyond this have lost the digits that a tolerance speaks of


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


def numbered_graph(seed: int, number: int) -> Graph:
    """Return a random graph by seed and number: of halves, or with empty dimensions, now and then."""
    from . import random_graph

    kind = "fp16" if number % HALVES == HALVES - 1 else "fp32"
    return random_graph(seed, number, dtype=kind, empty=number % EMPTY == EMPTY - 1)


def first_wrong(seed: int, numbers: Iterable[int], spelling: str | None = None) -> Iterator[Mismatch | None]:
    """Yield, for each number, what is wrong with its graph, or None; `spelling` as in `mismatch_of`."""
    for number in numbers:
        yield mismatch_of(numbered_graph(seed, number), seed, number, spelling)


def mismatch_of(graph: Graph, seed: int, number: int, spelling: str | None = None) -> Mismatch | None:
    """Return what is wrong with what is made of a graph; None where all of it computes what the graph says.

    The graph is written as ONNX, and onnxruntime's results are what it says. Held to them are our
    references; the graph imported from that ONNX; the graph after the whole pipeline of every number format;
    and the program compiled for a random chip in one of them, executed. Of coarse formats the pipeline from
    where codes are chosen, and the program, are held to the graph with those codes. With `spelling`, as
    `--passes` has it, held to them are those passes alone.
    """
    inputs = random_inputs(graph, number)
    expected = oracle(to_onnx(graph), inputs, list(graph.outputs))
    sizes = (np.abs(_wide(value)).max(initial=0.0) for value in expected.values())
    tame = all(size < LARGE for size in sizes) and not _undefined(graph)
    for stage, make in _stages(graph, seed, number, inputs, spelling):
        try:
            got, allowed, *chosen = make()
        except Exception as error:  # whatever it is, it is a fault
            return Mismatch(number, stage, f"raises {type(error).__name__}: {error}")
        right = chosen[0] if chosen else expected
        wrong = _worst(got, right, allowed) if tame else ""
        if wrong and allowed > EXACT:  # is it rounding that this graph magnifies?
            allowed = max(allowed, SPREAD * rounding_spread(graph, inputs, stage.rpartition(" ")[2]))
            wrong = _worst(got, right, allowed)
        if wrong:
            return Mismatch(number, stage, wrong)
    return None


def _undefined(graph: Graph) -> bool:
    """Return whether there is a mean of no elements: ONNX's ReduceMean calls that undefined."""
    means = (node for node in graph.nodes if node.op == "reduce_mean" and node.type.size)
    return any(not graph.type_of(node.inputs[0]).size for node in means)


Made = tuple[Mapping[str, Array], float] | tuple[Mapping[str, Array], float, Mapping[str, Array]]
Stage = tuple[str, Callable[[], Made]]


def _stages(
    graph: Graph, seed: int, number: int, inputs: Mapping[str, Array], spelling: str | None
) -> Iterator[Stage]:
    """Yield the stages by name, each as a function that gives outputs, and how far they may be off.

    It may add what from; else it is from the oracle's results.
    """
    exact = max(EXACT, _rounding(graph))
    chip = random_chip(seed, number)
    if spelling is not None:
        yield f"passes {spelling}", partial(_lowered, graph, parse_passes(spelling), inputs, exact)
        return
    yield "reference", lambda: (evaluate(graph, inputs), exact)
    yield "import", lambda: (_imported(graph, inputs), exact)
    for wanted in FORMATS:
        steps = pipeline_of(graph, chip, wanted)
        yield f"pipeline {wanted}", partial(_lowered, graph, steps, inputs, exact)
    wanted = FORMATS[number % len(FORMATS)]
    yield f"program {wanted}", partial(_executed, graph, chip, wanted, inputs, exact)
    if number % COARSELY == 0:
        yield from coarse_stages(graph, chip, COARSE[number // COARSELY % len(COARSE)], inputs)


def coarse_stages(graph: Graph, chip: Chip, wanted: str, inputs: Mapping[str, Array]) -> Iterator[Stage]:
    """Yield the stages of a format that chooses codes: held to the graph's results with those codes."""
    steps, exact = pipeline_of(graph, chip, wanted), max(EXACT, _rounding(graph))
    at = 1 + next((i for i, step in enumerate(steps) if step == quantised(wanted)), len(steps))
    if at > len(steps):  # a graph of integers, which has no other format
        return

    @cache
    def coded() -> tuple[Graph, Mapping[str, Array]]:
        made = lower(graph, steps[:at])
        return made, results(made, inputs, graph)

    def held(make: Callable[[], Made]) -> Made:
        return (*make()[:2], coded()[1])

    yield (
        f"pipeline {wanted}",
        lambda: held(
            lambda: (
                results(after := lower(coded()[0], steps[at:]), inputs, graph),
                max(exact, _rounding(after)),
            )
        ),
    )
    yield f"program {wanted}", lambda: held(partial(_executed, graph, chip, wanted, inputs, exact))


def pipeline_of(graph: Graph, chip: Chip, wanted: str | None) -> tuple[Pass, ...]:
    """Return all passes that compiling a graph for a chip in a number format runs."""
    own = own_dtype(graph)
    form = choose_format(own, chip, wanted)
    return (*passes(own, form.floats, quantise=form.quantise), *mapping_passes(chip))


def _lowered(graph: Graph, steps: Sequence[Pass], inputs: Mapping[str, Array], exact: float) -> Made:
    after = lower(graph, tuple(steps))
    return results(after, inputs, graph), max(exact, _rounding(after))


def _rounding(graph: Graph) -> float:
    """Return what the narrowest format of a graph allows; nothing where it has wide ones alone."""
    allowed = tolerance_of(graph)
    return allowed if allowed >= 1e-2 else 0.0


def rounding_spread(graph: Graph, inputs: Mapping[str, Array], wanted: str, draws: int = 8) -> float:
    """Return how far outputs move when every result is off by up to half a step of a number format.

    Of int8, the operands of products are, by half a step of their rows' and columns' scales. The largest of
    some random draws: a graph's own measure of what rounding does to it.
    """
    exact = evaluate(graph, inputs)
    rng = np.random.default_rng(0)
    noisy = (_with_noise(graph, inputs, wanted, rng) for _ in range(draws))
    return max((distance(one[name], exact[name]) for one in noisy for name in exact), default=0.0)


def _with_noise(
    graph: Graph, inputs: Mapping[str, Array], wanted: str, rng: np.random.Generator
) -> dict[str, Array]:
    """Return a graph's outputs, every result off by a random part of a step."""
    step, few = STEPS.get(wanted, STEPS["fp16"]), quantised(wanted)
    codes = few is not None and few.mode != "none"
    values = {**inputs, **{name: const.array(name) for name, const in graph.consts.items()}}
    values = {name: _off(x, step * np.abs(_wide(x)), rng) for name, x in values.items()}
    for node in graph.nodes:
        given = [values[v] if v else None for v in node.inputs]
        if node.op == "matmul" and codes:
            given[:2] = [_off(x, _row_step(x, axis), rng) for x, axis in zip(given, (-1, -2), strict=False)]
        for name, x in zip(node.outputs, reference(node.op, given, node.attrs), strict=True):
            values[name] = _off(x, step * np.abs(_wide(x)), rng)
    return {name: values[name] for name in graph.outputs}


def _wide(x: Array) -> Array:
    return x.astype(np.float64)


def _row_step(x: Array | None, axis: int) -> Array:
    """Return half a step of int8 for each row, or column: its largest magnitude is 127 steps."""
    assert x is not None
    return np.abs(_wide(x)).max(axis=axis, keepdims=True, initial=0.0) / 254


def _off(x: Array | None, most: Array, rng: np.random.Generator) -> Array:
    """Return an array with random errors of up to `most`; integers and truth values as they are."""
    assert x is not None
    if x.dtype.kind in "iub":
        return x
    with np.errstate(all="ignore"):
        return (_wide(x) + most * rng.uniform(-1, 1, x.shape)).astype(x.dtype)


def _imported(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    shapes = {name: kind.shape for name, kind in graph.inputs.items()}
    made = import_model(to_onnx(graph), Path("random.onnx"), {}, shapes, {})
    return {name.removeprefix("out:"): value for name, value in evaluate(made, inputs).items()}


def _executed(graph: Graph, chip: Chip, wanted: str, inputs: Mapping[str, Array], exact: float) -> Made:
    made = compile_graph(graph, chip, dtype=wanted, tuning=TOGETHER)
    verify(made.program, chip)
    with np.errstate(all="ignore"):
        got = execute(made.program, chip, inputs, core_library()).outputs
    kinds = {name: graph.type_of(name).dtype.numpy for name in got}
    return {k: v.astype(kinds[k]) for k, v in got.items()}, max(exact, _rounding(made.lowered))


def _worst(got: Mapping[str, Array], expected: Mapping[str, Array], allowed: float) -> str:
    """Return what is said of the output that is farthest off; "" where all are near enough."""
    off = {name: distance(got[name], value) if name in got else np.inf for name, value in expected.items()}
    name = max(off, key=lambda n: off[n], default="")
    if not name or off[name] <= allowed:
        return ""
    return f"output %{name} is {off[name]:.1e} of its largest value off, {allowed:.0e} is allowed"


def oracle(model: Any, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Return the outputs of an ONNX model under these names; onnx's where nothing else runs it."""
    try:
        values = expected_outputs(model, inputs).outputs
    except UserError:  # onnxruntime is not installed, or has no such kernel
        values = reference_outputs(model, inputs, {})
    return dict(zip(names, values.values(), strict=True))


def blamed(graph: Graph, found: Mismatch, seed: int, spelling: str | None = None) -> str:
    """Return the pass after which a graph's results are off, where one is to blame; else ""."""
    kind, _, wanted = found.stage.partition(" ")
    if kind not in ("pipeline", "passes"):
        return ""
    chip = random_chip(seed, found.number)
    steps = parse_passes(spelling) if spelling is not None else pipeline_of(graph, chip, wanted)
    fault = first_fault(graph, steps, [random_inputs(graph, found.number)])
    return fault.step.spelling if fault is not None else ""
