"""The ops that passes make: fused chains, products with tails, rows in int8."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler import ops
from mtia_emu.compiler.graph import freeze_attrs

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, INT8, TensorType

SILU = {"tape": "2 -> t2 | t0 = sigmoid(x0); t1 = mul(t0, x0); t2 = add(t1, x1)", "to": "fp16"}
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
        ("quantise_rows", [TensorType(INT8, (2,))], {}, "rows of floats can be quantised, not int8"),
        ("quantise_rows", [f32()], {}, "rows of floats can be quantised, not fp32"),
    ],
)
def test_what_does_not_fit_is_refused(
    op: str, types: list[TensorType], attrs: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ops.infer(op, types, freeze_attrs(attrs))
