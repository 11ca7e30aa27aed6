"""Normalisations over the last axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..graph import Attrs
from .backward import Back, gradient
from .base import Array, Arrays, Op, Types, array, need, number, register, rows, wide
from .layout import NodeSplit, Query, by_rows, splits
from .spelling import Call, Unsupported, bounded, counted, onnx


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x = need(types[0])
    if x.rank < 1 or not x.dtype.is_float:
        raise UserError(f"needs floats of rank 1 or more, not {x}")
    for weight in types[1:]:
        if weight is not None and (weight.shape != x.shape[-1:] or not weight.dtype.is_float):
            raise UserError(
                f"weights must be floats of shape [{x.shape[-1]}], the last axis of {x}, not {weight}"
            )
    number(attrs, "epsilon", 0.0)
    return (x,)


def _mean(x: Array) -> Array:
    """Return the mean of each row of x[..,n] as [..,1], NaN where rows are empty."""
    return np.true_divide(x.sum(axis=-1, keepdims=True), x.shape[-1])


def _rmsnorm(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x = array(arrays[0])
    full = wide(x)
    scale = _mean(full * full) + np.asarray(number(attrs, "epsilon", 0.0), full.dtype)
    return ((full / np.sqrt(scale) * wide(array(arrays[1]))).astype(x.dtype),)


def _layernorm(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x = array(arrays[0])
    full = wide(x)
    centred = full - _mean(full)
    scale = _mean(centred * centred)
    result = (
        centred
        / np.sqrt(scale + np.asarray(number(attrs, "epsilon", 0.0), full.dtype))
        * wide(array(arrays[1]))
    )
    if len(arrays) > 2 and arrays[2] is not None:
        result = result + wide(array(arrays[2]))
    return (result.astype(x.dtype),)


# rmsnorm: square, sum, scale, weight; layernorm: sum, subtract, square, sum, scale, weight, bias
register(Op("rmsnorm", "root-mean-square norm of x, weight", (2, 2), _infer, _rmsnorm, rows(4), ("epsilon",)))
register(Op("layernorm", "layer norm of x, weight, bias?", (2, 3), _infer, _layernorm, rows(7), ("epsilon",)))


def _over_last(c: Call, op: str, axis: int, weights: Sequence[str], epsilon: float) -> str:
    """Return the norm of the first operand over all axes from `axis` on, which are made one.

    `weights` are those that the op takes, "" for one that is left out.
    """
    x = c[0]
    shape = c.type(x).shape
    inner = shape[axis:]
    flat = (*shape[:axis], math.prod(inner))
    flat_weights = [c.reshape(c.add("expand", w, shape=inner), flat[axis:]) for w in weights if w]
    return c.reshape(c.add(op, c.reshape(x, flat), *flat_weights, epsilon=epsilon), shape)


@onnx("LayerNormalization")
def _layer_normalization(c: Call) -> tuple[str, str, str]:
    axis, epsilon = c.axis(-1), c.attr("epsilon", 1e-5)
    result = _over_last(c, "layernorm", axis, (c[1], c.optional(2)), epsilon)
    if not (c.wants(1) or c.wants(2)):
        return (result, "", "")
    x = c.cast(c[0], "fp32")
    axes = tuple(range(axis, c.type(x).rank))
    mean = c.add("reduce_mean", x, axes=axes, keepdims=True)
    centred = c.add("sub", x, mean)
    variance = c.add("reduce_mean", c.add("mul", centred, centred), axes=axes, keepdims=True)
    return result, mean, c.add("rsqrt", c.add("add", variance, c.scalar(epsilon, variance)))


@onnx("RMSNormalization", "SimplifiedLayerNormalization", "com.microsoft::SimplifiedLayerNormalization")
def _rms_normalization(c: Call) -> str:
    if c.wants(1):
        raise Unsupported("its inverse deviation is read")
    return _over_last(c, "rmsnorm", c.axis(-1), (c[1],), c.attr("epsilon", 1e-5))


@onnx("com.microsoft::SkipSimplifiedLayerNormalization")
def _skip_rms(c: Call) -> tuple[str, str, str, str]:
    total = c.add("add", c[0], c[1])
    if c.has(3):
        total = c.add("add", total, c[3])
    result = c.add("rmsnorm", total, c[2], epsilon=c.attr("epsilon", 1e-5))
    return _with_sum(c, result, total)


@onnx("com.microsoft::SkipLayerNormalization")
def _skip_layer(c: Call) -> tuple[str, str, str, str]:
    total = c.add("add", c[0], c[1])
    if c.has(4):
        total = c.add("add", total, c[4])
    weights = [c[2], c[3]] if c.has(3) else [c[2]]
    return _with_sum(c, c.add("layernorm", total, *weights, epsilon=c.attr("epsilon", 1e-5)), total)


def _with_sum(c: Call, result: str, total: str) -> tuple[str, str, str, str]:
    if c.wants(1) or c.wants(2):
        raise Unsupported("its mean or inverse deviation is read")
    return result, "", "", total


@onnx("BatchNormalization")
def _batch_normalization(c: Call) -> tuple[str, str, str]:
    scale, bias, mean, variance = (c[i] for i in range(1, 5))
    running = ("", "")
    if c.attr("training_mode", 0):
        batch = _batch_statistics(c)
        momentum = c.attr("momentum", 0.9)
        running = (_moved(c, mean, batch[0], momentum), _moved(c, variance, batch[1], momentum))
        mean, variance = batch
    elif any(c.wants(i) for i in range(1, 5)):
        raise Unsupported("its running mean and variance are read, outside training mode")
    deviation = c.add("sqrt", c.add("add", variance, c.scalar(c.attr("epsilon", 1e-5), variance)))
    factor = c.add("div", scale, deviation)
    shift = c.add("sub", bias, c.add("mul", mean, factor))
    rank = c.type(0).rank
    shape = (c.type(scale).size,) + (1,) * (rank - 2)
    name = c.type(0).dtype.name
    factor, shift = (c.cast(c.reshape(v, shape), name) for v in (factor, shift))
    return c.add("add", c.add("mul", c[0], factor), shift), *running


def _batch_statistics(c: Call) -> tuple[str, str]:
    """Return the mean and variance of each channel of operand 0, in the type of the running ones."""
    axes = tuple(i for i in range(c.type(0).rank) if i != 1)
    x = c.cast(c[0], c.type(3).dtype.name)
    mean = c.add("reduce_mean", x, axes=axes, keepdims=True)
    centred = c.add("sub", x, mean)
    variance = c.add("reduce_mean", c.add("mul", centred, centred), axes=axes, keepdims=False)
    return c.reshape(mean, c.type(variance).shape), variance


def _moved(c: Call, old: str, new: str, momentum: float) -> str:
    kept = c.add("mul", old, c.scalar(momentum, old))
    return c.add("add", kept, c.add("mul", new, c.scalar(1 - momentum, new)))


@onnx("InstanceNormalization")
def _instance_normalization(c: Call) -> str:
    shape = c.type(0).shape
    axes = tuple(range(2, len(shape)))
    centred = c.add("sub", c[0], c.add("reduce_mean", c[0], axes=axes, keepdims=True))
    variance = c.add("reduce_mean", c.add("mul", centred, centred), axes=axes, keepdims=True)
    scale = c.add("rsqrt", c.add("add", variance, c.scalar(c.attr("epsilon", 1e-5), variance)))
    weight, bias = (c.reshape(c[i], (shape[1], *(1 for _ in axes))) for i in (1, 2))
    return c.add("add", c.add("mul", c.add("mul", centred, scale), weight), bias)


@onnx("LpNormalization")
def _lp_normalization(c: Call) -> str:
    axis, order = c.axis(-1), c.attr("p", 2)
    powers = c.add("abs", c[0]) if order == 1 else c.add("mul", c[0], c[0])
    total = c.add("reduce_sum", powers, axes=(axis,), keepdims=True)
    size = total if order == 1 else c.add("sqrt", total)
    none = c.add("equal", size, c.scalar(0, size))  # what is all 0 stays 0
    return c.add("div", c[0], c.add("where", none, c.scalar(1, size), size))


@onnx("com.microsoft::EmbedLayerNormalization")
def _embed_layer(c: Call) -> tuple[str, str, str]:
    """Return the norm of the sum of word, position and segment embeddings, the masks' lengths, the sum."""
    batch, length = c.type(0).shape
    bounded(batch)
    lengths = c.constant(np.zeros(batch, np.int32))
    if c.has(7):
        lengths = c.add("reduce_sum", c[7], axes=(1,), keepdims=False)
    total = c.add("gather", c[2], c[0], axis=0)
    places = c.optional(8) or c.constant(counted(length).reshape(1, -1))
    total = c.add("add", total, c.add("gather", c[3], places, axis=0))
    if c.has(1) and c.has(4):
        total = c.add("add", total, c.add("gather", c[4], c[1], axis=0))
    return c.add("layernorm", total, c[5], c[6], epsilon=c.attr("epsilon", 1e-12)), lengths, total


