"""Products of integers, against sums in Python's own integers, and who is asked for them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mtia_emu import oracle
from mtia_emu.errors import UserError
from mtia_emu.oracle import child
from mtia_emu.oracle.exact import EXACT
from mtia_emu.oracle.pieces import multiplies_integers

Array = np.ndarray[Any, Any]
MS = "com.microsoft"
U8 = np.array([[255, 255, 255, 0, 7], [1, 255, 128, 255, 255]], np.uint8)
S8 = np.array([[127, -128], [127, -128], [127, -127], [5, 6], [127, -128]], np.int8)  # pairs exceed 16 bits
ZERO, W_ZERO = 3, np.array([2, -1], np.int8)


def total(a: Array, b: Array, a_zero: int = 0, b_zero: Any = (0, 0)) -> list[list[int]]:
    """Return the product in Python's integers."""
    return [
        [
            sum((int(x) - a_zero) * (int(y) - int(b_zero[j])) for x, y in zip(row, b[:, j], strict=True))
            for j in range(b.shape[1])
        ]
        for row in a
    ]


def node_model(
    op: str, arrays: Mapping[str, Array | None], domain: str = "", **attrs: Any
) -> onnx.ModelProto:
    """Return a model of one node on inputs of these names."""
    given = {k: np.asarray(v) for k, v in arrays.items() if v is not None}
    names = [k if v is not None else "" for k, v in arrays.items()]
    node = helper.make_node(op, names, ["y"], domain=domain, **attrs)
    return _model([node], given, "y")


def _model(nodes: list[Any], given: Mapping[str, Array], *outputs: str) -> onnx.ModelProto:
    infos = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in given.items()
    ]
    ends = [helper.make_empty_tensor_value_info(name) for name in outputs]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MS, 1)]
    return helper.make_model(helper.make_graph(nodes, "g", infos, ends), opset_imports=opsets, ir_version=9)


def asked(op: str, arrays: Mapping[str, Any], domain: str = "", **attrs: Any) -> list[Any]:
    """Return what the oracle says of one node."""
    feeds = {k: np.asarray(v) for k, v in arrays.items() if v is not None}
    found = oracle.expected_outputs(node_model(op, arrays, domain, **attrs), feeds)
    assert found.oracle == "onnxruntime, products of integers exactly"
    return found.outputs["y"].tolist()


def rounded(x: Fraction, zero: int, low: int, high: int) -> int:
    return min(max(round(x) + zero, low), high)


def test_a_pair_of_products_is_beyond_16_bits_here() -> None:
    pairs = [int(U8[0, k]) * int(S8[k, 0]) + int(U8[0, k + 1]) * int(S8[k + 1, 0]) for k in (0, 1)]
    assert min(pairs) > 2**15


def test_matmul_integer() -> None:
    assert asked("MatMulInteger", {"a": U8, "b": S8}) == total(U8, S8)
    given = {"a": U8, "b": S8, "az": np.uint8(ZERO), "bz": W_ZERO}
    assert asked("MatMulInteger", given) == total(U8, S8, ZERO, W_ZERO)
    rows = {"a": U8, "b": S8, "az": np.array([ZERO, 250], np.uint8)}
    assert asked("MatMulInteger", rows) == [total(U8, S8, ZERO)[0], total(U8, S8, 250)[1]]


def test_sums_beyond_32_bits_wrap() -> None:
    a, b = np.full((1, 140_000), 255, np.uint8), np.full((140_000, 1), -128, np.int8)
    assert asked("MatMulInteger", {"a": a, "b": b}) == [[255 * -128 * 140_000 + 2**32]]


def test_conv_integer() -> None:
    x = np.arange(2 * 2 * 4 * 5).reshape(2, 2, 4, 5).astype(np.uint8) * 3
    w = np.arange(-18, 18).reshape(2, 1, 3, 6)[..., ::2].astype(np.int8) * 7
    attrs = {"pads": [1, 0, 0, 2], "strides": [2, 1], "dilations": [1, 2], "group": 2}
    got = asked("ConvInteger", {"x": x, "w": w, "z": np.uint8(9), "wz": np.array([1, -4], np.int8)}, **attrs)
    zeros, padded = (1, -4), np.full((2, 2, 5, 7), 9, int)
    padded[:, :, 1:, :5] = x
    for n, m, i, j in itertools.product(range(2), range(2), range(2), range(3)):
        right = sum(
            (int(padded[n, m, 2 * i + p, j + 2 * q]) - 9) * (int(w[m, 0, p, q]) - zeros[m])
            for p in range(3)
            for q in range(3)
        )
        assert got[n][m][i][j] == right


