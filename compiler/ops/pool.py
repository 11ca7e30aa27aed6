"""Pooling as slices, one for each place of the kernel; and what inverts it."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import DType

from .convolve import Window, places, window
from .spelling import Call, bounded, onnx


def lowest(kind: DType) -> float:
    """Return the least number of a type."""
    return float(ml_dtypes.finfo(kind.numpy).min) if kind.is_float else int(np.iinfo(kind.numpy).min)


def chain(c: Call, op: str, values: list[str]) -> str:
    """Return values joined by an op of two operands."""
    result = values[0]
    for value in values[1:]:
        result = c.add(op, result, value)
    return result


@onnx("MaxPool")
def _max_pool(c: Call) -> tuple[str, str]:
    w = window(c, c.attr("kernel_shape", ()))
    seen = places(c, c[0], w, lowest(c.type(0).dtype))
    if not c.wants(1):
        return chain(c, "max", seen), ""
    shape = c.type(seen[0]).shape
    rows = c.add("concat", *(c.reshape(v, (1, *shape)) for v in seen), axis=0)
    largest, place = (
        c.reshape(v, shape) for v in c.builder.adds("topk", rows, hint=c.hint, axis=0, k=1, largest=True)
    )
    return largest, _spot_of(c, w, place)


def _spot_of(c: Call, w: Window, place: str) -> str:
    """Return the index in the flattened operand of the place of the kernel [n,c,*out] at each position."""
    lead, size = c.type(0).shape[:2], c.type(0).shape[2:]
    order = range(len(size)) if c.attr("storage_order", 0) else reversed(range(len(size)))
    strides, step = [0] * len(size), 1
    for axis in order:
        strides[axis], step = step, step * size[axis]
    bounded(math.prod((*lead, *w.out)))
    taps = np.indices(w.kernel).reshape(len(size), -1)
    moves = sum(taps[a] * w.dilations[a] * strides[a] for a in range(len(size)))
    spots = np.indices(w.out)
    origin = sum((spots[a] * w.strides[a] - w.before[a]) * strides[a] for a in range(len(size)))
    planes = np.arange(math.prod(lead)).reshape(*lead, *(1 for _ in size)) * step
    moved = c.add("gather", c.constant(np.asarray(moves, np.int64)), place, axis=0)
    return c.add("add", moved, c.constant((planes + origin).astype(np.int64)))


@onnx("MaxUnpool")
def _max_unpool(c: Call) -> str:
    kind = c.type(0)
    rank = kind.rank - 2
    strides = c.attr("strides", ()) or (1,) * rank
    pads = c.attr("pads", ()) or (0,) * (2 * rank)
    inner = [
        (s - 1) * t + k - pads[i] - pads[i + rank]
        for i, (s, t, k) in enumerate(zip(kind.shape[2:], strides, c.attr("kernel_shape", ()), strict=True))
    ]
    natural = (*kind.shape[:2], *inner)
    shape = c.integers(2, "output_shape") if c.has(2) else natural
    flat = c.add("expand", c.scalar(0, c[0]), shape=(math.prod(shape),))
    return c.reshape(c.add("scatter_elements", flat, *_places_of(c, natural, shape), axis=0), shape)


def _places_of(c: Call, natural: tuple[int, ...], shape: tuple[int, ...]) -> tuple[str, str]:
    """Return the flat indices, which count in the natural shape, and the values put there."""
    size = c.type(0).size
    indices = c.reshape(c[1], (size,))
    if shape != natural:
        if len(shape) != len(natural) or any(s < n for s, n in zip(shape, natural, strict=True)):
            raise UserError(f"{c.op}: output_shape {list(shape)} is smaller than {list(natural)}")
        bounded(math.prod(shape))
        table = np.arange(math.prod(shape)).reshape(shape)[tuple(slice(0, n) for n in natural)]
        indices = c.add("gather", c.constant(table.reshape(-1)), indices, axis=0)
    return indices, c.reshape(c[0], (size,))


@onnx("AveragePool")
def _average_pool(c: Call) -> str:
    w = window(c, c.attr("kernel_shape", ()))
    total = chain(c, "add", places(c, c[0], w, 0.0))
    return c.add("div", total, c.builder.constant(_counts(c, w), c.type(0).dtype.numpy))


def _counts(c: Call, w: Window) -> np.ndarray:
    """Return how many elements each position averages, [out..]: padding counts where the node says so."""
    bounded(math.prod(w.out))
    size, counts = c.type(0).shape[2:], np.ones((), np.int64)
    for axis, n in enumerate(size):
        first, last = 0, n
        if c.attr("count_include_pad", 0):
            first, last = -w.before[axis], n + w.declared[axis]
        start = np.arange(w.out[axis]) * w.strides[axis] - w.before[axis]
        begin, end = (-(-(at - start) // w.dilations[axis]) for at in (first, last))  # of taps inside
        inside = end.clip(0, w.kernel[axis]) - begin.clip(0, w.kernel[axis])
        counts = counts[..., None] * inside
    return counts


def _power(c: Call, x: str, order: int) -> str:
    x = c.add("abs", x)
    return x if order == 1 else c.add("pow", x, c.scalar(order, x))


@onnx("LpPool", "GlobalLpPool")
def _lp_pool(c: Call) -> str:
    order = int(c.attr("p", 2))
    powers = _power(c, c[0], order)
    if c.op == "LpPool":
        total = chain(c, "add", places(c, powers, window(c, c.attr("kernel_shape", ())), 0.0))
    else:
        total = c.add("reduce_sum", powers, axes=tuple(range(2, c.type(0).rank)), keepdims=True)
    return total if order == 1 else c.add("pow", total, c.scalar(1.0 / order, total))


@onnx("LRN")
def _lrn(c: Call) -> str:
    """Return x / (bias + alpha / size * (sum of squares over neighbouring channels)) ** beta."""
    kind, size = c.type(0), c.attr("size", 1)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    rest = [0] * (kind.rank - 2)
    squares = c.add("mul", c[0], c[0])
    padded = c.add("pad", squares, pads=(0, before, *rest, 0, after, *rest), value=0.0)
    ends = [(kind.shape[0], i + kind.shape[1], *kind.shape[2:]) for i in range(size)]
    cuts = [
        c.add("slice", padded, starts=(0, i, *rest), ends=end, steps=(1,) * kind.rank)
        for i, end in enumerate(ends)
    ]
    factor = c.scalar(c.attr("alpha", 1e-4) / size, c[0])
    scaled = c.add("add", c.add("mul", chain(c, "add", cuts), factor), c.scalar(c.attr("bias", 1.0), c[0]))
    return c.add("div", c[0], c.add("pow", scaled, c.scalar(c.attr("beta", 0.75), c[0])))
