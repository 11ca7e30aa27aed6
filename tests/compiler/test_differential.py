"""Random graphs through every stage: what a stage makes must compute what the model says.

`MTIA_EMU_FUZZ=3000` raises the number of examples of each property.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.graph import Const, Graph
from mtia_emu.compiler.lower.place import LINE, overwriting, place
from mtia_emu.compiler.ops import OPS, reference
from mtia_emu.compiler.passes import Fold, FuseAttention, Legalise, Pass
from mtia_emu.compiler.passes.set_weight_layout import SetWeightLayout
from mtia_emu.compiler.passes.split_into_strips import SplitIntoStrips
from mtia_emu.compiler.pipeline import Compiled, compile_graph, mapping_passes, passes
from mtia_emu.compiler.reference import evaluate

from mtia_emu import testing
from mtia_emu.engine.function import execute
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Opcode
from mtia_emu.program.text import dump
from mtia_emu.program.verify import verify
from mtia_emu.types import FP16, FP32, dtype

Array = np.ndarray[Any, Any]
LIBRARY = {name: (lambda arrays, attrs, name=name: reference(name, arrays, attrs)) for name in OPS}
TINY = load_chip("tiny")
EXACT = ("move", "bag")  # motifs whose fp32 results no rewrite may change in the last bit
LARGE = 1e3  # results beyond this have lost the digits that a tolerance speaks of


def fuzz(examples: int) -> Any:
    """Return the settings of a property."""
    count = max(examples, int(os.environ.get("MTIA_EMU_FUZZ", "0")))
    return settings(
        max_examples=count,
        phases=[Phase.generate, Phase.shrink],
        derandomize=count == examples,
    )


def values(graph: Graph, inputs: dict[str, Array]) -> dict[str, Array]:
    """Return the graph's outputs by the references; the inputs in the types that the graph has them in."""
    given = {name: inputs[name].astype(kind.dtype.numpy) for name, kind in graph.inputs.items()}
    with np.errstate(all="ignore"):
        return evaluate(graph, given)


def tame(outputs: dict[str, Array]) -> bool:
    """Return whether all results are finite and not so large that rounding errors are."""
    return all(np.abs(np.asarray(v).astype(np.float64)).max(initial=0.0) < LARGE for v in outputs.values())


def every_pass() -> tuple[Pass, ...]:
    """Return each pass that keeps the number format, and strips of one head."""
    return (
        *{type(p): p for p in passes(FP32, FP32)}.values(),
        FuseAttention(),
        SetWeightLayout(),
        SplitIntoStrips(1),
        SplitIntoStrips(64),
    )


@fuzz(120)
@given(testing.graphs(), testing.tensors(), st.sampled_from(every_pass()), st.booleans())
def test_each_pass_keeps_law_and_results(
    graph: Graph, tensors: testing.Feed, step: Pass, lawful: bool
) -> None:
    if lawful:
        graph = Fold()(Legalise()(graph))
    inputs = tensors(graph)
    expected = values(graph, inputs)
    made = check(step(graph), after=step.name)
    assert made.inputs == graph.inputs and made.outputs == graph.outputs
    assume(tame(expected))
    testing.assert_close(values(made, inputs), expected, 2e-5)


@fuzz(40)
@given(testing.graphs(motifs=EXACT), testing.tensors(), st.sampled_from(every_pass()))
def test_each_pass_keeps_moves_exactly(graph: Graph, tensors: testing.Feed, step: Pass) -> None:
    inputs = tensors(graph)
    made = check(step(graph), after=step.name)
    testing.assert_close(
        values(made, inputs), values(graph, inputs), 1e-6 if step.name == "fuse-bags" else 0.0
    )


@fuzz(60)
@given(testing.graphs(), testing.tensors(), testing.chips())
def test_the_pipeline_keeps_results(graph: Graph, tensors: testing.Feed, chip: Chip) -> None:
    inputs = tensors(graph)
    expected = values(graph, inputs)
    made = graph
    for step in (*passes(FP32, FP32), *mapping_passes(chip)):
        made = check(step(made), after=step.name)
        if tame(expected):
            testing.assert_close(values(made, inputs), expected, 2e-5)
    written = text.dump(made)
    back = text.parse(written, {k: c.array() for k, c in made.consts.items()})
    assert text.dump(back) == written


@fuzz(60)
@given(testing.graphs(), testing.tensors(), st.sampled_from(["fp16", "bf16"]))
def test_a_narrower_format_keeps_results_to_its_precision(
    graph: Graph, tensors: testing.Feed, kind: str
) -> None:
    inputs = tensors(graph)
    expected = values(graph, inputs)
    made = graph
    for step in passes(FP32, dtype(kind)):
        made = check(step(made), after=step.name)
    assume(tame(expected))
    got = {k: v.astype(expected[k].dtype) for k, v in values(made, inputs).items()}
    floats = {k: v for k, v in expected.items() if v.dtype == np.float32}
    testing.assert_close({k: got[k] for k in floats}, floats, 1e-2 if kind == "fp16" else 8e-2)


@fuzz(40)
@given(testing.graphs("fp16"), testing.tensors())
def test_a_model_of_halves_keeps_results(graph: Graph, tensors: testing.Feed) -> None:
    inputs = tensors(graph)
    expected = values(graph, inputs)
    made = graph
    for step in passes(FP16, FP16):
        made = check(step(made), after=step.name)
    assume(tame(expected))
    testing.assert_close(values(made, inputs), expected, 1e-2)


