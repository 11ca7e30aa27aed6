"""Elementwise ops: every function of the SIMD engine under its own name, and `cast`."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import BOOL, FP32, TensorType, dtype, dtype_of
from mtia_emu.units.simd import FUNCTIONS, Function, compute

from ..graph import Attrs
from .base import Array, Arrays, Count, Op, Types, array, broadcast, need, register, same_dtype, vector
from .onnx_types import DTYPE_OF_ONNX
from .spelling import Call, Unsupported, onnx


def _infer_function(function: Function, types: Types) -> tuple[TensorType, ...]:
    kinds = [need(t) for t in types]
    shape = broadcast([t.shape for t in kinds])
    values = kinds
    if function.name == "where":
        values = kinds[1:]
        if kinds[0].dtype != BOOL:
            raise UserError(f"the condition of where must be bool, not {kinds[0]}")
    element = same_dtype(values)
    if function.result == "bool":
        element = BOOL
    elif function.result == "float" and not element.is_float:
        element = FP32
    return (TensorType(element, shape),)


def _register(function: Function) -> None:
    def infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
        return _infer_function(function, types)

    def reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
        values = [array(x) for x in arrays]
        kinds = [TensorType(dtype_of(x), x.shape) for x in values]
        (kind,) = _infer_function(function, kinds)
        return (np.asarray(compute(function.name, values, kind.dtype.numpy)),)

    copies = function.name == "copy"
    text = "copy the elements" if copies else f"{function.name}, element by element"
    arity = (function.arity, function.arity)
    register(Op(function.name, text, arity, infer, reference, vector(0 if copies else 1)))


for _function in FUNCTIONS.values():
    _register(_function)


def _infer_cast(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    return (TensorType(dtype(str(attrs["to"])), need(types[0]).shape),)


def convert(x: Array, to: np.dtype) -> Array:
    """Return the elements as another type: floats truncate to integers, and saturate in 8-bit floats."""
    if to in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2):
        top = float(ml_dtypes.finfo(to).max)
        x = x.astype(np.float32)
        return np.where(np.isnan(x), x, np.clip(x, -top, top)).astype(to)
    if to == np.bool_:
        return x != 0
    if x.dtype.kind not in "iubf":
        x = x.astype(np.float32)
    return x.astype(to)


def _cast(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    return (convert(array(arrays[0]), dtype(str(attrs["to"])).numpy),)


def _count_cast(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    return Count("vector", (results[0].size,))


register(Op("cast", "convert elements to another type", (1, 1), _infer_cast, _cast, _count_cast, ("to",)))


_UNARY = {
    "Abs": "abs", "Ceil": "ceil", "Cos": "cos", "Erf": "erf", "Exp": "exp", "Floor": "floor",
    "IsNaN": "isnan",
    "Log": "log", "Neg": "neg", "Not": "not", "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round",
    "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Softplus": "softplus", "Sqrt": "sqrt",
    "Tanh": "tanh",
}  # fmt: skip
_BINARY = {
    "Add": "add", "And": "and", "Div": "div", "Equal": "equal", "Greater": "greater",
    "GreaterOrEqual": "greater_equal", "Less": "less", "LessOrEqual": "less_equal", "Mul": "mul", "Or": "or",
    "PRelu": "prelu", "Sub": "sub", "Xor": "xor",
}  # fmt: skip
_CHAINS = {"Sum": "add", "Max": "max", "Min": "min"}


@onnx(*_UNARY)
def _unary(c: Call) -> str:
    return c.add(_UNARY[c.op], c[0])


@onnx(*_BINARY)
def _binary(c: Call) -> str:
    return c.add(_BINARY[c.op], c[0], c[1])


@onnx(*_CHAINS)
def _chain(c: Call) -> str:
    result = c[0]
    for i in range(1, len(c.inputs)):
        result = c.add(_CHAINS[c.op], result, c[i])
    return result


@onnx("Mean")
def _mean(c: Call) -> str:
    total = _chain(Call(c.builder, "Sum", c.opset, c.inputs, 1, {}, c.hint))
    return c.add("div", total, c.scalar(len(c.inputs), total))


@onnx("Where")
def _where(c: Call) -> str:
    return c.add("where", c[0], c[1], c[2])


@onnx("Pow")
def _pow(c: Call) -> str:
    base, exponent = c.type(0).dtype, c.type(1).dtype
    if base.is_float or not exponent.is_float:
        return c.add("pow", c[0], c.cast(c[1], base.name))
    return c.cast(c.add("pow", c.cast(c[0], exponent.name), c[1]), base.name)


@onnx("Mod")
def _mod(c: Call) -> str:
    return c.add("fmod" if c.attr("fmod", 0) else "mod", c[0], c[1])


@onnx("Clip")
def _clip(c: Call) -> str:
    result = c[0]
    for index, (name, op) in enumerate((("min", "max"), ("max", "min")), start=1):
        if name in c.attrs:
            result = c.add(op, result, c.scalar(c.attr(name, 0.0), c[0]))
        elif c.has(index):
            result = c.add(op, result, c[index])
    return result


@onnx("Cast")
def _cast_to(c: Call) -> str:
    kind = DTYPE_OF_ONNX.get(c.attr("to", 0))
    if kind is None:
        raise Unsupported(f"it casts to ONNX type {c.attr('to', 0)}, which we do not have")
    return c.cast(c[0], kind.name)


@onnx("CastLike")
def _cast_like(c: Call) -> str:
    return c.cast(c[0], c.type(1).dtype.name)


@onnx("IsInf")
def _isinf(c: Call) -> str:
    low, high = c.attr("detect_negative", 1), c.attr("detect_positive", 1)
    hit = c.add("isinf", c[0])
    if low and high:
        return hit
    side = c.add("less" if low else "greater", c[0], c.scalar(0, c[0]))
    return c.add("and", hit, side if low or high else c.constant(np.asarray(False)))


@onnx("Gelu", "com.microsoft::Gelu")
def _gelu(c: Call) -> str:
    return c.add("gelu_tanh" if c.attr("approximate", "none") == "tanh" else "gelu", c[0])


@onnx("com.microsoft::FastGelu", "com.microsoft::BiasGelu")
def _bias_gelu(c: Call) -> str:
    x = c.add("add", c[0], c[1]) if c.has(1) else c[0]
    return c.add("gelu_tanh" if c.op.endswith("FastGelu") else "gelu", x)


@onnx("Swish", "com.microsoft::QuickGelu")
def _swish(c: Call) -> str:
    alpha = c.attr("alpha", 1.0 if c.op == "Swish" else 1.702)
    if alpha == 1.0:
        return c.add("silu", c[0])
    return c.add("mul", c[0], c.add("sigmoid", c.add("mul", c[0], c.scalar(alpha, c[0]))))
