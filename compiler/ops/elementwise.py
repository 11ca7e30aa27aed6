"""Elementwise ops: every function of the SIMD engine under its own name, and `cast`."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.machine.units.simd import FUNCTIONS, Function, compute, rounded
from mtia_emu.types import BOOL, FP8_E8M0, FP32, CopyWork, DType, TensorType, dtype, dtype_of

from ..gradients.marks import OPTIMISER, mark_of
from ..graph import Attrs
from .base import (
    Array,
    Arrays,
    Count,
    Op,
    Types,
    array,
    broadcast,
    elementwise,
    need,
    register,
    same_dtype,
    vector,
    word,
)
from .draws import PHILOX
from .layout import Axes, Layout, NodeSplit, Query, aligned, joint, splits
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
    count = vector(0 if copies else function.passes if function.name == PHILOX else 1)
    register(Op(function.name, text, arity, infer, reference, count, stored=function.name == PHILOX))


for _function in FUNCTIONS.values():
    _register(_function)


def _infer_cast(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    return (TensorType(dtype(str(attrs["to"])), need(types[0]).shape),)


def convert(x: Array, to: np.dtype, saturate: bool = True, round_mode: str = "up") -> Array:
    """Return x, of any shape, as another type: floats truncate to integers, and saturate in 8-bit floats.

    Without `saturate`, what is too large becomes the type's infinity or NaN. `round_mode` is for exponents
    alone (fp8_e8m0): up, down or nearest.
    """
    if x.dtype.kind not in "iubf":
        x = x.astype(np.float32)
    if to == np.bool_:
        return x != 0
    kind = dtype_of(np.empty(0, to))
    if kind == FP8_E8M0:
        return _exponent(x.astype(np.float32), round_mode)
    if kind.is_float and kind.bits <= 8 and saturate:
        top = float(ml_dtypes.finfo(to).max)
        x = x if x.dtype == np.float64 else x.astype(np.float32)
        return rounded(np.where(np.isnan(x), x, np.clip(x, -top, top)), to)
    return rounded(x, to)


def _exponent(x: Array, mode: str) -> Array:
    """Return the powers of two next to x > 0, of any shape, as fp8_e8m0; what is not finite becomes NaN."""
    fraction, exponent = np.frexp(np.abs(x))  # fraction in [0.5, 1)
    up = {"up": fraction > 0.5, "down": np.zeros_like(x, bool), "nearest": fraction >= 0.75}[mode]
    biased = np.where(x == 0, 0, np.clip(exponent - 1 + up + 127, 0, 254))
    return np.where(np.isfinite(x), biased, 255).astype(np.uint8).view(FP8_E8M0.numpy)


def _cast(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    mode = word(attrs, "round_mode", "up", ("up", "down", "nearest"))
    saturates = bool(attrs.get("saturate", True))
    return (convert(array(arrays[0]), dtype(str(attrs["to"])).numpy, saturates, mode),)


def _count_cast(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    if need(types[0]) == results[0]:  # it only says that a stored value is rounded
        return Count(CopyWork, read_bytes=0, write_bytes=0)
    return elementwise(results[0].size, 0)


register(
    Op(
        "cast",
        "convert elements to another type",
        (1, 1),
        _infer_cast,
        _cast,
        _count_cast,
        ("to",),
        ("round_mode", "rounds", "saturate"),
    )
)


UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan",
    "Atanh": "atanh", "BitwiseNot": "bit_not", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Erf": "erf",
    "Exp": "exp", "Floor": "floor", "IsNaN": "isnan",
    "Log": "log", "Neg": "neg", "Not": "not", "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round",
    "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Sinh": "sinh",
    "Softplus": "softplus", "Sqrt": "sqrt", "Tanh": "tanh",
}  # fmt: skip
BINARY = {
    "Add": "add", "And": "and", "BitwiseAnd": "bit_and", "BitwiseOr": "bit_or",
    "BitwiseXor": "bit_xor", "Div": "div", "Equal": "equal", "Greater": "greater",
    "GreaterOrEqual": "greater_equal", "Less": "less", "LessOrEqual": "less_equal", "Mul": "mul", "Or": "or",
    "PRelu": "prelu", "Sub": "sub", "Xor": "xor",
}  # fmt: skip
_SHIFTS = {"LEFT": "shift_left", "RIGHT": "shift_right"}
_CHAINS = {"Sum": "add", "Max": "max", "Min": "min"}


@onnx(*UNARY)
def _unary(c: Call) -> str:
    return c.add(UNARY[c.op], c[0])


@onnx(*BINARY)
def _binary(c: Call) -> str:
    return c.add(BINARY[c.op], c[0], c[1])


@onnx("BitShift")
def _shift(c: Call) -> str:
    way = c.attr("direction", "")
    if way not in _SHIFTS:
        raise UserError(f"BitShift: direction is {way!r} (right: LEFT or RIGHT)")
    return c.add(_SHIFTS[way], c[0], c[1])


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


@onnx("Cast", "CastLike")
def _cast_to(c: Call) -> str:
    if c.op == "CastLike":
        return narrow(c, c[0], c.type(1).dtype)
    kind = DTYPE_OF_ONNX.get(c.attr("to", 0))
    if kind is None:
        raise Unsupported(f"it casts to ONNX type {c.attr('to', 0)}, which we do not have")
    return narrow(c, c[0], kind)


def narrow(c: Call, x: str, to: DType) -> str:
    """Return a value in another type, by the node's own attributes where these matter.

    The cast to a narrow float `rounds`: no pass may leave it out, or keep what it rounds in a wider type.
    """
    attrs: dict[str, object] = {}
    if to.is_float and to.bits < FP32.bits and c.builder.type_of(x).dtype != to:
        attrs["rounds"] = True
    if to.is_float and to.bits <= 8 and not c.attr("saturate", 1):
        attrs["saturate"] = False
    if to == FP8_E8M0 and c.attr("round_mode", "up") != "up":
        attrs["round_mode"] = c.attr("round_mode", "up")
    return c.add("cast", x, to=to.name, **attrs)


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


FROM_ZERO = ("silu", "relu", "gelu", "gelu_tanh", "tanh", "abs", "neg", "cast")  # give 0 of 0


@splits(*FUNCTIONS, "cast")
def _split(query: Query) -> NodeSplit:
    """Split as the operands are; sums that are owed are paid first, but where the function is linear in them.

    With a `scatter` dimension a sum is paid by scattering it over that dimension.
    """
    shape = query.node.type.shape
    dims = joint(query, shape)
    sums = _carried(query)
    if set(sums) & {axis for axes in dims for axis in axes}:  # another operand is split over these axes
        if _is_larger(query, sums):
            dims = tuple(tuple(axis for axis in axes if axis not in sums) for axes in dims)
        else:
            sums = ()
    if not sums:
        dims = _scattered(query, dims)
    wanted: list[Layout | None] = []
    for layout, kind in zip(query.layouts, query.types, strict=True):
        if layout is None or kind is None:
            wanted.append(None)
            continue
        own = aligned(kind, dims, shape)
        wanted.append(own.owing(sums) if sums and (layout.sums or query.node.op in ("add", "sub")) else own)
    return NodeSplit(tuple(wanted), (Layout(dims, sums, _mask(query) if sums else ""),))


def _is_larger(query: Query, sums: Axes) -> bool:
    """Return whether what owes a sum is larger than all that is split over its axes."""
    present = [(x, t) for x, t in zip(query.layouts, query.types, strict=True) if x and t]
    split = [t.size for x, t in present if x.used & set(sums)]
    return max(split, default=0) < min(t.size for x, t in present if x.sums)


def _carried(query: Query) -> Axes:
    """Return the axes over which the result owes a sum because operands do and the function is linear."""
    owed = [x.sums for x in query.layouts if x is not None]
    if query.node.op in (*FROM_ZERO, "mul") and all(owed) and _mask(query):
        return owed[0]
    if query.node.op in ("add", "sub"):
        return tuple(axis for axis in owed[0] if axis in owed[1])
    if _widens_a_gradient(query):
        return owed[0]
    if query.node.op == "neg" or (query.node.op == "mul" and not all(owed)):
        return next((x for x in owed if x), ())
    if query.node.op == "div" and not owed[1]:
        return owed[0]
    return ()


def _widens_a_gradient(query: Query) -> bool:
    """Return whether a cast is of a gradient to floats that hold it exactly, before it is summed with others.

    Elsewhere a sum is paid first, in the fewer bytes.
    """
    (kind, *_), to = query.types, query.node.type.dtype
    if query.node.op != "cast" or kind is None or mark_of(query.node) != OPTIMISER:
        return False
    return to.is_float and kind.dtype.is_float and to.bits >= kind.dtype.bits


def _mask(query: Query) -> str:
    """Return the mask of all operands that owe a sum, the same one; "" where they have none in common."""
    present = zip(query.layouts, query.types, strict=True)
    owing = [(x, t) for x, t in present if x is not None and t is not None and x.sums]
    same = {(x.mask, x.sums) for x, _ in owing}
    alike = all(t.shape == query.node.type.shape for _, t in owing)
    return owing[0][0].mask if len(same) == 1 and alike and query.node.type.dtype.is_float else ""


def _scattered(query: Query, dims: tuple[Axes, ...]) -> tuple[Axes, ...]:
    """Return the axes of a result's dimensions, the sums that an operand owes scattered over one of them."""
    policy, at = query.policy, query.policy.scatter
    owed = next((x.sums for x in query.layouts if x is not None and x.sums), ())
    shape = query.node.type.shape
    if at is None or len(shape) != 3 or not owed or not set(owed) <= set(policy.model):
        return dims
    if set(owed) & {a for axes in dims for a in axes} or shape[at] % policy.count((*dims[at], *owed)):
        return dims
    return (*dims[:at], (*dims[at], *owed), *dims[at + 1 :])
