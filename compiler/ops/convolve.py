"""Convolution and pooling as slices: one of the operand for each place of the kernel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from mtia_emu.errors import UserError

from .spelling import Call, Unsupported, onnx

PLACES = 4096  # places of a kernel; each is a slice


@dataclass(frozen=True)
class Window:
    """How a kernel slides over the spatial axes: sizes, steps and padding, a value per axis.

    `after` is what the last position needs; `declared` what the node states, less where it rounds up.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    out: tuple[int, ...]
    declared: tuple[int, ...]


def window(c: Call, kernel: Sequence[int]) -> Window:
    """Return the window of operand 0 that the node's attributes describe."""
    size = c.type(0).shape[2:]
    axes = range(len(size))
    strides = tuple(c.attr("strides", ())) or (1,) * len(size)
    dilations = tuple(c.attr("dilations", ())) or (1,) * len(size)
    if len(kernel) != len(size) or len(strides) != len(size) or len(dilations) != len(size):
        raise UserError(f"{c.op}: kernel {list(kernel)}, strides and dilations do not fit {c.type(0)}")
    if min(*strides, *dilations, *kernel) < 1 or math.prod(kernel) > PLACES:
        raise UserError(
            f"{c.op}: kernel {list(kernel)}, strides {list(strides)}, dilations {list(dilations)}"
        )
    span = [(kernel[a] - 1) * dilations[a] + 1 for a in axes]
    before, after = _pads(c, size, span, strides)
    declared = tuple(after)
    room = [size[a] + before[a] + after[a] - span[a] for a in axes]
    if c.attr("ceil_mode", 0):
        out = [_ceil_out(room[a], strides[a], size[a] + before[a]) for a in axes]
        after = [max(after[a], (out[a] - 1) * strides[a] + span[a] - size[a] - before[a]) for a in axes]
    else:
        out = [r // strides[a] + 1 for a, r in enumerate(room)]
    if min(out) < 1:
        raise UserError(f"{c.op}: kernel {list(kernel)} is larger than {c.type(0)} with its padding")
    return Window(tuple(kernel), strides, dilations, tuple(before), tuple(after), tuple(out), declared)


def _ceil_out(room: int, stride: int, limit: int) -> int:
    """Return the positions of a window that may hang over the end, none starting in the padding there."""
    out = -(-room // stride) + 1
    return out - 1 if (out - 1) * stride >= limit else out


def _pads(
    c: Call, size: tuple[int, ...], span: list[int], strides: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    rank, mode = len(size), c.attr("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = list(c.attr("pads", ())) or [0] * (2 * rank)
        if len(pads) != 2 * rank or min(pads) < 0:
            raise UserError(f"{c.op}: pads {pads} are not two sizes for each of {rank} axes")
        return pads[:rank], pads[rank:]
    if mode == "VALID":
        return [0] * rank, [0] * rank
    total = [max((-(-n // s) - 1) * s + w - n, 0) for n, s, w in zip(size, strides, span, strict=True)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def places(c: Call, x: str, w: Window, fill: float) -> list[str]:
    """Return what each place of the kernel, in order, sees of x[n,c,..] at each position: [n,c,*out]."""
    lead = c.type(x).shape[:2]
    if any(w.before) or any(w.after):
        x = c.add("pad", x, pads=(0, 0, *w.before, 0, 0, *w.after), value=fill)
    seen = []
    for place in itertools.product(*(range(k) for k in w.kernel)):
        start = [p * d for p, d in zip(place, w.dilations, strict=True)]
        end = [s + (o - 1) * t + 1 for s, o, t in zip(start, w.out, w.strides, strict=True)]
        seen.append(c.add("slice", x, starts=(0, 0, *start), ends=(*lead, *end), steps=(1, 1, *w.strides)))
    return seen


@onnx("Conv")
def _conv(c: Call) -> str:
    x, weight, groups = c.type(0), c.type(1), c.attr("group", 1)
    if x.rank < 3 or weight.rank != x.rank or groups < 1 or x.shape[1] != weight.shape[1] * groups:
        raise UserError(f"Conv of {x} by {weight} in {groups} groups")
    if weight.shape[0] % groups:
        raise UserError(f"Conv: {weight.shape[0]} channels do not split into {groups} groups")
    w = window(c, weight.shape[2:])
    n, outputs, inner, spots = x.shape[0], weight.shape[0], weight.shape[1], math.prod(w.out)
    columns = [c.reshape(v, (n, groups, inner, 1, spots)) for v in places(c, c[0], w, 0.0)]
    taps = len(columns)
    matrix = c.reshape(c.add("concat", *columns, axis=3), (n, groups, inner * taps, spots))
    kernel = c.reshape(c[1], (1, groups, outputs // groups, inner * taps))
    bias = c.reshape(c[2], (1, groups, outputs // groups, 1)) if c.has(2) else ""
    if groups == 1:
        matrix = c.reshape(matrix, (n, inner * taps, spots))
        kernel = c.reshape(kernel, (outputs, inner * taps))
        bias = c.reshape(bias, (outputs, 1)) if bias else ""
    return c.reshape(c.add("matmul", kernel, matrix, bias), (n, outputs, *w.out))


@onnx("MaxPool")
def _max_pool(c: Call) -> str:
    if c.wants(1):
        raise Unsupported("its indices are read")
    kind = c.type(0).dtype
    least = float(ml_dtypes.finfo(kind.numpy).min) if kind.is_float else int(np.iinfo(kind.numpy).min)
    seen = places(c, c[0], window(c, c.attr("kernel_shape", ())), least)
    result = seen[0]
    for value in seen[1:]:
        result = c.add("max", result, value)
    return result


@onnx("AveragePool")
def _average_pool(c: Call) -> str:
    w = window(c, c.attr("kernel_shape", ()))
    seen = places(c, c[0], w, 0.0)
    total = seen[0]
    for value in seen[1:]:
        total = c.add("add", total, value)
    return c.add("div", total, c.builder.constant(_counts(c, w), c.type(0).dtype.numpy))


def _counts(c: Call, w: Window) -> np.ndarray:
    """Return how many elements each position averages: padding counts only where the node says so."""
    size, counts = c.type(0).shape[2:], np.ones((), np.int64)
    for axis, n in enumerate(size):
        first, last = 0, n
        if c.attr("count_include_pad", 0):
            first, last = -w.before[axis], n + w.declared[axis]
        start = np.arange(w.out[axis]) * w.strides[axis] - w.before[axis]
        spots = start[:, None] + np.arange(w.kernel[axis]) * w.dilations[axis]
        inside = ((spots >= first) & (spots < last)).sum(axis=1)
        counts = counts[..., None] * inside
    return counts