@pytest.mark.parametrize(
    ("auto", "pads"), [("SAME_UPPER", [0, 0, 1, 1]), ("SAME_LOWER", [1, 1, 0, 0]), ("VALID", [0] * 4)]
)
def test_conv_integer_with_automatic_padding(auto: str, pads: list[int]) -> None:
    x, w = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4), np.ones((1, 1, 2, 2), np.int8)
    right = asked("ConvInteger", {"x": x, "w": w}, pads=pads)
    assert asked("ConvInteger", {"x": x, "w": w}, auto_pad=auto) == right


def scales(*values: float) -> list[Fraction]:
    return [Fraction(float(np.float32(v))) for v in values]


def test_qlinear_matmul() -> None:
    a_scale, scale = scales(0.02, 90.0)
    b_scale = scales(0.03, 0.5)
    given = {"a": U8, "as": np.float32(0.02), "az": np.uint8(ZERO), "b": S8,
             "bs": np.array([0.03, 0.5], np.float32), "bz": W_ZERO,
             "s": np.float32(90), "z": np.uint8(77)}  # fmt: skip
    right = [
        [rounded(v * a_scale * b_scale[j] / scale, 77, 0, 255) for j, v in enumerate(row)]
        for row in total(U8, S8, ZERO, W_ZERO)
    ]
    assert asked("QLinearMatMul", given) == right


def test_qlinear_conv_as_a_product() -> None:
    """A kernel of 1 is a product of channels, bias added."""
    x, w, bias = U8.T.reshape(1, 5, 2, 1), S8.T.reshape(2, 5, 1, 1), np.array([1000, -9], np.int32)
    x_scale, scale, *w_scale = scales(0.02, 40.0, 0.03, 0.5)
    given = {"x": x, "xs": np.float32(0.02), "xz": np.uint8(ZERO), "w": w}
    given |= {"ws": np.array([0.03, 0.5], np.float32), "wz": np.zeros(2, np.int8)}
    given |= {"s": np.float32(40), "z": np.int8(-3), "b": bias}
    sums = total(U8, S8, ZERO)
    right = [
        [rounded((sums[i][m] + int(bias[m])) * x_scale * w_scale[m] / scale, -3, -128, 127) for i in range(2)]
        for m in range(2)
    ]
    assert [[v[0] for v in m] for m in asked("QLinearConv", given)[0]] == right


def test_products_that_end_in_floats() -> None:
    bias = np.array([0.5, -2], np.float32)
    given = {"a": U8, "b": S8, "as": np.float32(0.5), "bs": np.array([0.25, 2], np.float32),
             "az": np.uint8(ZERO), "bz": W_ZERO, "bias": bias}  # fmt: skip
    right = total(U8, S8, ZERO, W_ZERO) * np.array([0.125, 1.0]) + bias
    assert asked("MatMulIntegerToFloat", given, MS) == right.tolist()
    x = (U8.astype(np.float32) - 3) / 4  # its own scale is 1/4, its zero point 3: the bytes again
    weight = {"x": x, "b": S8, "bs": np.float32(0.25), "bz": None, "bias": bias}
    right = np.array(total(U8, S8, 3)) / 16 + bias
    np.testing.assert_allclose(asked("DynamicQuantizeMatMul", weight, MS), right, rtol=1e-6)
    gemm = {"a": U8.T.copy(), "as": np.float32(0.5), "az": np.uint8(ZERO), "b": S8, "bs": np.float32(0.25),
            "bz": np.int8(1), "c": np.array([40, -7], np.int32)}  # fmt: skip
    right = (np.array(total(U8, S8, ZERO, (1, 1))) + np.array([40, -7])) * 0.125 * 1.5
    assert asked("QGemm", gemm, MS, transA=1, alpha=1.5) == right.tolist()


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_whose_heads_are_products_of_bytes(causal: int) -> None:
    """Equal scores average the values, so that no softmax of ours is needed to say what is right."""
    x, w = np.array([[[255, 255], [255, 1]]], np.uint8), np.array([[0, 0, 127], [0, 0, 127]], np.int8)
    given = {"x": x, "w": w, "b": np.zeros(3, np.float32), "xs": np.float32(1), "ws": np.float32(1)}
    first, second = 127 * 510, 127 * 256
    right = [[[first], [(first + second) / 2]]] if causal else [[[(first + second) / 2]] * 2]
    assert asked("QAttention", given, MS, num_heads=1, unidirectional=causal) == right
    if not causal:
        masked = given | {"m": np.array([[1, 0]], np.int32)}
        assert asked("QAttention", masked, MS, num_heads=1) == [[[first]] * 2]


