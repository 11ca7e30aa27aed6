"""Loops rolled up: what they become computes what onnxruntime does, in as few nodes as one step has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mtia_emu.compiler.build import NodeBuilder
from mtia_emu.compiler.check import check
from mtia_emu.compiler.frontend import load, roll
from mtia_emu.compiler.frontend.roll import LEAST, rolled
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.reference import evaluate
from onnx import numpy_helper, parser, save

from mtia_emu import api
from mtia_emu.oracle import expected_outputs
from mtia_emu.types import FP32, TensorType

pytest.importorskip("onnxruntime")
HEAD = '<ir_version: 9, opset_import: ["" : 20]>\n'
STEPS = 20

SELECTIVE = """g (float[20,6] dt, float[20,6] u, float[20,4] b, float[20,4] c)
  => (float[6,4] last, float[20,6] y) {
  last, y = Scan <num_scan_inputs = 4, body = s (float[6,4] h, float[6] d, float[6] v, float[4] p, float[4] q)
    => (float[6,4] n, float[6] o) {
      one = Constant <value = int64[1] {1}> ()
      zero = Constant <value = int64[1] {0}> ()
      du = Unsqueeze (d, one)
      da = Mul (du, a)
      ea = Exp (da)
      dv = Mul (d, v)
      dvu = Unsqueeze (dv, one)
      pu = Unsqueeze (p, zero)
      add = Mul (dvu, pu)
      kept = Mul (ea, h)
      n = Add (kept, add)
      qu = Unsqueeze (q, one)
      wide = MatMul (n, qu)
      o = Squeeze (wide, one)
  }> (h0, dt, u, b, c)
}"""
"""A selective scan: the state decays, takes what is new, and is read out."""

TURNED = """g (float[3,20] x) => (float[3] last, float[3,20] before, float[20,3] top) {{
  last, before, top = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [{back}],
    scan_output_axes = [1, 0], scan_output_directions = [{back}, 0],
    body = s (float[3] h, float[3] e) => (float[3] n, float[3] old, float[3] most) {{
      t = Tanh (e)
      n = Max (h, t)
      old = Identity (h)
      f = Softmax <axis = 0> (n)
      most = Mul (f, e)
  }}> (h0, x)
}}"""

COUNTED = """g (float[20,3] x) => (float[3] last, float[20,3] all) {
  last, all = Loop (n, , h0) <body = s (int64 i, bool c, float[3] h) => (bool d, float[3] w, float[3] o) {
      d = Identity (c)
      e = Gather <axis = 0> (x, i)
      f = Cast <to = 1> (i)
      g = Sub (e, f)
      m = Mul (h, half)
      w = Add (m, g)
      o = ReduceSum <keepdims = 1> (w)
      p = Add (o, w)
  }>
}""".replace("float[3] o)", "float[3] p)")


def loaded(path: Path, text: str, **consts: object) -> Graph:
    """Return the graph of a model written in ONNX's text, with further constants."""
    model = parser.parse_model(HEAD + text)
    for name, array in consts.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    save(model, path)
    return check(load(path))


def same(path: Path, graph: Graph) -> None:
    """Compare values of the graph, and of its program, with onnxruntime's."""
    rng = np.random.default_rng(1)
    inputs = {k: (rng.standard_normal(t.shape) / 2).astype(np.float32) for k, t in graph.inputs.items()}
    got, right = evaluate(graph, inputs), expected_outputs(path, inputs).outputs
    outcome = api.run(path, "tiny", inputs=inputs, dtype="fp32", gpu=None)
    for name, value in right.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(outcome.outputs[name], value, rtol=1e-4, atol=1e-4)


def test_a_selective_scan_is_one_scan_and_what_stands_around_it_is_done_at_once(tmp_path: Path) -> None:
    decay = -np.abs(np.random.default_rng(2).standard_normal((6, 4))).astype(np.float32)
    graph = loaded(tmp_path / "m.onnx", SELECTIVE, a=decay, h0=np.zeros((6, 4), np.float32))
    names = [node.op for node in graph.nodes]
    assert names.count("scan") == names.count("matmul") == names.count("exp") == 1 and len(names) < 16
    (scan,) = (node for node in graph.nodes if node.op == "scan")
    assert scan.type.shape == (STEPS, 6, 4) and scan.attrs["scanned"] == 2
    assert graph.notes == ()
    same(tmp_path / "m.onnx", graph)


@pytest.mark.parametrize("back", [0, 1])
def test_steps_may_go_backwards_along_any_axis_and_show_the_state_before(back: int, tmp_path: Path) -> None:
    graph = loaded(tmp_path / "m.onnx", TURNED.format(back=back), h0=np.zeros(3, np.float32))
    assert [n.op for n in graph.nodes].count("tanh") == 1
    same(tmp_path / "m.onnx", graph)


def test_a_loop_reads_its_counter_and_its_first_step_may_be_folded(tmp_path: Path) -> None:
    graph = loaded(
        tmp_path / "m.onnx", COUNTED, n=np.int64(STEPS), h0=np.ones(3, np.float32), half=np.float32(0.5)
    )
    assert [n.op for n in graph.nodes].count("scan") == 1
    same(tmp_path / "m.onnx", graph)


def test_what_is_not_elementwise_stays_written_out(tmp_path: Path) -> None:
    text = COUNTED.replace("m = Mul (h, half)", "v = Softmax <axis = 0> (h)\n      m = Mul (v, half)")
    graph = loaded(
        tmp_path / "m.onnx", text, n=np.int64(STEPS), h0=np.ones(3, np.float32), half=np.float32(0.5)
    )
    assert [n.op for n in graph.nodes].count("softmax") == STEPS - 1 and "is written out" in graph.notes[0]
    same(tmp_path / "m.onnx", graph)


def test_a_short_loop_stays_written_out() -> None:
    builder = NodeBuilder()
    builder.declare("x", TensorType(FP32, (3,)))
    columns = [builder.add("exp", "x")] * (LEAST - 1)
    assert rolled(builder, [], [tuple(columns)]) is None
    last, (stack,) = rolled(builder, [], [(*columns, columns[0])]) or ([], [""])
    assert last == [] and builder.type_of(stack).shape == (LEAST, 3)


def test_values_that_would_be_too_large_at_once_stay_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = NodeBuilder()
    builder.declare("x", TensorType(FP32, (LEAST, 3)))
    slices = [builder.add("slice", "x", starts=[t, 0], ends=[t + 1, 3], steps=[1, 1]) for t in range(LEAST)]
    column = tuple(builder.add("exp", value) for value in slices)
    monkeypatch.setattr(roll, "MOST_ELEMENTS", LEAST * 3 - 1)
    assert rolled(builder, [], [column]) is None
    monkeypatch.setattr(roll, "MOST_ELEMENTS", LEAST * 3)
    assert rolled(builder, [], [column]) is not None
