"""Dropout: what is dropped and when; the same behind the loss, recomputed, and on any number of ranks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mtia_emu.compiler.gradients.step import DRAW, TrainingStep
from mtia_emu.compiler.partition.lockstep import evaluate_split
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.step import split_step
from mtia_emu.compiler.reference import evaluate
from onnx import helper, numpy_helper

import mtia_emu
from mtia_emu.errors import UserError

WIDTH, RATIO = 64, 0.25


def model(to: Path, *, ratio: float = RATIO, trains: bool = True, layers: int = 2) -> Path:
    """Write layers with a relu, each with dropout behind it; return the file."""
    rng, nodes = np.random.default_rng(0), []
    held = [
        numpy_helper.from_array(np.float32(ratio), "ratio"),
        numpy_helper.from_array(np.array(trains), "trains"),
    ]
    for i in range(layers):
        weights = (rng.standard_normal((WIDTH, WIDTH)) / 8).astype(np.float32)
        held.append(numpy_helper.from_array(weights, f"w{i}"))
        nodes += [
            helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"h{i}"]),
            helper.make_node("Relu", [f"h{i}"], [f"r{i}"]),
            helper.make_node("Dropout", [f"r{i}", "ratio", "trains"], [f"x{i + 1}", f"mask{i}"]),
        ]
    value = helper.make_tensor_value_info
    outputs = [value(f"x{layers}", 1, [8, WIDTH])] + [value(f"mask{i}", 9, [8, WIDTH]) for i in range(layers)]
    graph = helper.make_graph(nodes, "g", [value("x0", 1, [8, WIDTH])], outputs, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), to)
    return to


@cache
def step(path: Path, **recipe: Any) -> TrainingStep:
    return mtia_emu.training_step(path, "mse", "sgd", seed=0, **recipe)


def masks_of(of: TrainingStep, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return which elements each dropout of the forward pass keeps."""
    names = [n.output for n in of.forward.nodes if n.op == "greater_equal"]
    graph = of.forward.with_nodes(of.forward.nodes, outputs=names)
    found = evaluate(graph, {n: given[n] for n in graph.inputs})
    return [found[name] for name in names]


def feed(of: TrainingStep, draw: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    out = {
        n: rng.standard_normal(t.shape).astype(np.float32) for n, t in of.graph.inputs.items() if n != DRAW
    }
    known = {n: c.array(n) for n, c in of.parameters.items()}
    return {**out, **known, "learning_rate": np.float32(1.0), DRAW: np.uint32(draw)}


def test_a_run_in_training_mode_drops_a_share_and_the_chip_the_same(tmp_path: Path) -> None:
    path, x = model(tmp_path / "m.onnx", layers=1), np.ones((8, WIDTH), np.float32)
    done = mtia_emu.run(path, inputs={"x0": x}, dtype="fp32", check=True, gpu=None)
    assert done.check is not None and done.check.passed and "references" in done.check.oracle
    kept, y = done.outputs["mask0"], done.outputs["x1"]
    assert abs(kept.mean() - (1 - RATIO)) < 5 * np.sqrt(RATIO * (1 - RATIO) / kept.size)
    plain = mtia_emu.run(
        model(tmp_path / "p.onnx", layers=1, trains=False), inputs={"x0": x}, dtype="fp32", gpu=None
    )
    np.testing.assert_allclose(y, np.where(kept, plain.outputs["x1"] / (1 - RATIO), 0), rtol=1e-5)
    assert plain.outputs["mask0"].all()


def test_each_layer_and_each_batch_drops_others(tmp_path: Path) -> None:
    of = step(model(tmp_path / "m.onnx"))
    masks = [mask for draw in (0, 1) for mask in masks_of(of, feed(of, draw))]
    assert len(masks) == 4
    for i, one in enumerate(masks):
        for other in masks[:i]:
            alike = (one == other).mean()
            assert abs(alike - (RATIO**2 + (1 - RATIO) ** 2)) < 0.12, "as independent masks agree"


@pytest.mark.parametrize("recipe", [{}, {"keep": 0.0}])
def test_what_is_dropped_forward_has_no_gradient_backward(tmp_path: Path, recipe: dict[str, Any]) -> None:
    """Of one layer: the weight's gradient is that of the kept elements alone, computed again or not."""
    of = step(model(tmp_path / "m.onnx", layers=1), **recipe)
    given = feed(of, 5)
    out = evaluate(of.graph, {n: x for n, x in given.items() if n in of.graph.inputs})
    (kept,) = masks_of(of, given)
    h = given["x0"] @ given["w0"]
    y = np.where(kept, np.maximum(h, 0) / (1 - RATIO), 0)
    back = 2 * (y - given["target"]) / y.size * kept / (1 - RATIO) * (h > 0)
    np.testing.assert_allclose(given["w0"] - out["w0.next"], given["x0"].T @ back, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("parallel", ["dp=2", "dp=4", "dp=2,tp=2"])
def test_any_number_of_ranks_drops_the_same(tmp_path: Path, parallel: str) -> None:
    of = step(model(tmp_path / "m.onnx"))
    given = {n: x for n, x in feed(of, 3).items() if n in of.graph.inputs}
    got = evaluate_split(split_step(of, parse_parallel(parallel)).split, given)
    for name, right in evaluate(of.graph, given).items():
        np.testing.assert_allclose(got[name], right, rtol=1e-4, atol=1e-6)


def test_steps_and_micro_batches_draw_each_their_own_and_seeds_others(tmp_path: Path) -> None:
    path = model(tmp_path / "m.onnx")
    words: dict[str, Any] = {"loss": "mse", "optimizer": "sgd{lr=0}", "gpu": None}
    losses = [mtia_emu.train(path, steps=3, seed=s, **words).losses for s in (0, 0, 1)]
    first, again, other = (x.losses for x in losses if x is not None)
    assert first == again and len({*first}) == 3, "weights stay, masks do not"
    assert set(first).isdisjoint(other)
    both = mtia_emu.train(path, steps=1, accumulate=2, **words).losses
    assert both is not None and both.losses[0] == pytest.approx((first[0] + first[1]) / 2)


@pytest.mark.parametrize("ratio", [1.0, -0.5, float("nan")])
def test_a_ratio_that_leaves_nothing_is_refused(tmp_path: Path, ratio: float) -> None:
    with pytest.raises(UserError, match=r"ratio is .* \(right: from 0 to below 1\)"):
        mtia_emu.run(model(tmp_path / "m.onnx", ratio=ratio), gpu=None)


def test_the_gradient_operator_of_onnxruntime_passes_what_was_kept(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    held = [
        numpy_helper.from_array(np.float32(RATIO), "ratio"),
        numpy_helper.from_array(np.array(True), "trains"),
    ]
    node = helper.make_node("DropoutGrad", ["dy", "mask", "ratio", "trains"], ["dx"], domain="com.microsoft")
    graph = helper.make_graph(
        [node], "g", [value("dy", 1, [4, 8]), value("mask", 9, [4, 8])], [value("dx", 1, [4, 8])], held
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "g.onnx")
    rng = np.random.default_rng(0)
    dy, mask = rng.standard_normal((4, 8)).astype(np.float32), rng.random((4, 8)) < 0.5
    got = mtia_emu.run(tmp_path / "g.onnx", inputs={"dy": dy, "mask": mask}, dtype="fp32", gpu=None).outputs[
        "dx"
    ]
    np.testing.assert_allclose(got, dy * mask / (1 - RATIO), rtol=1e-6)
