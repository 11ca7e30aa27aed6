"""The ops that passes make: fused chains, products with tails, rows in int8."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler import ops
from mtia_emu.compiler.graph import Graph, Node, freeze_attrs

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, INT8, ElementwiseWork, ImplicitGemmWork, TensorType

SILU = {"tape": "2 -> t2 | t0 = sigmoid(x0); t1 = mul(t0, x0); t2 = add(t1, x1)", "to": "fp16"}
CONV = {
    "strides": [2, 2], "dilations": [1, 1], "pads": [1, 1, 1, 1], "group": 1, "to": "fp32",
    "tape": "2 -> t1 | t0 = add(x0, x1); t1 = relu(t0)",
}  # fmt: skip
TAIL = {"shape": [6, 4], "tape": "3 -> t1 | t0 = mul(x0, x1); t1 = add(t0, x2)", "to": "fp32"}


def f32(*shape: int) -> TensorType:
    return TensorType(FP32, shape)


def test_a_map_broadcasts_and_converts() -> None:
    x, y = np.array([[1.0], [-2.0]], np.float32), np.arange(3, dtype=np.float32)
    attrs = freeze_attrs(SILU)
    assert str(ops.infer("map", [f32(2, 1), f32(3)], attrs)[0]) == "fp16[2,3]"
    (out,) = ops.reference("map", [x, y], attrs)
    assert out.dtype == np.float16 and out.shape == (2, 3)
    np.testing.assert_allclose(out, x / (1 + np.exp(-x)) + y, rtol=1e-3)


def test_a_map_of_numbers_alone_is_one_number() -> None:
    (out,) = ops.reference("map", [], freeze_attrs({"tape": "0 -> t0 | t0 = add(1.5, 2.0)", "to": "fp32"}))
    assert out.shape == () and out == 3.5


def test_a_product_goes_through_its_tape_in_another_shape() -> None:
    rng = np.random.default_rng(0)
    a, b, scale, row = (rng.standard_normal(s).astype(np.float32) for s in ((2, 3, 5), (5, 4), (6, 1), (4,)))
    attrs = freeze_attrs(TAIL)
    assert ops.infer("matmul_map", [f32(2, 3, 5), f32(5, 4), f32(6, 1), f32(4)], attrs) == (f32(6, 4),)
    (out,) = ops.reference("matmul_map", [a, b, scale, row], attrs)
    np.testing.assert_allclose(out, (a @ b).reshape(6, 4) * scale + row, rtol=1e-5)


def test_a_convolution_goes_through_its_tape() -> None:
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    ones, bias = np.ones((2, 1, 2, 2), np.float32), np.array([0.0, -100.0], np.float32).reshape(2, 1, 1)
    kinds = [f32(1, 1, 3, 3), f32(2, 1, 2, 2), f32(2, 1, 1)]
    attrs = freeze_attrs(CONV)
    assert ops.infer("conv", kinds, attrs) == (f32(1, 2, 2, 2),)
    (out,) = ops.reference("conv", [x, ones, bias], attrs)
    # corners of [[1 2 3] [4 5 6] [7 8 9]] with zeros around: 1, then 3 + its left neighbour, ...
    assert out[0, 0].tolist() == [[1.0, 5.0], [11.0, 28.0]]
    assert (out[0, 1] == 0).all()


def test_bytes_are_convolved_exactly_with_their_own_padding() -> None:
    attrs = freeze_attrs(CONV | {"tape": "1 -> x0 | ", "to": "int32", "fill": 3.0})
    x, w = np.full((1, 1, 1, 1), 200, np.uint8), np.full((1, 1, 2, 2), -128, np.int8)
    (out,) = ops.reference("conv", [x, w], attrs)
    assert out.dtype == np.int32 and out.tolist() == [[[[-128 * (200 + 9)]]]]


def test_a_depthwise_convolution_is_no_product_of_matrices() -> None:
    def work(groups: int) -> object:
        attrs = freeze_attrs(CONV | {"group": groups, "tape": "1 -> x0 | "})
        kinds = {"x": f32(2, 4, 8, 8), "w": f32(4, 4 // groups, 2, 2)}
        (kind,) = ops.infer("conv", list(kinds.values()), attrs)
        node = Node("y", "conv", ("x", "w"), ("y",), (kind,), attrs)
        return ops.work(Graph("g", [node], kinds, ["y"]), node)

    read = {1: 4 * (512 + 64), 2: 4 * (512 + 32), 4: 4 * (512 + 16)}
    sizes, written = {"m": 50, "left_bytes": 2048, "flops": 0}, 4 * 200
    for groups in (1, 2):
        assert work(groups) == ImplicitGemmWork(
            "y", "conv", FP32, batch=groups, k=16 // groups, n=4 // groups, read_bytes=read[groups],
            write_bytes=written, **sizes,
        )  # fmt: skip
    assert work(4) == ElementwiseWork(
        "y", "conv", FP32, elements=200, flops=4 * 200, read_bytes=read[4], write_bytes=written
    )


def test_rows_are_scaled_to_their_largest_magnitude() -> None:
    x = np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]], np.float32)
    values, scale = ops.reference("quantise_rows", [x], freeze_attrs({}))
    assert values.dtype == INT8.numpy and values.tolist() == [[64, -127, 32], [0, 0, 0]]
    np.testing.assert_allclose(values * scale, x, atol=2 / 127 / 2)


@pytest.mark.parametrize(
    ("op", "types", "attrs", "message"),
    [
        ("map", [f32(2)], SILU, "the tape takes 2 operands and gives 1 results; map has 1 operands"),
        ("map", [f32(2)], {"tape": "1 -> t0 | t0 = fold_sum(x0)", "to": "fp32"}, "without folds"),
        ("map", [f32(2), f32(3)], SILU, r"shapes \[2\] and \[3\] do not broadcast"),
        ("matmul_map", [f32(2, 3), f32(3, 4)], TAIL, "which cannot be seen as"),
        ("matmul_map", [f32(6, 3), f32(3, 4)], TAIL, "the tape takes 3 operands; there are 1"),
        ("matmul_map", [f32(6, 3), f32(3, 4), f32(7, 1), f32(4)], TAIL, "broadcast"),
        ("conv", [f32(1, 3, 4, 4), f32(2, 2, 2, 2), f32(2, 1, 1)], CONV, "in 1 groups"),
        ("conv", [f32(1, 3, 4, 4), f32(2, 3, 7, 7), f32(2, 1, 1)], CONV, "is larger than"),
        ("conv", [f32(1, 3, 4, 4), f32(2, 3, 2, 2)], CONV, "the tape takes 2 operands; there are 1"),
        ("conv", [f32(1, 3, 4, 4), f32(2, 3, 2, 2), f32(3, 1, 1)], CONV, "do not broadcast"),
        ("conv", [f32(1, 3, 4), f32(2, 3, 2), f32(2, 1)], CONV, "do not fit"),
        ("conv", [TensorType(INT8, (1, 3, 4, 4))] * 2 + [f32(1)], CONV, "it gives int32"),
        ("quantise_rows", [TensorType(INT8, (2,))], {}, "rows of floats can be quantised, not int8"),
        ("quantise_rows", [f32()], {}, "rows of floats can be quantised, not fp32"),
    ],
)
def test_what_does_not_fit_is_refused(
    op: str, types: list[TensorType], attrs: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ops.infer(op, types, freeze_attrs(attrs))