def compiled(graph: Graph, chip: Chip, wanted: str | None) -> Compiled:
    """Return the compiled graph, its program verified."""
    made = compile_graph(graph, chip, dtype=wanted)
    verify(made.program, chip)
    return made


def holds(graph: Graph, inputs: dict[str, Array], chip: Chip, wanted: str | None) -> None:
    """Execute a graph on a chip and hold it to the lowered graph's references."""
    made = compiled(graph, chip, wanted)
    expected = values(made.graph, inputs)
    with np.errstate(all="ignore"):
        got = execute(made.program, chip, inputs, LIBRARY).outputs
    got = {name: value.astype(expected[name].dtype) for name, value in got.items()}
    check_program(made)
    if tame(expected):
        testing.assert_close(got, expected, 1e-5 if wanted == "fp32" else 4e-3)


def check_program(made: Compiled) -> None:
    """Assert what holds of every program: its multiply-adds are the model's, its memory is nobody else's."""
    core = {s.name for s in made.schedule.steps if s.kernel == "scalar"}
    hides = {n.name for n in made.graph.nodes if n.op == "attention" and n.attrs.get("mask")}
    macs = sum(w.macs for w in made.program.works if w.name not in core)
    found = program_macs(made)
    assert found == macs or core or (hides and found < macs), f"{found} multiply-adds, the model has {macs}"
    check_placement(made)


def program_macs(made: Compiled) -> int:
    """Return the multiply-adds of all launches."""
    each = []
    for block in made.program.blocks:
        c = block.commands[block.commands["op"] == Opcode.MATMUL]
        each.append(int((c["rows"].astype(np.int64) * c["cols"] * c["k"]).sum()))
    return sum(each[launch.block] for launch in made.program.launches)


def check_placement(made: Compiled) -> None:
    """Assert that buffers are aligned, within their memory, and that none alive at the same step overlap.

    A result may lie over what its step reads last, element by element.
    """
    plan = made.schedule
    where = place(plan)
    alive: dict[str, list[int]] = {}
    for index, step in enumerate(plan.steps):
        for view in (*step.inputs, *step.outputs):
            alive.setdefault(view.buffer, []).append(index)
    last = len(plan.steps)
    together = overwriting(plan, {name: (min(at), max(at)) for name, at in alive.items()})
    lives = []
    for name, buffer in plan.buffers.items():
        if name not in where.address:
            assert buffer.role == "temp" and name not in alive
            continue
        begin, end = (0, last) if buffer.role != "temp" else (min(alive[name]), max(alive[name]))
        space, at = where.space[name], where.address[name]
        top = where.sram_bytes if space == "sram" else where.dram_bytes
        assert at % LINE == 0 and 0 <= at <= at + buffer.type.bytes <= top, name
        lives.append((space, at, at + max(buffer.type.bytes, 1), begin, end, name))
    assert where.sram_bytes <= plan.chip.sram.bytes
    for i, a in enumerate(lives):
        for b in lives[:i]:
            apart = a[0] != b[0] or a[2] <= b[1] or b[2] <= a[1] or a[4] < b[3] or b[4] < a[3]
            over = a[1:3] == b[1:3] and b[5] in together.get(a[5], []) and (a[3] == b[4] or b[3] == a[4])
            assert apart or over, f"%{a[5]} and %{b[5]} overlap"


@fuzz(80)
@given(testing.graphs(), testing.tensors(), st.one_of(st.just(TINY), testing.chips()))
def test_execution_is_the_lowered_graph_in_singles(graph: Graph, tensors: testing.Feed, chip: Chip) -> None:
    holds(graph, tensors(graph), chip, "fp32")


@fuzz(60)
@given(
    testing.graphs(),
    testing.tensors(),
    st.one_of(st.just(TINY), testing.chips()),
    st.sampled_from(["fp16", "int8"]),
)
def test_execution_is_the_lowered_graph_in_narrow_types(
    graph: Graph, tensors: testing.Feed, chip: Chip, wanted: str
) -> None:
    holds(graph, tensors(graph), chip, wanted)


@fuzz(40)
@given(testing.graphs("fp16"), testing.tensors(), testing.chips())
def test_execution_of_a_model_of_halves(graph: Graph, tensors: testing.Feed, chip: Chip) -> None:
    holds(graph, tensors(graph), chip, None)


@fuzz(40)
@given(testing.graphs(empty=True), testing.tensors())
def test_execution_with_dimensions_of_zero(graph: Graph, tensors: testing.Feed) -> None:
    holds(graph, tensors(graph), TINY, "fp32")


@fuzz(30)
@given(testing.graphs(), st.sampled_from(["fp32", "fp16", "int8"]))
def test_weights_may_be_absent(graph: Graph, wanted: str) -> None:
    consts = {k: Const(c.type) if c.type.size > 1 else c for k, c in graph.consts.items()}
    bare = compiled(graph.with_nodes(graph.nodes, consts=consts), TINY, wanted)
    check_program(bare)
    assert all(c.present for c in bare.program.data.values())


@fuzz(30)
@given(testing.graphs(), st.sampled_from(["fp32", "fp16", "int8"]))
def test_compiling_twice_gives_the_same(graph: Graph, wanted: str) -> None:
    first, second = (compile_graph(graph, TINY, dtype=wanted) for _ in range(2))
    assert text.dump(first.graph) == text.dump(second.graph)
    assert str(first.schedule) == str(second.schedule)
    assert dump(first.program) == dump(second.program)
