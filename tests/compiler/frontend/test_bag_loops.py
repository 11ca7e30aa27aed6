"""Loops that pool rows are embedding bags in every spelling, whatever the order of what they carry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bag_loops import CHOICES, Loop, Spelling, draw, expected, feed
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.reference import evaluate
from onnx import numpy_helper

from mtia_emu import api
from mtia_emu.errors import UserError

PLAIN = Spelling()
DYNAMO = Spelling(
    result="sequence", counter="own", condition="less", trips="none", read="slice", empty="equal", rows="rows"
)


def loaded(model: Any, folder: Path) -> Graph:
    onnx.save(model, folder / "m.onnx")
    return load(folder / "m.onnx")


def hold(spelling: Spelling, folder: Path) -> None:
    """Hold a spelling to the bags worked out by hand, and to being no loop written out."""
    graph = loaded(Loop(spelling).model(), folder)
    np.testing.assert_allclose(evaluate(graph, feed())["y"], expected(spelling), rtol=1e-5, atol=1e-6)
    kinds = [n.op for n in graph.nodes]
    assert "embedding_bag" in kinds and len(kinds) < 16 and "slice" not in kinds[3:]


def one_by_one(base: Spelling) -> Iterator[Any]:
    """Yield a spelling with each of its choices taken anew, one at a time."""
    for name in (f.name for f in fields(Spelling)):
        for choice in CHOICES[name]:
            changed = replace(base, **{name: choice})
            if changed.padding == "loop":
                changed = replace(changed, rows="rows")
            if changed.condition in ("true", "identity", "and"):
                changed = replace(changed, trips="known")
            if changed.padding in ("mask", "where") or changed.weights:
                changed = replace(changed, mode="Sum")
            yield pytest.param(changed, id=f"{base.result}-{name}-{choice}")


@pytest.mark.parametrize("spelling", [*one_by_one(PLAIN), *one_by_one(DYNAMO)])
def test_a_loop_a_spelling_away_is_a_bag(spelling: Spelling, tmp_path: Path) -> None:
    hold(spelling, tmp_path)


@pytest.mark.parametrize("seed", range(24))
def test_spellings_go_together(seed: int, tmp_path: Path) -> None:
    hold(draw(seed), tmp_path)


@pytest.mark.deep
def test_many_spellings_are_what_onnxruntime_makes_of_them(tmp_path: Path) -> None:
    from mtia_emu.oracle import onnxruntime_outputs

    pytest.importorskip("onnxruntime")
    for seed in range(24, 624):
        spelling = draw(seed)
        hold(spelling, tmp_path)
        right = onnxruntime_outputs(tmp_path / "m.onnx", feed())["y"]
        np.testing.assert_allclose(expected(spelling), right, rtol=1e-5, atol=1e-6, err_msg=str(spelling))


@pytest.mark.parametrize("padding", ["", "loop"])
@pytest.mark.parametrize("mode", ["Sum", "Mean", "Max"])
def test_a_bag_is_executed_as_it_is_written(mode: str, padding: str, tmp_path: Path) -> None:
    spelling = replace(DYNAMO, mode=mode, padding=padding, order=1)
    onnx.save(Loop(spelling).model(), tmp_path / "m.onnx")
    outputs = api.run(tmp_path / "m.onnx", "tiny", inputs=feed(), dtype="fp32", gpu=None).outputs
    np.testing.assert_allclose(outputs["y"], expected(spelling), rtol=1e-5, atol=1e-6)


def test_torch_orders_what_its_loops_carry_by_a_hash(tmp_path: Path) -> None:
    plans = {tuple(o.name for o in _loop(Loop(replace(DYNAMO, order=n)).model()).input[2:]) for n in range(6)}
    assert len(plans) == 6
    graphs = [loaded(Loop(replace(DYNAMO, order=n)).model(), tmp_path) for n in range(6)]
    assert (
        len({tuple((n.op, n.attrs["mode"]) for n in g.nodes if n.op == "embedding_bag") for g in graphs}) == 1
    )


@pytest.mark.parametrize("padding", ["", "loop"])
def test_branches_may_use_one_name_for_two_values(padding: str, tmp_path: Path) -> None:
    spelling = replace(DYNAMO, padding=padding)
    model = Loop(spelling).model()
    chosen = [n for n in _loop(model).node if n.op_type == "If"][-1]
    for branch in (a.g for a in chosen.attribute):
        for node in branch.node:
            if node.output[0] == branch.output[0].name:
                node.output[0] = branch.output[0].name = "row"
    graph = loaded(model, tmp_path)
    assert "embedding_bag" in {n.op for n in graph.nodes}
    np.testing.assert_allclose(evaluate(graph, feed())["y"], expected(spelling), rtol=1e-5, atol=1e-6)


def test_constants_of_two_branches_may_have_one_name(tmp_path: Path) -> None:
    model = Loop(DYNAMO).model()
    branches = [a.g for a in next(n for n in _loop(model).node if n.op_type == "If").attribute]
    for branch in branches:
        of = {"ReduceSum": ("zero", np.array([0])), "Identity": ("blank", np.zeros((1, 4), np.float32))}
        node = branch.node[-1]
        name, value = of[node.op_type]
        branch.initializer.append(numpy_helper.from_array(value, "k"))
        node.input[:] = ["k" if n == name else n for n in node.input]
    graph = loaded(model, tmp_path)
    np.testing.assert_allclose(evaluate(graph, feed())["y"], expected(DYNAMO), rtol=1e-5, atol=1e-6)


def _loop(model: Any) -> Any:
    (loop,) = (n for n in model.graph.node if n.op_type == "Loop")
    return loop.attribute[0].g


def _change(model: Any, op: str, at: int, to: str) -> None:
    """Let the first node of an op in the loop read another name."""
    nodes = [n for n in _loop(model).node if n.op_type == op]
    nodes[0].input[at] = to


def backwards(model: Any) -> None:
    _change(model, "SequenceInsert", 0, "seq")
    insert = next(n for n in _loop(model).node if n.op_type == "SequenceInsert")
    insert.input.append("n0")


def two_steps(model: Any) -> None:
    next(n for n in _loop(model).node if n.output[0] == _loop(model).output[1].name).input[0] = "n3"


def same_bag(model: Any) -> None:
    for name in ("zero", "one"):
        _change(model, "Slice", 1, name)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (backwards, "it does not append to its sequence"),
        (two_steps, "its condition is not on its counter"),
        (same_bag, "its condition is neither on the rows of a bag nor on its number"),
    ],
)
def test_a_loop_that_is_not_quite_a_bag_is_none(change: Any, why: str, tmp_path: Path) -> None:
    model = Loop(DYNAMO).model()
    change(model)
    with pytest.raises(UserError, match=f"it is no embedding bag.*{why}"):
        loaded(model, tmp_path)


@pytest.mark.parametrize(("limit", "trips"), list(product([0, 2, 5], [0, 1, 5])))
def test_a_loop_that_ends_early_has_so_many_bags(limit: int, trips: int, tmp_path: Path) -> None:
    spelling = replace(PLAIN, condition="less")
    loop = Loop(spelling)
    loop.consts |= {"n5": np.array(limit), "often": np.array(trips)}
    model = loop.model()
    next(n for n in model.graph.node if n.op_type == "Loop").input[0] = "often"
    count = min(trips, max(limit, 1))  # its condition is asked at the end of each iteration
    graph = loaded(model, tmp_path)
    np.testing.assert_allclose(evaluate(graph, feed())["y"], expected(spelling)[:count], rtol=1e-5)