@pytest.mark.parametrize("key", sorted(EXACT))
def test_onnxruntime_is_not_asked_for_products_of_integers(key: str) -> None:
    domain, _, op = key.rpartition("::")
    model = node_model(op, {"a": U8, "b": S8}, domain)
    with pytest.raises(UserError, match="multiplies integers: onnxruntime's results depend on the processor"):
        oracle.onnxruntime_outputs(model, {})
    loop = helper.make_node("If", ["c"], ["z"], then_branch=model.graph, else_branch=model.graph)
    with pytest.raises(UserError, match="multiplies integers"):
        oracle.onnxruntime_outputs(_model([loop], {"c": np.array(True)}, "z"), {})


def test_a_test_that_asks_onnxruntime_for_them_fails() -> None:
    model = node_model("MatMulInteger", {"a": U8, "b": S8}).SerializeToString()
    with pytest.raises(AssertionError, match="asked for exactly"):
        child.ask(model, {"a": U8, "b": S8})


def test_what_stands_between_products_is_onnxruntimes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of two quantised layers: the products are taken out, the rest is asked for in between."""
    seen: list[onnx.ModelProto] = []
    real = oracle.ask

    def spy(model: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
        seen.append(onnx.load_from_string(model))
        return real(model, inputs)

    monkeypatch.setattr(oracle, "ask", spy)
    x = (U8.astype(np.float32) - 3) / 4
    found = oracle.expected_outputs(two_layers(), {"x": x})
    products = [n.op_type for m in seen for n in m.graph.node if multiplies_integers(m)]
    assert len(seen) == 3 and not products
    assert [len(m.graph.node) for m in seen] == [1, 4, 2]
    first = np.maximum(np.array(total(U8, S8, 3)) / 4, 0)
    scale = np.float32(first.max() / 255)
    codes = np.rint(first / scale)
    np.testing.assert_allclose(found.outputs["z"], codes @ np.array([[3], [-2]]) * scale, rtol=1e-5)


def two_layers() -> onnx.ModelProto:
    nodes, before = [], "x"
    for i, end in enumerate(("r", "z")):
        nodes += [
            helper.make_node("DynamicQuantizeLinear", [before], [f"q{i}", f"s{i}", f"o{i}"]),
            helper.make_node("MatMulInteger", [f"q{i}", f"w{i}", f"o{i}"], [f"i{i}"]),
            helper.make_node("Cast", [f"i{i}"], [f"f{i}"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"f{i}", f"s{i}"], [f"m{i}" if i == 0 else end]),
        ]
        if i == 0:
            nodes.append(helper.make_node("Relu", ["m0"], ["r"]))
        before = "r"
    model = _model(nodes, {"x": np.zeros((2, 5), np.float32)}, "z")
    model.graph.initializer.append(onnx.numpy_helper.from_array(S8, "w0"))
    model.graph.node.append(
        helper.make_node(
            "Constant", [], ["w1"], value=onnx.numpy_helper.from_array(np.array([[3], [-2]], np.int8))
        )
    )  # behind its reader: onnxruntime takes nodes in any order
    return model


def test_products_within_a_branch_are_onnx_own(tmp_path: Path) -> None:
    inner = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    body = helper.make_graph([inner], "t", [], [helper.make_empty_tensor_value_info("y")])
    branch = helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body)
    model = _model([branch], {"c": np.array(True), "a": U8, "b": S8}, "z")
    onnx.save(model, tmp_path / "m.onnx")
    found = oracle.expected_outputs(tmp_path / "m.onnx", {"c": np.array(True), "a": U8, "b": S8})
    assert (found.oracle, found.outputs["z"].tolist()) == ("onnx.reference", total(U8, S8))


def test_products_of_floats_are_not_made_in_bytes() -> None:
    """`accuracy_level` 4 lets onnxruntime round operands to bytes."""
    x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(1, 32) ** 3
    codes, scale = np.full((1, 1, 16), 0x9A, np.uint8), np.ones(1, np.float32)
    given = {"x": x, "w": codes, "s": scale}
    model = node_model("MatMulNBits", given, MS, K=32, N=1, bits=4, block_size=32, accuracy_level=4)
    right = float(x[0].astype(float) @ np.tile([2.0, 1.0], 16))
    found = oracle.expected_outputs(model, given)
    assert found.oracle == "onnxruntime"
    assert found.outputs["y"].item() == pytest.approx(right, rel=1e-6)
