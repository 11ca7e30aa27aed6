"""Branches, loops, scans, sequences and shares of rows: what they become computes what onnxruntime does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler.check import check
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.reference import evaluate
from onnx import TensorProto, helper, numpy_helper, parser, save

from mtia_emu import api
from mtia_emu.errors import UserError
from mtia_emu.oracle import expected_outputs

pytest.importorskip("onnxruntime")
HEAD = '<ir_version: 9, opset_import: ["" : 20]>\n'


def loaded(path: Path, text: str, consts: dict[str, np.ndarray] | None = None) -> Graph:
    """Return the graph of a model written in ONNX's text, with further constants."""
    model = parser.parse_model(HEAD + text)
    for name, array in (consts or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    save(model, path)
    return check(load(path))


def same(path: Path, graph: Graph, inputs: dict[str, np.ndarray]) -> None:
    """Compare our values with onnxruntime's."""
    got, right = evaluate(graph, inputs), expected_outputs(path, inputs).outputs
    for name, value in right.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5)


BRANCH = """
g (float[3] x) => (float[3] y) {
   total = ReduceSum <keepdims = 0> (x)
   zero = Constant <value = float {0.0}> ()
   up = Greater (total, zero)
   y = If (up) <
     then_branch = a () => (float[3] p) { p = Exp (x) },
     else_branch = b () => (float[3] q) { q = Neg (x) }
   >
}"""


@pytest.mark.parametrize("sign", [1, -1])
def test_a_branch_on_the_data_is_executed_on_both_sides_and_selected(tmp_path: Path, sign: int) -> None:
    graph = loaded(tmp_path / "m.onnx", BRANCH)
    assert {"exp", "neg", "where"} <= {n.op for n in graph.nodes}
    same(tmp_path / "m.onnx", graph, {"x": sign * np.array([1, 2, 3], np.float32)})


def test_branches_of_different_types_are_refused(tmp_path: Path) -> None:
    text = BRANCH.replace("(float[3] y)", "(float[n] y)").replace(
        "q = Neg (x)", "q = Concat <axis = 0> (x, x)"
    )
    with pytest.raises(UserError, match="its condition depends on the data, and its branches give different"):
        loaded(tmp_path / "m.onnx", text)


@settings(max_examples=12)
@given(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), st.integers(1, 4))
def test_a_scan_is_written_out(
    tmp_path_factory: pytest.TempPathFactory, axis: int, back: int, out: int, length: int
) -> None:
    shape = "3, N" if axis else "N, 3"
    text = f"""
    g (float[3] start, float[{shape.replace("N", str(length))}] x) => (float[3] last, float[a, b] all) {{
       last, all = Scan <num_scan_inputs = 1, scan_input_axes = [{axis}], scan_input_directions = [{back}],
         scan_output_axes = [{out}], scan_output_directions = [{back}],
         body = body (float[3] state, float[3] row) => (float[3] next, float[3] seen) {{
           next = Add (state, row)
           seen = Mul (next, row)
         }}> (start, x)
    }}"""
    path = tmp_path_factory.mktemp("scan") / "m.onnx"
    rng = np.random.default_rng(length)
    x = rng.standard_normal((3, length) if axis else (length, 3)).astype(np.float32)
    same(path, loaded(path, text), {"start": np.ones(3, np.float32), "x": x})


def test_sequences_of_known_length_are_as_many_tensors(tmp_path: Path) -> None:
    text = """
    g (float[6] x, float[2] y) => (float[2] z) {
       n = Constant <value = int64[3] {1, 2, 3}> ()
       parts = SplitToSequence <axis = 0> (x, n)
       one = Constant <value = int64 {1}> ()
       less = SequenceErase (parts, one)
       more = SequenceInsert (less, y, one)
       z = SequenceAt (more, one)
    }"""
    graph = loaded(tmp_path / "m.onnx", text)
    assert len(graph.nodes) == 1
    same(tmp_path / "m.onnx", graph, {"x": np.arange(6, dtype=np.float32), "y": np.ones(2, np.float32)})


def test_a_sequence_as_output_is_an_output_for_each_item(tmp_path: Path) -> None:
    graph = loaded(
        tmp_path / "m.onnx", "g (float[4] x) => (seq(float) y) { y = SplitToSequence <axis = 0> (x) }"
    )
    assert list(graph.outputs) == ["y.0", "y.1", "y.2", "y.3"]


def test_a_loop_whose_length_depends_on_the_data_is_refused(tmp_path: Path) -> None:
    text = """
    g (int64 n, float[2] x) => (float[2] y) {
       y = Loop (n, , x) <body = b (int64 i, bool c, float[2] v) => (bool d, float[2] w) {
         d = Identity (c)
         w = Add (v, v)
       }>
    }"""
    with pytest.raises(UserError, match="its length depends on the data"):
        loaded(tmp_path / "m.onnx", text)


