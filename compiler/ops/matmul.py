"""Batched matrix multiply with optional bias, scale and activation."""

from __future__ import annotations

import math

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.machine.units.simd import FUNCTIONS, compute
from mtia_emu.types import FP32, INT32, NARROW_FLOATS, DType, ProductWork, TensorType, dtype_of

from ..graph import Attrs
from .backward import Back, gradient
from .base import Array, Arrays, Count, Op, Types, array, broadcast, fits, need, register, wide, word
from .layout import WHOLE, Axes, Layout, NodeSplit, Query, aligned, joint, splits
from .spelling import Call, onnx

ACTIVATIONS = ("none", *(f.name for f in FUNCTIONS.values() if f.arity == 1 and f.result != "bool"))


def _result_dtype(a: DType, b: DType, scale: TensorType | None) -> DType:
    if a.bits == b.bits == 8 and not a.is_float and not b.is_float:
        return INT32 if scale is None else scale.dtype
    if a != b and a in NARROW_FLOATS and b in NARROW_FLOATS:  # as of weights and gradients
        return FP32 if scale is None else scale.dtype
    if a != b:
        raise UserError(f"operands differ in dtype: {a} and {b}")
    return a if scale is None else scale.dtype


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    a, b = need(types[0]), need(types[1])
    bias, scale = (types[i] if len(types) > i else None for i in (2, 3))
    if a.rank < 2 or b.rank < 2:
        raise UserError(f"operands must be matrices or batches of them, got {a} and {b}")
    if a.shape[-1] != b.shape[-2]:
        raise UserError(f"inner sizes differ: {a} and {b}")
    shape = (*broadcast([a.shape[:-2], b.shape[:-2]]), a.shape[-2], b.shape[-1])
    for name, extra in (("bias", bias), ("scale", scale)):
        if extra is not None and not fits(extra.shape, shape):
            raise UserError(f"{name} {extra} does not broadcast to the result, of shape {list(shape)}")
    word(attrs, "activation", "none", ACTIVATIONS)
    return (TensorType(_result_dtype(a.dtype, b.dtype, scale), shape),)


def product(a: Array, b: Array) -> Array:
    """Return a[..,m,k] @ b[..,k,n]: 8-bit integers exactly in int32, floats in fp32 or wider."""
    if a.dtype.kind in "iu":
        if a.dtype.itemsize == 1 and a.shape[-1] < 1 << 37:  # exact in doubles, and through BLAS
            return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64).astype(np.int32)
        return np.matmul(a, b)
    return np.matmul(wide(a), wide(b))


