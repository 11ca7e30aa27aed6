"""Models whose stored floats become inputs: which, under which names, and what stays a constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.frontend.trainable import load_trainable
from mtia_emu.compiler.reference import evaluate
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 3)).astype(np.float32)


def model(folder: Path) -> Path:
    """Return a model with a weight, a number, a vector of sizes and scales that a resize must know."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Mul", ["p", "two"], ["q"]),
        helper.make_node("Reshape", ["q", "shape"], ["r"]),
        helper.make_node("Resize", ["r", "", "scales"], ["y"]),
    ]
    stored = {
        "w": WEIGHT,
        "two": np.float32(2),
        "shape": np.array([1, 1, 2, 3]),
        "scales": np.array([1, 1, 2, 1], np.float32),
    }
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [value("x", TensorProto.FLOAT, [2, 4])],
        [value("y", TensorProto.FLOAT, [1, 1, 4, 3])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in stored.items()],
    )
    path = folder / "small.onnx"
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def test_weights_are_inputs_and_what_must_be_known_is_not(tmp_path: Path) -> None:
    graph, stored = load_trainable(model(tmp_path))
    assert list(graph.inputs) == ["x", "w"] and list(stored) == ["w"]
    np.testing.assert_array_equal(stored["w"].array(), WEIGHT)


def test_the_model_computes_the_same(tmp_path: Path) -> None:
    path, x = model(tmp_path), RNG.standard_normal((2, 4)).astype(np.float32)
    graph, _ = load_trainable(path)
    plain = evaluate(load(path), {"x": x})
    np.testing.assert_array_equal(evaluate(graph, {"x": x, "w": WEIGHT})["y"], plain["y"])