EXPERTS = """
g (float[6, 4] x, int64[6] expert) => (float[6, 5] y) {
   k = Constant <value = int64[1] {6}> ()
   sorted, order = TopK <largest = 0, axis = 0> (expert, k)
   rows = Gather <axis = 0> (x, order)
   zeros = Constant <value = int64[3] {0, 0, 0}> ()
   ones = Constant <value = int64[6] {1, 1, 1, 1, 1, 1}> ()
   counts = ScatterElements <reduction = "add"> (zeros, sorted, ones)
   axis = Constant <value = int64 {0}> ()
   ends = CumSum (counts, axis)
   e0, e1, e2 = Split <num_outputs = 3> (ends)
   s0 = Squeeze (e0)
   s1 = Squeeze (e1)
   s2 = Squeeze (e2)
   zero = Constant <value = int64 {0}> ()
   one = Constant <value = int64 {1}> ()
   r0 = Range (zero, s0, one)
   r1 = Range (s0, s1, one)
   r2 = Range (s1, s2, one)
   x0 = Gather (rows, r0)
   x1 = Gather (rows, r1)
   x2 = Gather (rows, r2)
   y0 = MatMul (x0, w0)
   y1 = MatMul (x1, w1)
   y2 = MatMul (x2, w2)
   a1 = Relu (y1)
   y = Concat <axis = 0> (y0, a1, y2)
}"""


def _experts(path: Path) -> tuple[Graph, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.standard_normal((4, 5)).astype(np.float32) for i in range(3)}
    return loaded(path, EXPERTS, weights), {"x": rng.standard_normal((6, 4)).astype(np.float32)}


@pytest.mark.parametrize("expert", [[0, 1, 2, 0, 1, 2], [2, 2, 2, 2, 2, 2], [1, 0, 0, 1, 0, 0]])
def test_experts_multiply_all_rows_and_take_their_own(tmp_path: Path, expert: list[int]) -> None:
    graph, inputs = _experts(tmp_path / "m.onnx")
    assert [n.type.shape for n in graph.nodes if n.op == "matmul"] == [(6, 5)] * 3  # the worst case, charged
    same(tmp_path / "m.onnx", graph, {**inputs, "expert": np.array(expert, np.int64)})


def test_experts_are_executed(tmp_path: Path) -> None:
    _, inputs = _experts(tmp_path / "m.onnx")
    inputs["expert"] = np.array([2, 0, 1, 1, 0, 2], np.int64)
    done = api.run(tmp_path / "m.onnx", "tiny", dtype="fp32", inputs=inputs, check=True, gpu=None)
    assert done.check is not None and done.check.passed


def test_rows_of_unknown_number_leave_no_output(tmp_path: Path) -> None:
    text = EXPERTS.replace("(float[6, 5] y)", "(float[n, 4] x0)")
    with pytest.raises(UserError, match="output x0 is as long as the data say"):
        loaded(tmp_path / "m.onnx", text, {f"w{i}": np.ones((4, 5), np.float32) for i in range(3)})


def test_what_does_not_work_row_by_row_is_refused(tmp_path: Path) -> None:
    text = EXPERTS.replace("a1 = Relu (y1)", "a1 = Softmax <axis = 0> (y1)")
    with pytest.raises(UserError, match="it works on as many rows as the data say: from %"):
        loaded(tmp_path / "m.onnx", text, {f"w{i}": np.ones((4, 5), np.float32) for i in range(3)})


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8])
@pytest.mark.parametrize("raw", [True, False])
def test_packed_constants_are_read(tmp_path: Path, kind: int, raw: bool) -> None:
    numbers = [-8, 7, -1, 0, 3] if kind != TensorProto.UINT4 else [0, 15, 7, 8, 3]
    packed: dict[str, Any] = {"vals": numbers}
    if raw and kind != TensorProto.INT8:
        nibbles = [n & 15 for n in numbers] + [0]
        packed = {
            "vals": bytes(a | b << 4 for a, b in zip(nibbles[::2], nibbles[1::2], strict=True)),
            "raw": True,
        }
    tensor = helper.make_tensor("q", kind, [5], **packed)
    scale = helper.make_tensor("s", TensorProto.FLOAT, [], [0.5])
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        helper.make_node("Add", ["x", "d"], ["y"]),
    ]
    kinds = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [5]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", kinds[:1], kinds[1:], [tensor, scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    save(model, tmp_path / "m.onnx")
    same(tmp_path / "m.onnx", check(load(tmp_path / "m.onnx")), {"x": np.ones(5, np.float32)})


def test_a_packed_constant_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    tensor = TensorProto(name="q", data_type=TensorProto.INT4, dims=[5], raw_data=b"12")
    out = helper.make_tensor_value_info("y", TensorProto.INT4, [5])
    graph = helper.make_graph([helper.make_node("Identity", ["q"], ["y"])], "g", [], [out], [tensor])
    save(helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(UserError, match=r"int4\[5\] takes 3 bytes, its data has 2"):
        load(tmp_path / "m.onnx")


def test_values_bind_inputs_to_constants(tmp_path: Path) -> None:
    text = "g (float[6] x, int64[2] shape) => (float[a, b] y) { y = Reshape (x, shape) }"
    with pytest.raises(UserError, match="its shape, %shape, depends on the data"):
        loaded(tmp_path / "m.onnx", text)
    graph = load(tmp_path / "m.onnx", values={"shape": np.array([2, 3])})
    assert list(graph.inputs) == ["x"] and graph.type_of("y").shape == (2, 3)