def _matmul(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    a, b = array(arrays[0]), array(arrays[1])
    bias, scale = (arrays[i] if len(arrays) > i else None for i in (2, 3))
    kinds = [None if x is None else TensorType(dtype_of(x), x.shape) for x in (a, b, bias, scale)]
    out = _infer(kinds, attrs)[0].dtype.numpy
    result = product(a, b)
    if scale is not None:
        result = result.astype(wide(scale).dtype) * wide(scale)
    if bias is not None:
        result = result + wide(bias)
    activation = word(attrs, "activation", "none", ACTIVATIONS)
    return (result.astype(out) if activation == "none" else compute(activation, [result], out),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    a, b = need(types[0]), need(types[1])
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    batch = math.prod(b.shape[:-2])  # right-hand sides: what else there is of a batch is more rows of each
    m *= math.prod(results[0].shape[:-2]) // max(batch, 1)
    extras = sum(t is not None for t in types[2:]) + (attrs.get("activation", "none") != "none")
    return Count(ProductWork, {"batch": batch, "m": m, "k": k, "n": n}, extras * results[0].size)


register(
    Op(
        "matmul",
        "activation(a[..,m,k] @ b[..,k,n] * scale? + bias?), batches broadcast; int8 accumulates in int32",
        (2, 4),
        _infer,
        _matmul,
        _count,
        (),
        ("activation",),
    )
)


@onnx("MatMul")
def _spell(c: Call) -> str:
    return multiply(c, c[0], c[1])


def multiply(c: Call, a: str, b: str, *extras: str) -> str:
    """Return a @ b by NumPy's rules for vectors."""
    left, right = c.type(a), c.type(b)
    if not left.rank or not right.rank:
        raise UserError(f"MatMul of a scalar: {left} and {right}")
    if left.rank > 1 and right.rank > 1:
        return c.add("matmul", a, b, *extras)
    wide_a = c.reshape(a, (1, *left.shape)) if left.rank == 1 else a
    wide_b = c.reshape(b, (*right.shape, 1)) if right.rank == 1 else b
    result = c.add("matmul", wide_a, wide_b, *extras)
    shape = list(c.type(result).shape)
    if right.rank == 1:
        del shape[-1]
    if left.rank == 1:
        del shape[-1 if right.rank == 1 else -2]
    return c.reshape(result, shape)


def swapped(c: Call, value: str) -> str:
    """Return a value with its last two axes exchanged."""
    rank = c.type(value).rank
    if rank < 2:
        raise UserError(f"{c.op}: cannot transpose {c.type(value)}")
    return c.add("transpose", value, perm=(*range(rank - 2), rank - 1, rank - 2))


@onnx("Gemm")
def _gemm(c: Call) -> str:
    a = swapped(c, c[0]) if c.attr("transA", 0) else c[0]
    b = swapped(c, c[1]) if c.attr("transB", 0) else c[1]
    alpha, beta = c.attr("alpha", 1.0), c.attr("beta", 1.0)
    bias = c[2] if c.has(2) and beta else ""
    if bias and beta != 1.0:
        bias = c.add("mul", bias, c.scalar(beta, bias))
    if alpha == 1.0:
        return c.add("matmul", a, b, bias)
    result = c.add("mul", c.add("matmul", a, b), c.scalar(alpha, a))
    return c.add("add", result, bias) if bias else result


@onnx("com.microsoft::FusedMatMul", "com.microsoft::TransposeMatMul")
def _fused(c: Call) -> str:
    a, b = (_turned(c, i, side) for i, side in enumerate("AB"))
    result = multiply(c, a, b)
    alpha = c.attr("alpha", 1.0)
    return result if alpha == 1.0 else c.add("mul", result, c.scalar(alpha, result))


def _turned(c: Call, index: int, side: str) -> str:
    """Return an operand transposed as the node says; `transBatch` moves its first axis before the last."""
    value, rank = c[index], c.type(index).rank
    if c.attr(f"transBatch{side}", 0) and rank > 2:
        value = c.add("transpose", value, perm=(*range(1, rank - 1), 0, rank - 1))
    return swapped(c, value) if c.attr(f"trans{side}", 0) and rank > 1 else value


@onnx("com.microsoft::FusedGemm")
def _fused_gemm(c: Call) -> str:
    from .activations import activation

    parameters = ([c.attr("activation_alpha", 0.0)], [c.attr("activation_beta", 0.0)])
    given = [
        p if name in c.attrs else []
        for p, name in zip(parameters, ("activation_alpha", "activation_beta"), strict=True)
    ]
    return activation(c.attr("activation", ""), *given)(c, _gemm(c))


@onnx("MatMulInteger")
def _integer(c: Call) -> str:
    """Return (a - za)(b - zb) as ab - za*colsum(b) - rowsum(a)*zb + k*za*zb: the product is one of bytes."""
    left_kind, right_kind = c.type(0), c.type(1)
    a = c.reshape(c[0], (1, *left_kind.shape)) if left_kind.rank == 1 else c[0]
    b = c.reshape(c[1], (*right_kind.shape, 1)) if right_kind.rank == 1 else c[1]
    result = c.add("matmul", a, b)
    left, right = (_zero(c, i) for i in (2, 3))
    if left:
        left = c.reshape(left, (*c.type(left).shape, 1)) if c.type(left).rank == 1 else left
        columns = c.add("reduce_sum", c.cast(b, "int32"), axes=(c.type(b).rank - 2,), keepdims=True)
        result = c.add("sub", result, c.add("mul", left, columns))
    if right:
        rows = c.add("reduce_sum", c.cast(a, "int32"), axes=(c.type(a).rank - 1,), keepdims=True)
        result = c.add("sub", result, c.add("mul", rows, right))
    if left and right:
        inner = c.scalar(c.type(a).shape[-1], result)
        result = c.add("add", result, c.add("mul", inner, c.add("mul", left, right)))
    shape = list(c.type(result).shape)
    if right_kind.rank == 1:
        del shape[-1]
    if left_kind.rank == 1:
        del shape[-1 if right_kind.rank == 1 else -2]
    return c.reshape(result, shape)


def _zero(c: Call, index: int) -> str:
    """Return a zero point in int32; "" when it is missing or known to be 0."""
    if not c.has(index):
        return ""
    known = c.builder.known(c[index])
    return "" if known is not None and not known.any() else c.cast(c[index], "int32")


@splits("matmul")
def _split(query: Query) -> NodeSplit:
    """Split a product: by columns of a weight, then by rows where the operand comes so split.

    Where both operands are computed, batches, rows and columns are split as they come, and those of a matrix
    before rows of a smaller operand; where the inner size is, the result owes a sum.
    """
    b, free = need(query.types[1]), query.free[1]
    if free and b.rank == 2:
        return _by_weight(query)
    a, left, right = need(query.types[0]), *_layouts(query)
    shape = query.node.type.shape
    batch = _stacked(query, b) if free else joint(query, shape, (len(shape) - 2, len(shape) - 1))[:-2]
    used = {axis for axes in batch for axis in axes}
    if b.rank == 2 and a.size < b.size:  # where one of both must be gathered, the smaller is
        columns = _unused(right.dims[-1], used)
        rows = _unused(left.dims[-2], used)
    else:
        rows = _unused(left.dims[-2], used)
        columns = _unused(right.dims[-1], used)
    inner = _unused(left.dims[-1] or right.dims[-2], used)
    if query.node.attrs.get("activation", "none") != "none" or any(query.types[3:]):
        inner = WHOLE
    lead = aligned(TensorType(a.dtype, a.shape[:-2]), batch, shape[:-2]).dims
    over = aligned(TensorType(b.dtype, b.shape[:-2]), batch, shape[:-2]).dims
    wanted = (Layout((*lead, rows, inner)), Layout((*over, inner, columns)))
    dims = (*batch, rows, columns)
    return NodeSplit((*wanted, *_extras(query, dims, inner)), (Layout(dims, tuple(sorted(inner))),))


def _layouts(query: Query) -> tuple[Layout, Layout]:
    left, right = query.layouts[:2]
    assert left is not None and right is not None
    return left, right


def _unused(axes: Axes, used: set[str]) -> Axes:
    """Return axes where none is in use, and mark them as used."""
    if used & set(axes):
        return WHOLE
    used.update(axes)
    return axes


def _stacked(query: Query, b: TensorType) -> tuple[Axes, ...]:
    """Return the axes of the batch of a product by a stack of weights: a matrix an expert, or a head."""
    policy, count = query.policy, b.rank - 2
    dims = list(joint(query, query.node.type.shape)[:-2])
    at = len(dims) - count
    used = {axis for axes in dims for axis in axes}
    if not dims[at]:
        dims[at] = policy.dividing(tuple(a for a in policy.stacks if a not in used), b.shape[0])
    return tuple(dims)


def _by_weight(query: Query) -> NodeSplit:
    """Split a weight [k, n]: rows where the operand's last dimension is split, else columns."""
    policy, (left, _) = query.policy, _layouts(query)
    size, inner = query.node.type.shape[-1], left.dims[-1]
    if query.node.attrs.get("activation", "none") != "none" or any(query.types[3:]):
        inner = WHOLE
    columns = WHOLE if inner else policy.dividing(policy.model, query.units or size)
    split = {*inner, *columns, *(policy.model if columns or query.units else ())}
    rows = [tuple(a for a in axes if a not in split) for axes in left.dims[:-1]]
    dims = (*rows, columns)
    wanted = (Layout((*rows, inner)), Layout((inner, columns)))
    return NodeSplit((*wanted, *_extras(query, dims, inner)), (Layout(dims, tuple(sorted(inner))),))


def _extras(query: Query, dims: tuple[Axes, ...], owed: Axes) -> tuple[Layout | None, ...]:
    """Return how bias and scale lie: a bias beside a sum that is owed is one rank's alone."""
    shape = query.node.type.shape
    out: list[Layout | None] = []
    for i, kind in enumerate(query.types[2:], 2):
        layout = None if kind is None else aligned(kind, dims, shape)
        out.append(layout.owing(owed) if layout is not None and i == 2 else layout)
    return tuple(out)


@gradient("matmul")
def _back(b: Back) -> tuple[str, ...]:
    """Of a @ b: g b^T and a^T g. What stands behind the product is gone back through by itself."""
    if b.has(3) or b.node.attrs.get("activation", "none") != "none":
        return b.through(_unfused(b))
    left = right = ""
    if b.wants(0):
        left = b.add("matmul", b.grad, b.swapped(b[1]))
    if b.wants(1):
        a, g, kind = b[0], b.grad, b.type(1)
        if b.type(a).rank > 2 and kind.rank <= b.type(a).rank and math.prod(kind.shape[:-2]) == 1:
            a, g = _as_rows(b, a), _as_rows(b, g)  # one matrix for all: the batch is more rows
        right = b.add("matmul", b.swapped(a), g)
        right = b.reshape(right, kind.shape) if b.type(right).size == kind.size else right
    return left, right, b.grad if b.wants(2) else ""


def _unfused(b: Back) -> str:
    """Return the result by ops of their own."""
    if not b.type(0).dtype.is_float:
        raise UserError("a product of integers has none (right: train in floats, then quantise)")
    value = b.add("matmul", b[0], b[1])
    value = b.add("mul", value, b[3]) if b.has(3) else value
    value = b.add("add", value, b[2]) if b.has(2) else value
    activation = str(b.node.attrs.get("activation", "none"))
    return value if activation == "none" else b.add(activation, value)


def _as_rows(b: Back, value: str) -> str:
    """Return a batch of matrices as one matrix of all their rows."""
    shape = b.type(value).shape
    return b.reshape(value, (math.prod(shape[:-1]), shape[-1]))
