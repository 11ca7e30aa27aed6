"""Reductions over axes. Running sums are in `rare`."""

from __future__ import annotations

import math

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.machine.units.simd import REDUCTIONS, compute
from mtia_emu.types import BOOL, TensorType

from ..graph import Attrs
from .backward import Back, gradient, kept, reduced_axes
from .base import Array, Arrays, Count, Op, Types, array, elementwise, integers, need, register, wide
from .layout import WHOLE, Layout, NodeSplit, Query, splits
from .spelling import Call, onnx


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x = need(types[0])
    axes = integers(attrs, "axes")
    if len(set(axes)) != len(axes) or any(not 0 <= a < x.rank for a in axes):
        raise UserError(f"axes {list(axes)} are not distinct axes of {x} (right: 0 to {x.rank - 1})")
    if attrs.get("keepdims", False):
        return (TensorType(x.dtype, tuple(1 if i in axes else s for i, s in enumerate(x.shape))),)
    return (TensorType(x.dtype, tuple(s for i, s in enumerate(x.shape) if i not in axes)),)


def _reduce(kind: str, x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    if not axes:
        return x
    full = wide(x)
    if kind != "mean":
        kwargs: dict[str, object] = {"dtype": full.dtype} if kind in ("sum", "prod") else {}
        if kind in ("max", "min"):
            kwargs = {"initial": _worst(kind, full.dtype)}
        return np.asarray(REDUCTIONS[kind](full, axis=axes, keepdims=keep, **kwargs)).astype(x.dtype)
    if x.dtype.kind in "iu":
        total, size = np.sum(x, axis=axes, keepdims=keep), math.prod(x.shape[a] for a in axes)
        return compute("div", [total, np.asarray(max(size, 1), total.dtype)], x.dtype)
    total = np.sum(full, axis=axes, keepdims=keep, dtype=full.dtype)
    return np.asarray(np.true_divide(total, math.prod(x.shape[a] for a in axes))).astype(x.dtype)


def _worst(kind: str, element: np.dtype) -> object:
    """Return the maximum (or minimum) of nothing."""
    if element.kind == "f":
        return -np.inf if kind == "max" else np.inf
    if element.kind == "b":
        return kind == "min"
    limits = np.iinfo(element)
    return limits.min if kind == "max" else limits.max


def _register(kind: str) -> None:
    def reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
        return (_reduce(kind, array(arrays[0]), integers(attrs, "axes"), bool(attrs.get("keepdims", False))),)

    def count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
        return elementwise(need(types[0]).size, need(types[0]).size)

    text = f"{kind} over `axes`"
    register(Op(f"reduce_{kind}", text, (1, 1), _infer, reference, count, ("axes",), ("keepdims",)))


for _kind in ("sum", "mean", "max", "min", "prod"):
    _register(_kind)


def axes_of(c: Call) -> tuple[int, ...]:
    """Return the axes that an ONNX reduction names, as attribute or operand; all when it names none."""
    rank = c.type(0).rank
    axes = c.list_of("axes", 1)
    if not axes:
        return () if c.attr("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted({c.wrap(a, rank) for a in axes}))


def _spell(c: Call, kind: str, value: str) -> str:
    return c.add(f"reduce_{kind}", value, axes=axes_of(c), keepdims=bool(c.attr("keepdims", 1)))


_PLAIN = {
    "ReduceSum": "sum",
    "ReduceMean": "mean",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
}


@onnx(*_PLAIN)
def _plain(c: Call) -> str:
    x = c[0]
    if c.type(x).dtype == BOOL:  # max and min of bool, since opset 20
        return c.cast(_spell(c, _PLAIN[c.op], c.cast(x, "uint8")), "bool")
    if not axes_of(c):
        return x
    return _spell(c, _PLAIN[c.op], x)


@onnx("ReduceL1")
def _l1(c: Call) -> str:
    return _spell(c, "sum", c.add("abs", c[0]))


@onnx("ReduceSumSquare")
def _sum_square(c: Call) -> str:
    return _spell(c, "sum", c.add("mul", c[0], c[0]))


@onnx("ReduceL2")
def _l2(c: Call) -> str:
    return c.add("sqrt", _sum_square(c))


@onnx("ReduceLogSum")
def _log_sum(c: Call) -> str:
    return c.add("log", _spell(c, "sum", c[0]))


@onnx("ReduceLogSumExp")
def _log_sum_exp(c: Call) -> str:
    axes, keep = axes_of(c), bool(c.attr("keepdims", 1))
    top = c.add("reduce_max", c[0], axes=axes, keepdims=True)
    top = c.add("where", c.add("isinf", top), c.scalar(0, top), top)  # inf - inf would be NaN
    total = c.add("reduce_sum", c.add("exp", c.add("sub", c[0], top)), axes=axes, keepdims=True)
    result = c.add("add", c.add("log", total), top)
    kept = [s for i, s in enumerate(c.type(0).shape) if i not in axes]
    return result if keep else c.reshape(result, kept)


@onnx("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(c: Call) -> str:
    kind = "mean" if c.op == "GlobalAveragePool" else "max"
    return c.add(f"reduce_{kind}", c[0], axes=tuple(range(2, c.type(0).rank)), keepdims=True)


@splits(*(f"reduce_{kind}" for kind in ("sum", "mean", "max", "min", "prod")))
def _split(query: Query) -> NodeSplit:
    """Split what is not reduced; a sum over a split axis is owed by the ranks, all else needs it whole."""
    axes, keep = integers(query.node.attrs, "axes"), bool(query.node.attrs.get("keepdims", False))
    layout = query.layouts[0]
    assert layout is not None
    sums = query.node.op == "reduce_sum"
    want = layout if sums else layout.settled.without(axes)
    owed = {axis for i in axes for axis in want.dims[i]} | set(want.sums)
    left = [(i, axes_) for i, axes_ in enumerate(want.dims) if keep or i not in axes]
    dims = tuple(WHOLE if i in axes else axes_ for i, axes_ in left)
    return NodeSplit((want,), (Layout(dims).owing(owed),))


@gradient("reduce_sum", "reduce_mean")
def _spread(b: Back) -> tuple[str]:
    x, axes = b.type(0), reduced_axes(b)
    full = b.reshape(b.grad, kept(x.shape, axes))
    if b.node.op == "reduce_mean":
        full = b.times(full, 1 / max(math.prod(x.shape[a] for a in axes), 1))
    return (b.add("expand", full, shape=x.shape),)


@gradient("reduce_max", "reduce_min")
def _shared(b: Back) -> tuple[str]:
    """Give what is largest (smallest) the gradient; equal elements share it."""
    shape, axes = kept(b.type(0).shape, reduced_axes(b)), reduced_axes(b)
    hit = b.cast(b.add("equal", b[0], b.reshape(b.out, shape)), b.type(0))
    share = b.add("div", b.reshape(b.grad, shape), b.add("reduce_sum", hit, axes=axes, keepdims=True))
    return (b.times(hit, share),)


@gradient("reduce_prod")
def _others(b: Back) -> tuple[str]:
    """Give each element the product of all others: of those before it and of those behind it."""
    x, axes = b.type(0), reduced_axes(b)
    order = (*(i for i in range(x.rank) if i not in axes), *axes)
    moved = b.add("transpose", b[0], perm=order)
    lead = b.type(moved).shape[: x.rank - len(axes)]
    flat = b.reshape(moved, (*lead, math.prod(x.shape[a] for a in axes)))
    sides = [
        b.add("cumprod", flat, axis=len(lead), exclusive=True, reverse=turned) for turned in (False, True)
    ]
    others = b.reshape(b.times(*sides), b.type(moved).shape)
    others = b.add("transpose", others, perm=tuple(order.index(i) for i in range(x.rank)))
    return (b.times(others, b.reshape(b.grad, kept(x.shape, axes))),)
