"""Softmax and its logarithm over one axis."""

from __future__ import annotations

import math

import numpy as np

from mtia_emu.types import TensorType

from ..graph import Attrs
from .backward import Back, gradient
from .base import Array, Arrays, Op, Types, array, axis_of, need, register, rows, wide
from .layout import NodeSplit, Query, by_rows, splits
from .spelling import Call, onnx


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    axis_of(attrs, need(types[0]).rank)
    return (need(types[0]),)


def _parts(x: Array, axis: int) -> tuple[Array, Array]:
    """Return x less its largest element along an axis, and the sum of exponentials, which has 1 there."""
    x = wide(x)
    shifted = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
    return shifted, np.exp(shifted).sum(axis=axis, keepdims=True)


def _softmax(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x = array(arrays[0])
    shifted, total = _parts(x, axis_of(attrs, x.ndim))
    return ((np.exp(shifted) / total).astype(x.dtype),)


def _log_softmax(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x = array(arrays[0])
    shifted, total = _parts(x, axis_of(attrs, x.ndim))
    return ((shifted - np.log(total)).astype(x.dtype),)


# max, subtract, exp, sum, divide
register(Op("softmax", "softmax over `axis`", (1, 1), _infer, _softmax, rows(5), ("axis",)))
register(
    Op("log_softmax", "logarithm of softmax over `axis`", (1, 1), _infer, _log_softmax, rows(5), ("axis",))
)


@onnx("Softmax", "LogSoftmax")
def _spell(c: Call) -> str:
    op = "softmax" if c.op == "Softmax" else "log_softmax"
    kind = c.type(0)
    if c.opset >= 13:
        return c.add(op, c[0], axis=c.axis(-1))
    axis = c.axis(1) if kind.rank != 1 else 0  # before opset 13: over all axes from `axis` on
    if all(s == 1 for s in kind.shape[axis + 1 :]):
        return c.add(op, c[0], axis=axis)
    flat = c.reshape(c[0], (math.prod(kind.shape[:axis]), math.prod(kind.shape[axis:])))
    return c.reshape(c.add(op, flat, axis=1), kind.shape)


@splits("softmax", "log_softmax")
def _split(query: Query) -> NodeSplit:
    return by_rows(query, [axis_of(query.node.attrs, query.node.type.rank)])


@gradient("softmax")
def _back(b: Back) -> tuple[str]:
    """Of y: y (g - sum(g y))."""
    y, g = b.wide(b.out), b.wide(b.grad)
    total = b.add("reduce_sum", b.times(g, y), axes=(axis_of(b.node.attrs, b.type(0).rank),), keepdims=True)
    return (b.cast(b.times(y, b.add("sub", g, total)), b.type(0)),)


@gradient("log_softmax")
def _log_back(b: Back) -> tuple[str]:
    """Of log y: g - y sum(g)."""
    g = b.wide(b.grad)
    total = b.add("reduce_sum", g, axes=(axis_of(b.node.attrs, b.type(0).rank),), keepdims=True)
    return (b.cast(b.add("sub", g, b.times(b.add("exp", b.wide(b.out)), total)), b.type(0)),)
