"""Steps of optimisers on looked-up rows as one op: what it does, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from before_after import cases, hold, outcomes
from mtia_emu.compiler import text
from mtia_emu.compiler.gradients.optimisers import optimiser
from mtia_emu.compiler.gradients.step import Recipe, training_step
from mtia_emu.compiler.graph import Const, Graph
from mtia_emu.compiler.passes import Fold, FuseUpdates
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.reference import core_library, evaluate

import mtia_emu
from mtia_emu.engine.function import execute
from mtia_emu.options import Options

RULES = (
    *("sgd", "sgd{momentum=0.9}", "sgd{momentum=0.5,nesterov=true,weight_decay=0.1}", "adam", "adamw"),
    *("adagrad", "adagrad{rowwise=true}", "adagrad{rowwise=true,weight_decay=0.1}"),
)
RECIPES = ({}, {"precision": "bf16"}, {"precision": "fp16"}, {"clip": 0.01})
ROWS = 40


@pytest.mark.parametrize("case", cases("fuse-updates"))
def test_before_and_after(case: str) -> None:
    hold(case)


def step_graph(spelling: str, rows: int = ROWS, count: int = 12, **recipe: Any) -> Graph:
    """Return a training step of bags of two rows."""
    graph = text.parse(f"""graph tables {{
  in %i : int64[{count}]
  const %o : int64[{count // 2 + 1}] = {list(range(0, count + 1, 2))}
  in %table : fp32[{rows},3]
  in %w : fp32[3,1]
  %bag : fp32[{count // 2},3] = embedding_bag(%table, %i, %o) {{mode="mean"}}
  %y : fp32[{count // 2},1] = matmul(%bag, %w)
  out %y
}}
""")
    stored = {n: Const.of(np.zeros(graph.inputs[n].shape, np.float32)) for n in ("table", "w")}
    return Fold()(training_step(graph, stored, Recipe("mse", optimiser(spelling), **recipe)).graph)


def inputs(graph: Graph) -> dict[str, np.ndarray[Any, Any]]:
    """Return what a third step is given, a row named many times and one by both of its names."""
    rng = np.random.default_rng(3)
    made = {n: rng.random(k.shape, np.float32).astype(k.dtype.numpy) for n, k in graph.inputs.items()}
    table, count = graph.inputs["table"].shape[0], graph.inputs["i"].size
    made["i"] = np.resize(np.array([1, 0, 1, 1, -1, 1, table - 1, 0, 1, 1, 1, 0]), count) % table - 0
    made["i"][4] = -1
    return made | {k: np.float32(v) for k, v in (("learning_rate", 0.1), ("step", 3), ("loss_scale", 8))}


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("spelling", RULES)
def test_a_fused_step_changes_what_the_ops_change(spelling: str, recipe: dict[str, Any]) -> None:
    before = step_graph(spelling, **recipe)
    after = FuseUpdates()(before)
    (update,) = [n for n in after.nodes if n.op == "update_rows"]
    tables = {old for old in after.states.values() if old.startswith("table")}
    assert set(update.inputs) >= tables and len(update.outputs) == len(tables)
    norm = "clip" in recipe or recipe.get("precision") == "fp16"  # reads the sums as well
    assert norm or not any(n.op in ("scatter_rows", "first_equal") for n in after.nodes)
    given = {n: x for n, x in inputs(before).items() if n in before.inputs}
    expected, found = (evaluate(g, given) for g in (before, after))
    for name, value in expected.items():
        wide = (x[name].astype(np.float32) for x in (found, expected))
        np.testing.assert_allclose(*wide, rtol=1e-5 if value.dtype == np.float32 else 1e-2, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 40])  # of few, gradients are added up in part
def test_bits_do_not_depend_on_the_grid(rows: int) -> None:
    graph, found = step_graph("adagrad{rowwise=true}", rows, 96), []
    for side in (1, 3, 8):
        chip = mtia_emu.load_chip("mtia-2i", {"grid.rows": side, "grid.cols": side})
        program = compile_graph(graph, chip, options=Options.of(dtype="fp32")).program
        kernels = [program.blocks[launch.block].kernel for launch in program.launches]
        assert ("partial_sums" in kernels) == (rows < 3) and "scalar" not in kernels
        given = inputs(graph)
        made = execute(program, chip, {b.name: given[b.name] for b in program.inputs}, core_library()).outputs
        found.append({new: made[new].tobytes() for new, old in graph.states.items() if "table" in old})
        expected = evaluate(graph, {n: given[n] for n in graph.inputs})
        for name in found[0]:
            np.testing.assert_allclose(made[name], expected[name], rtol=1e-5, atol=1e-6)
    assert found[0] == found[1] == found[2]


def test_wide_rows_are_changed_in_parts_of_their_columns() -> None:
    body = """graph g {
  in %t : fp32[6,4000]
  in %i : int64[3]
  in %g : fp32[3,4000]
  in %r : fp32[]
  const %p : int64[3] = [2, 0, 1]
  %u : fp32[6,4000] = update_rows(%t, %i, %g, %p, %r) {tables=1, tape="TAPE"}
  out %u at %t
}"""
    body = body.replace("TAPE", "3 -> t1 | t0 = mul(x0, x2); t1 = sub(x1, t0)")
    graph, chip = text.parse(body), mtia_emu.load_chip("mtia-2i", {"pe.local.bytes": 65536})
    program = compile_graph(graph, chip, options=Options.of(dtype="fp32")).program
    kernels = [program.blocks[launch.block].kernel for launch in program.launches]
    assert kernels.count("update") == len(kernels) > 1
    rng = np.random.default_rng(0)
    given = {"t": rng.random((6, 4000), np.float32), "i": np.array([5, 0, 5]), "r": np.float32(0.5)}
    given["g"] = rng.random((3, 4000), np.float32)
    made = execute(program, chip, given, core_library()).outputs["u"]
    np.testing.assert_array_equal(made, evaluate(graph, given)["u"])


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("%c : fp32[4,3] = exp(%once)", "may not be 0"),
        ("%c : fp32[4,3] = mul(%once, %whole)", "no sum of rows"),
        ("%c : fp32[4,3] = mul(%once, %other)", "no row for each index"),
        ("%c : fp32[4,3] = cumsum(%once) {axis=0}", "may not be 0"),
    ],
)
def test_what_is_no_step_of_an_optimiser_stays(rule: str, why: str) -> None:
    body = f"""graph g {{
  in %t : fp32[9,3]
  in %i : int64[4]
  in %g : fp32[4,3]
  in %other : fp32[4,3]
  const %zero : fp32[4,3] = {[0.0] * 12}
  %first : int64[4] = first_equal(%i) {{rows=9}}
  %once : fp32[4,3] = scatter_rows(%zero, %first, %g) {{reduction="add"}}
  %whole : fp32[4,3] = gather(%once, %first) {{axis=0}}
  {rule}
  %u : fp32[9,3] = scatter_rows(%t, %i, %c) {{reduction="add"}}
  out %u at %t
  out %whole
}}"""
    (reason,) = outcomes("fuse-updates", body)
    assert why in reason
