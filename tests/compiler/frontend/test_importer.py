"""What a model stores beside its graph: defaults, sizes of 0, sparse tensors; what the user hears of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.reference import evaluate
from onnx import TensorProto, helper, numpy_helper

from mtia_emu import api
from mtia_emu.errors import UserError

F, I64 = TensorProto.FLOAT, TensorProto.INT64
X = np.array([[1, -2, 3], [0.5, 4, -1]], np.float32)
W = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
B = np.array([1, 0, -1, 2], np.float32)


def vi(name: str, shape: Any, kind: int = F) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def save(path: Path, nodes: list[Any], inputs: list[Any], consts: dict[str, Any], ir: int = 10) -> Any:
    """Write a model whose output is `y`; return it."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in consts.items()]
    graph = helper.make_graph(nodes, "g", inputs, [vi("y", None)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=ir)
    onnx.save(model, path)
    return model


def linear(path: Path, ir: int = 10, width: Any = 4) -> Path:
    """Write x @ w + b, with defaults for w and b."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    save(path, nodes, [vi("x", [2, 3]), vi("w", [3, width]), vi("b", [width])], {"w": W, "b": B}, ir)
    return path


GIVEN = [
    {},
    {"w": W[::-1].copy()},
    {"b": B * 3},
    {"w": np.zeros_like(W), "b": B + 1},
]


@pytest.mark.parametrize("ir", [3, 4, 10])
@pytest.mark.parametrize("given", GIVEN, ids=lambda given: "+".join(given) or "none")
def test_an_input_with_a_default_may_be_given(given: dict[str, np.ndarray], ir: int, tmp_path: Path) -> None:
    outcome = api.run(
        linear(tmp_path / "m.onnx", ir), "tiny", inputs={"x": X, **given}, dtype="fp32", gpu=None
    )
    values = {"w": W, "b": B} | given
    np.testing.assert_allclose(outcome.outputs["y"], X @ values["w"] + values["b"], rtol=1e-6)


def test_a_given_input_may_have_another_size_than_its_default(tmp_path: Path) -> None:
    given = {"x": X, "w": np.ones((3, 7), np.float32), "b": np.zeros(7, np.float32)}
    path = linear(tmp_path / "m.onnx", width="n")
    out = api.run(path, "tiny", inputs=given, dtype="fp32", gpu=None).outputs["y"]
    np.testing.assert_array_equal(out, X @ given["w"])


def test_a_default_that_is_given_is_folded_nowhere(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["s", "s"], ["q"]), helper.make_node("Mul", ["x", "q"], ["y"])]
    save(tmp_path / "m.onnx", nodes, [vi("x", [2, 3]), vi("s", [])], {"s": np.float32(1)})
    assert load(tmp_path / "m.onnx").nodes[0].op == "copy"  # times 1
    graph = load(tmp_path / "m.onnx", input_shapes={"s": ()})
    assert list(graph.inputs) == ["x", "s"]
    np.testing.assert_array_equal(evaluate(graph, {"x": X, "s": np.float32(3)})["y"], X * 9)


def test_a_shape_given_at_run_time_is_no_constant(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    save(
        tmp_path / "m.onnx",
        nodes,
        [vi("x", [2, 3]), vi("shape", [2], I64)],
        {"shape": np.array([3, 2])},
    )
    assert load(tmp_path / "m.onnx").type_of("y").shape == (3, 2)
    with pytest.raises(UserError, match=r"Reshape x1: its shape, %shape, depends on the data"):
        load(tmp_path / "m.onnx", input_shapes={"shape": (2,)})


def test_a_constant_that_is_no_input_cannot_be_given(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    save(tmp_path / "m.onnx", nodes, [vi("x", [2, 3])], {"w": W})
    with pytest.raises(UserError, match=r"unknown input 'w' \(known: x\)"):
        api.run(tmp_path / "m.onnx", "tiny", inputs={"x": X, "w": W}, gpu=None)


def test_a_program_takes_the_defaults_that_it_was_compiled_for(
    cli: Callable[..., Result], refused: Callable[..., str], tmp_path: Path
) -> None:
    model, io = linear(tmp_path / "m.onnx"), tmp_path / "io.npz"
    np.savez(io, **{"in:x": X, "in:w": W * 2})
    plain, program, out = tmp_path / "a.mtia", tmp_path / "b.mtia", tmp_path / "out.npz"
    assert cli("compile", model, "--chip", "tiny", "--dtype", "fp32", "-o", plain).exit_code == 0
    assert "unknown input 'w'" in refused("run", plain, "--inputs", io)
    assert (
        cli("compile", model, "--chip", "tiny", "--dtype", "fp32", "--inputs", io, "-o", program).exit_code
        == 0
    )
    assert cli("run", program, "--inputs", io, "--outputs", out).exit_code == 0
    np.testing.assert_allclose(np.load(out)["out:y"], X @ (W * 2) + B, rtol=1e-6)


def test_two_constants_of_one_name_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = save(tmp_path / "m.onnx", nodes, [vi("x", [2, 3])], {"w": W})
    model.graph.initializer.append(numpy_helper.from_array(W * 2, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UserError, match="constant %w is given twice, as two initializers"):
        load(tmp_path / "m.onnx")


def empty_cache(path: Path) -> Path:
    nodes = [helper.make_node("Concat", ["past", "new"], ["y"], axis=1)]
    save(path, nodes, [vi("past", [2, 0, 3]), vi("new", [2, 1, 3])], {})
    return path


def test_a_dimension_of_0_is_a_size(tmp_path: Path) -> None:
    path = empty_cache(tmp_path / "m.onnx")
    graph = load(path)
    assert graph.type_of("past").shape == (2, 0, 3) and graph.type_of("y").shape == (2, 1, 3)
    assert load(path, {"past:1": 4}).type_of("y").shape == (2, 5, 3)
    program = api.compile_model(path, "tiny")
    assert [n for n in program.notes if "input past : fp32[2,0,3] is empty" in n and "--dim past:1=SIZE" in n]
    new = np.ones((2, 1, 3), np.float32)
    outputs = api.run(program, inputs={"past": np.zeros((2, 0, 3), np.float32), "new": new}, gpu=None).outputs
    np.testing.assert_array_equal(outputs["y"], new)


def test_a_dimension_of_minus_1_is_open(tmp_path: Path) -> None:
    save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [vi("x", [-1, 3])], {})
    with pytest.raises(UserError, match=r"'x:0' \(in x\); give each one, for example: --dim 'x:0=1'"):
        load(tmp_path / "m.onnx")


def sparse(
    name: str, values: np.ndarray, indices: list[Any], shape: list[int], at: Any = np.int64
) -> onnx.SparseTensorProto:
    places = numpy_helper.from_array(np.asarray(indices, at), "places")
    return helper.make_sparse_tensor(numpy_helper.from_array(values, name), places, shape)


VALUES = np.array([1.5, -2, 4], np.float32)


def with_sparse(path: Path, tensor: Any, *, as_node: bool = False) -> Path:
    """Write x @ w, with w a sparse tensor, stored or made by a Constant."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if as_node:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=tensor))
    model = save(path, nodes, [vi("x", [2, 3])], {})
    if not as_node:
        model.graph.sparse_initializer.append(tensor)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("as_node", [False, True])
@pytest.mark.parametrize("indices", [[0, 5, 11], [[0, 0], [1, 1], [2, 3]]], ids=["flat", "tuples"])
def test_a_sparse_constant_is_its_dense_one(indices: list[Any], as_node: bool, tmp_path: Path) -> None:
    dense = np.zeros((3, 4), np.float32)
    dense[[0, 1, 2], [0, 1, 3]] = VALUES
    path = with_sparse(tmp_path / "m.onnx", sparse("w", VALUES, indices, [3, 4]), as_node=as_node)
    np.testing.assert_array_equal(evaluate(load(path), {"x": X})["y"], X @ dense)
    outputs = api.run(path, "tiny", inputs={"x": X}, dtype="fp32", gpu=None).outputs
    np.testing.assert_allclose(outputs["y"], X @ dense, rtol=1e-6)


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (sparse("w", VALUES, [0, 5, 12], [3, 4]), r"%w has an index outside \[3, 4\]"),
        (sparse("w", VALUES, [0, -1, 2], [3, 4]), "has an index outside"),
        (sparse("w", VALUES, [0, 5, 5], [3, 4]), "has two values at one place"),
        (sparse("w", VALUES, [0, 5], [3, 4]), r"has values fp32\[3\] at 2 places"),
        (sparse("w", VALUES, [[0], [5], [7]], [3, 4]), r"indices int64\[3, 1\] \(right: int64\[n\] or int64"),
        (sparse("w", VALUES, [0, 5, 7], [3, 4], np.int32), r"indices int32\[3\]"),
        (sparse("w", VALUES, [0, 5, 7], [1 << 13, 1 << 13]), "more than 16777216 elements written out"),
        (sparse("w", VALUES, [0, 5, 7], [3, -4]), "negative dimension"),
    ],
)
def test_a_sparse_constant_that_is_wrong_is_refused(tensor: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        load(with_sparse(tmp_path / "m.onnx", tensor))


def test_sparse_constants_are_bounded_together(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["v0", "v1"], ["y"])]
    model = save(tmp_path / "m.onnx", nodes, [vi("x", [2, 3])], {})
    for i in range(2):
        model.graph.sparse_initializer.append(sparse(f"v{i}", VALUES, [0, 1, 2], [3 << 22]))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UserError, match="sparse tensors, with %v1 : fp32"):
        load(tmp_path / "m.onnx")


