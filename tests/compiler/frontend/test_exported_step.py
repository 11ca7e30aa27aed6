"""Training steps that were exported whole: what the import says of states and of constant weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.graph import Graph
from onnx import helper, numpy_helper

F = onnx.TensorProto.FLOAT


def imported(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int]],
    outputs: list[str],
    frozen: str = "",
) -> Graph:
    """Return the graph of an ONNX file of these nodes; `frozen` is an input that is a constant instead."""
    values = [helper.make_tensor_value_info(n, F, shape) for n, shape in inputs.items() if n != frozen]
    stored = [numpy_helper.from_array(np.ones(inputs[frozen], np.float32), frozen)] if frozen else []
    results = [helper.make_tensor_value_info(n, F, None) for n in outputs]
    graph = helper.make_graph(nodes, "exported", values, results, stored)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), folder / "m.onnx")
    return load(folder / "m.onnx")


def step_nodes() -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "u"], ["y"]),
        node("Mul", ["y", "y"], ["square"]), node("ReduceSum", ["square"], ["loss"], keepdims=0),
        node("Transpose", ["u"], ["ut"], perm=[1, 0]), node("MatMul", ["y", "ut"], ["dh"]),
        node("Transpose", ["x"], ["xt"], perm=[1, 0]), node("MatMul", ["xt", "dh"], ["g"]),
        node("Sub", ["w", "g"], ["w_new"]),
    ]  # fmt: skip


SIZES = {"x": [4, 8], "w": [8, 6], "u": [6, 3]}


def test_states_are_said_and_lie_in_place(tmp_path: Path) -> None:
    graph = imported(tmp_path, step_nodes(), SIZES, ["loss", "w_new"])
    assert dict(graph.states) == {"w_new": "w"}
    (note,) = graph.notes
    assert note.startswith("a training step: 1 outputs are taken as next values") and "%w_new of %w)" in note


def test_weights_that_are_constants_are_named(tmp_path: Path) -> None:
    graph = imported(tmp_path, step_nodes(), SIZES, ["loss", "w_new"], frozen="u")
    (note,) = [n for n in graph.notes if "constants" in n]
    assert note.startswith("weights of this training graph are constants") and "%u" in note


def test_gradients_alone_are_known_by_their_names_or_operators(tmp_path: Path) -> None:
    named = [*step_nodes()[:-1], helper.make_node("Identity", ["g"], ["w_grad"])]
    graph = imported(tmp_path, named, SIZES, ["loss", "w_grad"], frozen="u")
    assert not graph.states and len(graph.notes) == 1
    by_operator = [helper.make_node("MatMul", ["x", "w"], ["h"])]
    by_operator.append(helper.make_node("ReluGrad", ["d", "h"], ["y"], domain="com.microsoft"))
    sizes = {"x": [4, 8], "w": [8, 6], "d": [4, 6]}
    assert len(imported(tmp_path, by_operator, sizes, ["y"], frozen="w").notes) == 1


def test_nothing_is_said_of_a_model_without_gradients(tmp_path: Path) -> None:
    graph = imported(tmp_path, step_nodes()[:4], SIZES, ["loss", "y"], frozen="u")
    assert not graph.states and not graph.notes
