"""ONNX's quantisation ops as rounding, scaling and casts; constant matrices of few bits stay codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import FP8_E8M0, FP32, INT8, UINT8, DType, dtype

from ..graph import Const
from .dequantise import PackedShape, store, weights
from .elementwise import narrow
from .onnx_types import DTYPE_OF_ONNX
from .spelling import Call, Unsupported, counted, onnx

FOLDED = 1024  # elements; larger quantised constants stay in few bits, with their scaling as nodes
MIDDLE = {"int4": 0, "uint4": 8, "int8": 0, "uint8": 128}  # what codes are less, so that they are signed


def _along(c: Call, value: str, shape: tuple[int, ...]) -> str:
    """Return a scale or zero point shaped to broadcast along `axis` of a shape, or over blocks of it."""
    kind = c.type(value)
    block = c.attr("block_size", 0)
    if kind.size == 1 and not block:
        return c.reshape(value, ())
    axis = c.wrap(c.attr("axis", 1), len(shape))
    if block:
        if kind.shape != tuple(-(-s // block) if i == axis else s for i, s in enumerate(shape)):
            raise UserError(f"{c.op}: {kind} is not a value for each block of {block} of {list(shape)}")
        return c.add("gather", value, c.constant(counted(shape[axis]) // block), axis=axis)
    if kind.shape != (shape[axis],):
        raise UserError(f"{c.op}: {kind} is not a value for each of {shape[axis]} along axis {axis}")
    return c.reshape(value, [kind.size if i == axis else 1 for i in range(len(shape))])


def saturate(c: Call, value: str, to: DType) -> str:
    """Return whole numbers in an integer type, those beyond its limits at the nearest."""
    info = ml_dtypes.iinfo(to.numpy)
    held = c.add(
        "min", c.add("max", value, c.scalar(float(info.min), value)), c.scalar(float(info.max), value)
    )
    return c.cast(held, to.name)


@onnx("QuantizeLinear", "com.microsoft::QuantizeLinear")
def _quantize(c: Call) -> str:
    shape = c.type(0).shape
    given = DTYPE_OF_ONNX.get(c.attr("output_dtype", 0))
    to = c.type(2).dtype if c.has(2) else given or dtype("uint8")
    level = c.add("div", c.cast(c[0], "fp32"), c.cast(_along(c, c[1], shape), "fp32"))
    if to.is_float:
        return narrow(c, level, to)
    level = c.add("round", level)
    if c.has(2):
        level = c.add("add", level, c.cast(_along(c, c[2], shape), "fp32"))
    return saturate(c, level, to)


@onnx("DequantizeLinear", "com.microsoft::DequantizeLinear")
def _dequantize(c: Call) -> str:
    stored = _matrix(c)
    if stored:
        return stored
    shape = c.type(0).shape
    fold = c.type(0).size <= FOLDED
    scale = _along(c, c[1], shape)
    to = c.type(scale).dtype
    zero = c.builder.known(c[2]) if c.has(2) else None
    x = c[0]
    if c.has(2) and (zero is None or zero.astype(np.float32).any()):
        kind = "fp32" if c.type(0).dtype.is_float else "int32"
        wide = c.builder.add("cast", x, hint=c.hint, fold=fold, to=kind)
        x = c.builder.add("sub", wide, c.cast(_along(c, c[2], shape), kind), hint=c.hint, fold=fold)
    if to == FP8_E8M0:  # a scale of exponents alone
        to, scale = FP32, c.cast(scale, "fp32")
    x = c.builder.add("cast", x, hint=c.hint, fold=fold, to=to.name)
    result = c.builder.add("mul", x, scale, hint=c.hint, fold=fold)
    output_type = DTYPE_OF_ONNX.get(c.attr("output_dtype", 0), to)
    return result if output_type == to else c.cast(result, output_type.name)


def _matrix(c: Call) -> str:
    """Return a constant matrix as a `dequantise` of its codes, made when they are read; "" for anything else.

    Rows that share a scale run along k: a matrix whose scales say otherwise is stored turned.
    """
    codes, scales = (c.builder.const_of(c[i]) for i in (0, 1))
    zeros = c.builder.const_of(c[2]) if c.has(2) else None
    kind = c.type(0)
    if codes is None or scales is None or (c.has(2) and zeros is None):
        return ""
    to = scales.type.dtype
    whole = kind.rank == 2 and kind.size > FOLDED and kind.dtype.name in MIDDLE
    if not whole or to == FP8_E8M0 or DTYPE_OF_ONNX.get(c.attr("output_dtype", 0), to) != to:
        return ""
    axis, block = c.wrap(c.attr("axis", 1), 2), c.attr("block_size", 0)
    single = scales.type.size == 1 and not block
    turned = not single and axis == (1 if block else 0)
    if not single:
        _along(c, c[1], kind.shape)  # refuses scales that do not fit
    k, n = reversed(kind.shape) if turned else kind.shape
    form = PackedShape(k, n, block or k, UINT8 if kind.dtype.bits == 4 else INT8)
    parts = _Parts(turned, (-(-k // form.block), n), MIDDLE[kind.dtype.name], 8 if form.codes == INT8 else 4)
    loads = (
        lambda: parts.codes(codes.array(), form.block),
        lambda: parts.spread(scales.array()),
        parts.points(zeros),
    )
    present = all(x.present for x in (codes, scales, zeros) if x is not None)
    matrix = weights(c.builder, c[0], form, to, loads, present)
    return c.add("transpose", matrix, perm=(1, 0)) if turned else matrix


@dataclass(frozen=True)
class _Parts:
    """How a matrix is read: turned or not; blocks and columns; what its codes are less; their bits."""

    turned: bool
    shape: tuple[int, int]
    middle: int
    bits: int

    def codes(self, array: np.ndarray, block: int) -> np.ndarray:
        """Return codes [k, n] as they lie in memory."""
        return store(self._signed(array.T if self.turned else array), self.bits, block)

    def spread(self, array: np.ndarray) -> np.ndarray:
        """Return a value for each block and column, from one for all, for each column, or for each block."""
        whole = array.T if self.turned and array.ndim == 2 else array
        return np.ascontiguousarray(np.broadcast_to(whole, self.shape))

    def points(self, zeros: Const | None) -> Callable[[], np.ndarray] | None:
        """Return what reads zero points, packed as codes [..,n]; None where all of them are the middle."""
        if zeros is None and not self.middle:
            return None
        read = zeros.array if zeros is not None else lambda: np.zeros((), np.uint8)
        return lambda: store(self._signed(self.spread(read())), self.bits, 1)

    def _signed(self, array: np.ndarray) -> np.ndarray:
        return (array.astype(np.int16) - self.middle).astype(np.int8)


@onnx("QLinearMatMul")
def _qlinear_matmul(c: Call) -> str:
    """Return the product in int32, scaled to the result's own scale and zero point.

    Those of the second operand may be one a column, those of the first one a row.
    """
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (c[i] for i in range(8))
    if c.type(y_scale).size != 1 or c.type(y_zero).size != 1:
        raise Unsupported("the scale or zero point of its result is not a scalar")
    left = [_side(c, v, rows=True) for v in (a_zero, a_scale)]
    right = [_side(c, v, rows=False) for v in (b_zero, b_scale)]
    total = c.compose("MatMulInteger", a, b, left[0], right[0])
    scales = [c.cast(v, "fp32") for v in (left[1], right[1], c.reshape(y_scale, ()))]
    scale = c.add("div", c.add("mul", scales[0], scales[1]), scales[2])
    level = c.add("round", c.add("mul", c.cast(total, "fp32"), scale))
    zero = c.cast(c.reshape(y_zero, ()), "fp32")
    return saturate(c, c.add("add", level, zero), c.type(y_zero).dtype)


def _side(c: Call, value: str, rows: bool) -> str:
    """Return a scale or zero point of one side of a product, shaped to broadcast over the result."""
    kind = c.type(value)
    if kind.size == 1:
        return c.reshape(value, ())
    return c.reshape(value, (kind.size, 1)) if rows and kind.rank == 1 else value


@onnx("DynamicQuantizeLinear")
def _dynamic(c: Call) -> tuple[str, str, str]:
    axes = tuple(range(c.type(0).rank))
    zero = c.scalar(0, c[0])
    high = c.add("max", c.add("reduce_max", c[0], axes=axes, keepdims=False), zero)
    low = c.add("min", c.add("reduce_min", c[0], axes=axes, keepdims=False), zero)
    scale = c.add("div", c.add("sub", high, low), c.scalar(255, c[0]))
    uint8 = dtype("uint8")
    point = saturate(c, c.add("round", c.add("div", c.add("sub", zero, low), scale)), uint8)
    level = c.add("round", c.add("div", c[0], scale))
    return saturate(c, c.add("add", level, c.cast(point, "fp32")), uint8), scale, point