def sharded(path: Path) -> Path:
    """Write a model that is annotated for two devices."""
    node = helper.make_node("Relu", ["x"], ["y"])
    node.device_configurations.add().configuration_id = "two"
    model = save(path, [node], [vi("x", [2, 3])], {}, ir=11)
    model.configuration.add(name="two", num_devices=2, device=["a", "b"])
    onnx.save(model, path)
    return path


def test_annotations_for_many_devices_are_named_as_ignored(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    path, program = sharded(tmp_path / "m.onnx"), tmp_path / "p.mtia"
    said = "spread it over devices (1 configurations, 1 nodes annotated); that is for"
    assert said in cli("compile", path, "--chip", "tiny", "-o", program).stderr
    assert said in cli("show", path, "--chip", "tiny").stderr
    for model in (path, program):
        report = cli("run", model, "--chip", "tiny", "--gpu", "none", "--json", "-").stdout
        assert said in report


def recurrence(path: Path, steps: int, op: str = "Scan") -> Path:
    """Write a model that adds and normalises in steps, or a GRU that resets its state before a product."""
    x = vi("x", [steps, 1, 4] if op == "GRU" else [steps, 4])
    if op == "GRU":
        weights = {"w": np.ones((1, 9, 4), np.float32), "r": np.ones((1, 9, 3), np.float32)}
        save(path, [helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=3)], [x], weights)
        return path
    body = [helper.make_node("Add", ["h", "e"], ["s"]), helper.make_node("Softmax", ["s"], ["h2"], axis=0)]
    body.append(helper.make_node("Exp", ["h2"], ["out"]))
    inner = helper.make_graph(body, "body", [vi("h", [4]), vi("e", [4])], [vi("h2", [4]), vi("out", [4])])
    scan = helper.make_node("Scan", ["h0", "x"], ["last", "y"], body=inner, num_scan_inputs=1)
    save(path, [scan], [x], {"h0": np.zeros(4, np.float32)})
    return path


