"""Operators on quantised operands: products in bytes, all else in fp32 between two scalings."""

from __future__ import annotations

import numpy as np

from .matmul import swapped
from .quantise import saturate
from .spelling import ONNX, Call, Unsupported, onnx

MS = "com.microsoft::"


def real(c: Call, value: str, scale: str, zero: str) -> str:
    """Return (value - zero) * scale in fp32."""
    x = c.cast(value, "fp32")
    if zero:
        x = c.add("sub", x, c.cast(_one(c, zero), "fp32"))
    return c.add("mul", x, _one(c, scale))


def quantised(c: Call, x: str, scale: str, zero: str, like: str) -> str:
    """Return round(x / scale) + zero in the type of the zero point, or that of a value."""
    level = c.add("round", c.add("div", x, _one(c, scale)))
    if zero:
        level = c.add("add", level, c.cast(_one(c, zero), "fp32"))
    return saturate(c, level, c.type(zero or like).dtype)


def _one(c: Call, value: str) -> str:
    if c.type(value).size != 1:
        raise Unsupported("a scale or zero point is not a scalar")
    return c.reshape(value, ())


def _plain(c: Call, op: str, *inputs: str) -> str:
    """Return what a standard operator makes of values, with this node's attributes."""
    result = ONNX[op](Call(c.builder, op, c.opset, inputs, 1, c.attrs, c.hint))
    return result if isinstance(result, str) else result[0]


@onnx(f"{MS}QLinearAdd", f"{MS}QLinearMul")
def _binary(c: Call) -> str:
    a, b = real(c, c[0], c[1], c.optional(2)), real(c, c[3], c[4], c.optional(5))
    return quantised(c, c.add(c.op[len(MS) + 7 :].lower(), a, b), c[6], c.optional(7), c[0])


@onnx(f"{MS}QLinearSigmoid", f"{MS}QLinearLeakyRelu", f"{MS}QLinearAveragePool", f"{MS}QLinearSoftmax")
def _unary(c: Call) -> str:
    if c.attr("channels_last", 0):
        raise Unsupported("its channels come last")
    op = c.op[len(MS) + 7 :]
    x = real(c, c[0], c[1], c.optional(2))
    if op == "Softmax":
        c = Call(c.builder, c.op, c.attr("opset", 13), c.inputs, 1, c.attrs, c.hint)
    return quantised(c, _plain(c, op, x), c[3], c.optional(4), c[0])


@onnx(f"{MS}QLinearGlobalAveragePool", f"{MS}QLinearReduceMean")
def _mean(c: Call) -> str:
    if c.attr("channels_last", 0):
        raise Unsupported("its channels come last")
    x, rank = real(c, c[0], c[1], c.optional(2)), c.type(0).rank
    axes, keep = tuple(range(2, rank)), True
    if c.op.endswith("ReduceMean"):
        axes = tuple(sorted(c.wrap(a, rank) for a in c.attr("axes", ()))) or tuple(range(rank))
        keep = bool(c.attr("keepdims", 1))
    return quantised(c, c.add("reduce_mean", x, axes=axes, keepdims=keep), c[3], c.optional(4), c[0])


@onnx(f"{MS}QLinearConcat")
def _concat(c: Call) -> str:
    parts = [real(c, c[i], c[i + 1], c.optional(i + 2)) for i in range(2, len(c.inputs), 3)]
    joined = c.add("concat", *parts, axis=c.wrap(c.attr("axis", 0), c.type(2).rank))
    return quantised(c, joined, c[0], c.optional(1), c[2])


@onnx(f"{MS}QLinearWhere")
def _where(c: Call) -> str:
    a, b = real(c, c[1], c[2], c.optional(3)), real(c, c[4], c[5], c.optional(6))
    return quantised(c, c.add("where", c[0], a, b), c[7], c.optional(8), c[1])


def product(
    c: Call, a: str, b: str, a_scale: str, b_scale: str, a_zero: str, b_zero: str, bias: str = ""
) -> str:
    """Return the product of bytes, scaled to fp32; scales and zero points of b may be one a column."""
    total = c.compose("MatMulInteger", a, b, a_zero, b_zero)
    result = c.add("mul", c.cast(total, "fp32"), c.add("mul", a_scale, b_scale))
    return c.add("add", result, bias) if bias else result


@onnx(f"{MS}MatMulIntegerToFloat")
def _to_float(c: Call) -> str:
    return product(c, c[0], c[1], c[2], c[3], c.optional(4), c.optional(5), c.optional(6))


@onnx(f"{MS}DynamicQuantizeMatMul")
def _dynamic(c: Call) -> str:
    """Return the product of the operand, quantised at run time by its own range, and a weight in bytes."""
    results = ONNX["DynamicQuantizeLinear"](Call(c.builder, "DynamicQuantizeLinear", c.opset, (c[0],), 3))
    level, scale, zero = results
    return product(c, level, c[1], scale, c[2], zero, c.optional(3), c.optional(4))


@onnx(f"{MS}QGemm")
def _gemm(c: Call) -> str:
    a, a_scale, a_zero, b, b_scale, b_zero = (c[i] for i in range(6))
    a = swapped(c, a) if c.attr("transA", 0) else a
    b = swapped(c, b) if c.attr("transB", 0) else b
    total = c.compose("MatMulInteger", a, b, c.reshape(a_zero, ()), b_zero)
    if c.has(6):
        total = c.add("add", total, c[6])
    alpha = c.builder.constant(np.asarray(c.attr("alpha", 1.0), np.float32))
    x = c.add("mul", c.cast(total, "fp32"), c.add("mul", c.add("mul", _one(c, a_scale), b_scale), alpha))
    return quantised(c, x, c[7], c.optional(8), c[8] if c.has(8) else c[0]) if c.has(7) else x
