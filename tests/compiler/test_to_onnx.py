"""Ops that ONNX has in several nodes, written so: onnxruntime's results are those of the references."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.graph import Graph, Node, freeze_attrs
from mtia_emu.compiler.ops.base import op_named
from mtia_emu.compiler.reference import evaluate
from mtia_emu.compiler.text import parse
from mtia_emu.compiler.to_onnx import _TOPK, _WRITERS, SAME, Unwritten, _Model, out_name, to_onnx

from mtia_emu.oracle import onnxruntime_outputs
from mtia_emu.types import FP32, TensorType

HEADS = "in %q : fp32[2,4,3,8]\n in %k : fp32[2,2,5,8]\n in %v : fp32[2,2,5,6]"
OPS = {
    "rmsnorm": (
        "in %x : fp32[3,8]\n in %w : fp32[8]",
        "%y : fp32[3,8] = rmsnorm(%x, %w) {epsilon=0.1}",
    ),
    "layernorm": (
        "in %x : fp32[3,8]\n in %w : fp32[8]\n in %b : fp32[8]",
        "%y : fp32[3,8] = layernorm(%x, %w, %b) {epsilon=0.1}",
    ),
    "rotary": (
        "in %x : fp32[2,3,8]\n in %c : fp32[3,8]\n in %s : fp32[3,8]",
        "%y : fp32[2,3,8] = rotary(%x, %c, %s)",
    ),
    "conv": (
        "in %x : fp32[2,4,7,6]\n in %w : fp32[6,2,3,2]\n in %b : fp32[6,1,1]",
        "%y : fp32[2,6,4,3] = conv(%x, %w, %b) {strides=[2, 2], dilations=[1, 2], pads=[1, 0, 1, 1], "
        'group=2, tape="2 -> t1 | t0 = add(x0, x1) : fp32; t1 = relu(t0) : fp32", to="fp32"}',
    ),
    "attention": (
        f"{HEADS}\n in %m : fp32[3,5]",
        "%y : fp32[2,4,3,6] = attention(%q, %k, %v, %m) "
        '{tape="2 -> t1 | t0 = mul(x0, 0.25) : fp32; t1 = add(t0, x1) : fp32", mask=1}',
    ),
    "attention that hides": (
        f"{HEADS}\n in %m : bool[3,5]",
        "%y : fp32[2,4,3,6] = attention(%q, %k, %v, %m) "
        '{tape="2 -> t0 | t0 = where(x1, x0, -inf) : fp32", mask=1, guarded=true}',
    ),
    "first_equal": (
        "in %i : int64[7]",
        "%y : int64[7] = first_equal(%i) {rows=4}",
    ),
    "topk": (
        "in %x : fp32[3,8]",
        "%y : fp32[3,2], %z : int64[3,2] = topk(%x) {axis=1, k=2, largest=false}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_an_op_in_several_nodes(name: str) -> None:
    inputs, node = OPS[name]
    outs = "out %y\n out %z" if "%z" in node else "out %y"
    graph, rng = parse(f"graph g {{\n {inputs}\n {node}\n {outs}\n}}\n"), np.random.default_rng(3)
    given = {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in graph.inputs.items()}
    if name == "first_equal":
        given = {"i": np.array([3, -1, 0, 3, 2, -4, 2])}
    if name == "attention that hides":
        given["m"] = np.array([[True] * 5, [False] * 5, [True, False] * 2 + [True]])
    found, expected = onnxruntime_outputs(to_onnx(graph), given), evaluate(graph, given)
    for output, right in expected.items():
        assert np.isfinite(right).all()
        np.testing.assert_allclose(found[out_name(output)], right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "node", "why"),
    [
        (
            "in %x : fp32[4]",
            '%y : fp32[4] = map(%x) {tape="1 -> t0 | t0 = neg(x0) : fp32", to="fp32"}',
            "map",
        ),
        (
            "in %x : fp16[1,1,3]\n in %w : fp16[1,1,1]",
            "%y : fp16[1,1,3] = conv(%x, %w) {strides=[1], dilations=[1], pads=[0, 0], group=1, "
            'tape="1 -> x0 |", to="fp16"}',
            "conv in fp16",
        ),
        (
            HEADS,
            "%y : fp32[2,4,3,6] = attention(%q, %k, %v) "
            '{tape="1 -> t0 | t0 = gelu_tanh(x0) : fp32"}',
            "a tape with gelu_tanh in fp32",
        ),
        (
            "in %x : fp32[4]",
            '%y : fp8_e8m0[4] = cast(%x) {to="fp8_e8m0", round_mode="down"}',
            "cast with round_mode='down'",
        ),
    ],
)  # fmt: skip
def test_what_onnx_has_no_words_for_is_said(inputs: str, node: str, why: str) -> None:
    with pytest.raises(Unwritten, match=why):
        to_onnx(parse(f"graph g {{\n {inputs}\n {node}\n out %y\n}}\n"))


@pytest.mark.parametrize("name", sorted({*SAME, *_WRITERS, "topk"}))
def test_an_attribute_that_its_writer_does_not_read_is_said(name: str) -> None:
    """Be it one that the op has today, or one that it is given tomorrow."""
    op = op_named(name)
    read = set((_TOPK if name == "topk" else _WRITERS.get(name, (None, ""))[1]).split())
    assert set(op.attrs) <= read <= {*op.attrs, *op.optional}
    unread = {*op.optional, "seeded"} - read
    for attr in sorted(unread):
        kind = TensorType(FP32, (4,))
        made = Node("y", name, ("x",), ("y",), (kind,), freeze_attrs({attr: 1}))
        with pytest.raises(Unwritten, match=f"{name} with {attr}=1"):
            _Model(Graph("g", [made], {"x": kind}, ["y"], {})).write(made)


def test_a_cast_that_does_not_saturate_is_written_so() -> None:
    graph = parse(
        'graph g {\n in %x : fp32[3]\n %y : fp8_e5m2[3] = cast(%x) {to="fp8_e5m2", saturate=false}\n'
        ' %z : fp32[3] = cast(%y) {to="fp32"}\n out %z\n}\n'
    )
    given = {"x": np.array([1e6, -1e6, 1.5], np.float32)}
    found, right = onnxruntime_outputs(to_onnx(graph), given), evaluate(graph, given)["z"]
    assert np.isinf(right[:2]).all()
    np.testing.assert_array_equal(found[out_name("z")], right)