def test_a_long_loop_that_is_written_out_is_said(tmp_path: Path) -> None:
    (note,) = load(recurrence(tmp_path / "m.onnx", 40)).notes
    assert note.startswith(
        "Scan last is written out: 40 steps, 120 nodes, launched one by one here and on a GPU"
    )
    assert "launches decide their ratio" in note
    outcome = api.run(recurrence(tmp_path / "m.onnx", 20, "GRU"), "tiny")
    assert [n for n in outcome.report.notes if n.startswith("GRU y is written out: 20 steps")]


def test_a_short_loop_and_one_that_folds_are_not_worth_a_word(tmp_path: Path) -> None:
    assert load(recurrence(tmp_path / "m.onnx", 8)).notes == ()
    body = [helper.make_node("Add", ["a", "one"], ["b"]), helper.make_node("Identity", ["c"], ["d"])]
    ins = [vi("i", [], I64), vi("c", [], TensorProto.BOOL), vi("a", [])]
    inner = helper.make_graph(body, "body", ins, [vi("d", [], TensorProto.BOOL), vi("b", [])])
    loop = helper.make_node("Loop", ["n", "", "one"], ["z"], body=inner)
    nodes = [loop, helper.make_node("Mul", ["x", "z"], ["y"])]
    save(tmp_path / "m.onnx", nodes, [vi("x", [2])], {"n": np.array(50), "one": np.float32(1)})
    graph = load(tmp_path / "m.onnx")
    assert graph.notes == () and len(graph.nodes) == 1
