"""Elementwise work of which several values are kept as one node: what joins, what does not, and its bits."""

from __future__ import annotations

import numpy as np
import pytest
from before_after import cases, hold, outcomes
from mtia_emu.compiler import text
from mtia_emu.compiler.gradients.optimisers import optimiser
from mtia_emu.compiler.gradients.step import Recipe, training_step
from mtia_emu.compiler.graph import Const, Graph
from mtia_emu.compiler.passes import Fold, FuseMaps, FuseStates
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.reference import core_library, evaluate

import mtia_emu
from mtia_emu.engine.function import execute
from mtia_emu.options import Options

RULES = ("sgd{momentum=0.9}", "adam", "adamw", "adagrad")
STATES = {"sgd{momentum=0.9}": 2, "adam": 3, "adamw": 3, "adagrad": 2}  # a weight and what is kept beside it


@pytest.mark.parametrize("case", cases("fuse-states"))
def test_before_and_after(case: str) -> None:
    hold(case)


def step_graph(spelling: str, precision: str) -> Graph:
    """Return a training step of one weight."""
    graph = text.parse("""graph layer {
  in %x : fp32[5,7]
  in %w : fp32[7,300]
  %y : fp32[5,300] = matmul(%x, %w)
  out %y
}
""")
    stored = {"w": Const.of(np.zeros((7, 300), np.float32))}
    recipe = Recipe("mse", optimiser(spelling), precision=precision)
    return Fold()(training_step(graph, stored, recipe).graph)


def inputs(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    made = {n: rng.random(k.shape, np.float32).astype(k.dtype.numpy) for n, k in graph.inputs.items()}
    return made | {k: np.float32(v) for k, v in (("learning_rate", 0.1), ("step", 3), ("loss_scale", 8))}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("spelling", RULES)
def test_a_weight_is_one_node_that_changes_the_same_bits(spelling: str, precision: str) -> None:
    before = FuseMaps()(step_graph(spelling, precision))
    after = FuseStates()(before)
    (update,) = [n for n in after.nodes if n.op == "maps" and "w.next" in n.outputs]
    assert len(update.outputs) == STATES[spelling] + (precision != "fp32")
    given = inputs(before)
    expected, found = (evaluate(g, {n: given[n] for n in g.inputs}) for g in (before, after))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_states_are_changed_where_they_lie(precision: str) -> None:
    """By one kernel call that reads and writes each once; bits are the same on every grid, fused or not."""
    graph, found = step_graph("adamw", precision), []
    for side, passes in ((1, None), (4, None), (4, "-fuse-states")):
        chip = mtia_emu.load_chip("mtia-300", {"grid.rows": side, "grid.cols": side})
        options = Options.of(dtype="fp32" if precision == "fp32" else precision, passes=passes)
        program = compile_graph(graph, chip, options=options).program
        kernels = [program.blocks[launch.block].kernel for launch in program.launches]
        assert "copy" not in kernels or passes
        given = inputs(graph)
        made = execute(program, chip, {b.name: given[b.name] for b in program.inputs}, core_library()).outputs
        found.append({new: made[new].tobytes() for new in graph.states})
    assert found[0] == found[1] == found[2]


STEP = """graph g {{
  in %a : fp32[4,3]
  in %b : fp32[4,3]
  in %row : fp32[3]
  %n : fp32[4,3] = add(%a, %b)
  {middle}
  %m : fp32[4,3] = sub(%n, {read})
  out %m
  out %n
}}"""


@pytest.mark.parametrize(
    ("middle", "read", "joins"),
    [
        ("", "%b", True),
        ("", "%row", True),
        ("%s : fp32[4,1] = reduce_sum(%n) {axes=[1], keepdims=true}", "%s", False),  # a way out and back
        ("%s : fp32[3] = exp(%row)", "%s", True),
        ("%s : fp32[4,3] = softmax(%n) {axis=1}", "%s", False),
    ],
)
def test_only_what_no_other_node_reads_joins(middle: str, read: str, joins: bool) -> None:
    graph = text.parse(STEP.format(middle=middle, read=read))
    after = FuseStates()(graph)
    assert any(n.op == "maps" for n in after.nodes) == joins
    given = {n: np.random.default_rng(1).random(k.shape, np.float32) for n, k in graph.inputs.items()}
    for name, value in evaluate(graph, given).items():
        np.testing.assert_array_equal(evaluate(after, given)[name], value)


@pytest.mark.parametrize("made", ["t0", "x0", "2.5"])
def test_what_is_kept_is_read_in_its_own_type(made: str) -> None:
    """Where its tape ends in another type, or in what it was given."""
    head = 'map(%a, %b) {tape="2 -> MADE | t0 = add(x0, x1) : fp32", to="bf16"}'.replace("MADE", made)
    wide = '%wide : fp32[4,3] = cast(%n) {to="fp32"}'
    body = STEP.format(middle=wide, read="%b").replace("sub(%n", "sub(%wide")
    graph = text.parse(body.replace("fp32[4,3] = add(%a, %b)", f"bf16[4,3] = {head}"))
    after = FuseStates()(graph)
    assert [n.op for n in after.nodes] == ["maps"]
    given = {n: np.random.default_rng(1).random(k.shape, np.float32) for n, k in graph.inputs.items()}
    for name, value in evaluate(graph, given).items():
        np.testing.assert_array_equal(evaluate(after, given)[name], value)


def test_limits_are_said() -> None:
    body = STEP.format(middle="", read="%row")
    why = "fused it would have 3 operands and 2 steps"
    assert outcomes("fuse-states{max-inputs=2}", body) == outcomes("fuse-states{max-steps=1}", body) == [why]


def test_what_waits_for_a_reader_of_the_last_is_not_fused_with_it() -> None:
    """%ends reads what is made of %last, and both read %both: as one node they would be a cycle."""
    graph = text.parse("""graph back {
  in %x : fp32[4,8]
  %both : fp32[4,8] = neg(%x)
  %last : fp32[4,8] = exp(%both)
  %sum : fp32[4,1] = reduce_sum(%last) {axes=[1], keepdims=true}
  %wide : fp32[4,8] = expand(%sum) {shape=[4,8]}
  %ends : fp32[4,8] = sub(%both, %wide)
  out %last
  out %ends
}
""")
    after = FuseStates()(graph)
    assert "maps" not in {node.op for node in after.nodes}
    x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)
    for name, value in evaluate(graph, {"x": x}).items():
        np.testing.assert_array_equal(evaluate(after, {"x": x})[name], value)
