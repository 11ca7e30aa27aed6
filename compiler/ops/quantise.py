"""ONNX's quantisation ops as rounding, scaling and casts."""

from __future__ import annotations

import numpy as np

from mtia_emu.types import DType, dtype

from .onnx_types import DTYPE_OF_ONNX
from .spelling import Call, Unsupported, onnx

FOLDED = 1024  # elements; larger quantised constants stay in 8 bits, with their scaling as nodes


def _along(c: Call, value: str, rank: int) -> str:
    """Return a scale or zero point shaped to broadcast along `axis`."""
    kind = c.type(value)
    if kind.size == 1:
        return c.reshape(value, ())
    if c.attr("block_size", 0) or kind.rank != 1:
        raise Unsupported("it is quantised by blocks")
    axis = c.wrap(c.attr("axis", 1), rank)
    return c.reshape(value, [kind.size if i == axis else 1 for i in range(rank)])


def _limits(kind: DType) -> tuple[float, float]:
    if kind.is_float:
        raise Unsupported(f"it quantises to {kind}")
    info = np.iinfo(kind.numpy)
    return float(info.min), float(info.max)


def _saturate(c: Call, value: str, to: DType) -> str:
    low, high = _limits(to)
    held = c.add("min", c.add("max", value, c.scalar(low, value)), c.scalar(high, value))
    return c.cast(held, to.name)


@onnx("QuantizeLinear")
def _quantize(c: Call) -> str:
    rank = c.type(0).rank
    to = c.type(2).dtype if c.has(2) else DTYPE_OF_ONNX.get(c.attr("output_dtype", 2) or 2, dtype("uint8"))
    x = c.cast(c[0], "fp32")
    level = c.add("round", c.add("div", x, c.cast(_along(c, c[1], rank), "fp32")))
    if c.has(2):
        level = c.add("add", level, c.cast(_along(c, c[2], rank), "fp32"))
    return _saturate(c, level, to)


@onnx("DequantizeLinear")
def _dequantize(c: Call) -> str:
    rank = c.type(0).rank
    fold = c.type(0).size <= FOLDED
    scale = _along(c, c[1], rank)
    to = c.type(scale).dtype.name
    zero = c.builder.known(c[2]) if c.has(2) else None
    x = c[0]
    if c.has(2) and (zero is None or zero.any()):
        wide = c.builder.add("cast", x, hint=c.hint, fold=fold, to="int32")
        x = c.builder.add("sub", wide, c.cast(_along(c, c[2], rank), "int32"), hint=c.hint, fold=fold)
    x = c.builder.add("cast", x, hint=c.hint, fold=fold, to=to)
    return c.builder.add("mul", x, scale, hint=c.hint, fold=fold)


@onnx("QLinearMatMul")
def _qlinear_matmul(c: Call) -> str:
    """Return the product in int32, scaled to the result's own scale and zero point."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (c[i] for i in range(8))
    if any(c.type(v).size != 1 for v in (a_scale, a_zero, b_scale, b_zero, y_scale, y_zero)):
        raise Unsupported("a scale or zero point is not a scalar")
    zeros = tuple(c.reshape(v, ()) for v in (a_zero, b_zero))
    total = c.compose("MatMulInteger", a, b, *zeros)
    scales = [c.cast(c.reshape(v, ()), "fp32") for v in (a_scale, b_scale, y_scale)]
    scale = c.add("div", c.add("mul", scales[0], scales[1]), scales[2])
    level = c.add("round", c.add("mul", c.cast(total, "fp32"), scale))
    zero = c.cast(c.reshape(y_zero, ()), "fp32")
    return _saturate(c, c.add("add", level, zero), c.type(y_zero).dtype)


@onnx("DynamicQuantizeLinear")
def _dynamic(c: Call) -> tuple[str, str, str]:
    axes = tuple(range(c.type(0).rank))
    zero = c.scalar(0, c[0])
    high = c.add("max", c.add("reduce_max", c[0], axes=axes, keepdims=False), zero)
    low = c.add("min", c.add("reduce_min", c[0], axes=axes, keepdims=False), zero)
    scale = c.add("div", c.add("sub", high, low), c.scalar(255, c[0]))
    uint8 = dtype("uint8")
    point = _saturate(c, c.add("round", c.add("div", c.add("sub", zero, low), scale)), uint8)
    level = c.add("round", c.add("div", c[0], scale))
    return _saturate(c, c.add("add", level, c.cast(point, "fp32")), uint8), scale, point