@splits("rmsnorm", "layernorm")
def _split(query: Query) -> NodeSplit:
    return by_rows(query, [query.node.type.rank - 1])


@gradient("rmsnorm", "layernorm")
def _back(b: Back) -> tuple[str, ...]:
    """Of y = n w + b, n = x r: r (h - n mean(h n)), h = g w, less r mean(h) where n is centred."""
    g, x, last = b.wide(b.grad), b.wide(b[0]), (b.type(0).rank - 1,)
    centred = b.node.op == "layernorm"

    def mean(value: str) -> str:
        return b.add("reduce_mean", value, axes=last, keepdims=True)

    x = b.add("sub", x, mean(x)) if centred else x
    variance = mean(b.times(x, x))
    epsilon = number(b.node.attrs, "epsilon", 0.0)
    r = b.add("rsqrt", b.add("add", variance, b.scalar(epsilon, variance)))
    n = b.times(x, r)
    given = ""
    if b.wants(0):
        h = b.times(g, b.wide(b[1]))
        inner = b.add("sub", h, b.times(n, mean(b.times(h, n))))
        given = b.cast(b.times(b.add("sub", inner, mean(h)) if centred else inner, r), b.type(0))
    return given, b.times(g, n) if b.wants(1) else "", g if b.wants(2) else ""
