"""How convolutions are scheduled: a product whose left rows are windows, read where they lie.

The channels of what a convolution reads and writes lie last in memory, so that a window is a few long runs.
Padding is memory around the operand; whoever makes the operand may write it there at once
(`elide`). An operand too large to count on a place in SRAM is brought there part by part, so that what its
windows read several times comes from DRAM once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mtia_emu.kernels.rows.tape import Source, Tape, TapeStep, inline, parse

from mtia_emu.types import FP32, DType, TensorType

from ...graph import Node
from ...ops.base import number
from ...ops.conv import ConvShape, conv_shape
from ..steps import Schedule
from ..views import View, channels_last

PART_SHARE = 8  # an operand of one part in so many of SRAM is read whole
MOST_EXACT = 1 << 8  # products of two bytes that fp32 sums exactly
LONG = 1024  # rows of a depthwise result from which a copy of its weights in SRAM pays
MOST_TAPS = 12  # that one kernel call sums: each has an operand and a weight in local memory


@dataclass(frozen=True)
class _Part:
    """Some images of a batch, and some positions of the result along its first spatial axis."""

    image: int
    images: int
    row: int
    rows: int

    def of(self, view: View) -> View:
        """Return this part of a result, or of what is as large, [n,*out,c]; what is broadcast stays whole."""
        starts, shape = [self.image, self.row], [self.images, self.rows]
        starts += [0] * (len(view.shape) - 2)
        return view.slice(starts, (*shape, *view.shape[2:]), [1] * len(view.shape))


def conv(schedule: Schedule, node: Node) -> list[View]:
    """Schedule a convolution and the tape on its result."""
    x, weight, *_ = schedule.operands(node)
    s = conv_shape(x.type, weight.type, node.attrs)
    exact = x.dtype.is_float or not s.depthwise or s.taps <= MOST_EXACT
    if 0 in x.shape or 0 in weight.shape or not exact:
        return schedule.on_core(node)
    tape, left = inline(parse(str(node.attrs["tape"])), schedule.numbers(node.inputs[2:], 1))
    extras = [schedule.values[node.inputs[i + 1]] for i in left if i > 0]
    out = schedule.result_channels_last(node)
    edges = [channels_last(v.expand(node.type.shape)) for v in extras]
    rule = _by_taps if s.depthwise else _product
    weight = _matrix(schedule, node, weight, s)
    for part in _parts(schedule, x, s):
        seen = _seen(schedule, node, channels_last(x), s, part)
        rule(
            schedule,
            _Call(node, s, seen, weight, tape),
            part.of(channels_last(out)),
            [part.of(e) for e in edges],
        )
    return [out]


@dataclass(frozen=True)
class _Call:
    """What all parts of a convolution share, and the padded operand of one, [n,*size,c]."""

    node: Node
    sizes: ConvShape
    seen: View
    weight: View
    tape: Tape


def _parts(schedule: Schedule, x: View, s: ConvShape) -> Iterator[_Part]:
    """Return the parts by which the operand is read: one where it is small, or read once as it lies."""
    room = schedule.chip.sram.bytes // PART_SHARE
    padded = (n + b + a for n, b, a in zip(s.size, s.before, s.after, strict=True))
    image = math.prod(padded) * s.groups * s.inner * x.dtype.bytes
    images, rows = s.batch, s.out[0]
    if s.batch * image > room and not _direct(schedule, channels_last(x), s):
        images = max(1, room // image)
        rows = max(1, min(rows, rows * room // image))
    for first in range(0, s.batch, images):
        for row in range(0, s.out[0], rows):
            yield _Part(first, min(images, s.batch - first), row, min(rows, s.out[0] - row))


def _direct(schedule: Schedule, x: View, s: ConvShape) -> bool:
    """Return whether windows are read where the operand lies: once only, or from what is small enough."""
    if any(s.before) or any(s.after) or (x.strides[-1] != 1 and x.shape[-1] > 1):
        return False
    small = (
        schedule.buffers[x.buffer].role == "temp" and x.type.bytes <= schedule.chip.sram.bytes // PART_SHARE
    )
    return s.taps == 1 or small


def _seen(schedule: Schedule, node: Node, x: View, s: ConvShape, part: _Part) -> View:
    """Return what the windows of a part cover, [n,*size,c], with its padding."""
    first, count = [part.row, *(0 for _ in s.out[1:])], [part.rows, *s.out[1:]]
    low = [f * t - b for f, t, b in zip(first, s.strides, s.before, strict=True)]
    span = [(k - 1) * d + 1 for k, d in zip(s.kernel, s.dilations, strict=True)]
    high = [a + (n - 1) * t + w for a, n, t, w in zip(low, count, s.strides, span, strict=True)]
    start = [max(a, 0) for a in low]
    size = [max(min(b, n) - a, 0) for a, b, n in zip(start, high, s.size, strict=True)]
    ones = [1] * len(x.shape)
    inner = x.slice((part.image, *start, 0), (part.images, *size, x.shape[-1]), ones)
    if _direct(schedule, x, s):
        return inner
    shape = (part.images, *(b - a for a, b in zip(low, high, strict=True)), x.shape[-1])
    padded = schedule.buffer(f"{node.name}.padded", TensorType(x.dtype, shape))
    schedule.reread.add(padded.buffer)
    if 0 in size:
        _fill(schedule, node, padded)
        return padded
    before = [a - b for a, b in zip(start, low, strict=True)]
    _fill_borders(schedule, node, padded, before, size)
    schedule.step(node, "copy", [inner], [padded.slice((0, *before, 0), inner.shape, ones)])
    return padded


def _fill_borders(schedule: Schedule, node: Node, padded: View, before: list[int], size: list[int]) -> None:
    """Write the padding around the middle of [n,*,c], which begins `before` and has `size`.

    Where an axis is padded alike on both sides, both are one view.
    """
    for axis, (first, n) in enumerate(zip(before, size, strict=True), 1):
        last = padded.shape[axis] - first - n
        sides = [(0, first), (first + n, last)]
        if first == last and first:
            border = _cut(padded, axis, 0, first)
            step = (first + n) * padded.strides[axis]
            twice = replace(border, shape=(2, *border.shape), strides=(step, *border.strides))
            _fill(schedule, node, twice)
            continue
        for at, count in sides:
            if count:
                _fill(schedule, node, _cut(padded, axis, at, count))


def _cut(view: View, axis: int, start: int, count: int) -> View:
    """Return some of a view along one axis."""
    starts = [start if i == axis else 0 for i in range(len(view.shape))]
    shape = [count if i == axis else n for i, n in enumerate(view.shape)]
    return view.slice(starts, shape, [1] * len(shape))


def _fill(schedule: Schedule, node: Node, target: View) -> None:
    value = float(number(node.attrs, "fill", 0.0))
    tape = Tape(0, (TapeStep("copy", (value,), target.dtype),), (~0,))
    schedule.step(node, "map", [], [target], tape=str(tape))


def _matrix(schedule: Schedule, node: Node, weight: View, s: ConvShape) -> View:
    """Return weights [o,i,*kernel] as [g,taps*i,o/g], without g where there is one group.

    Those of a depthwise convolution are [taps,c]. A copy is made where no view is that.
    """
    rank = len(s.kernel)
    grouped = weight.reshape((s.groups, s.outer, s.inner, *s.kernel))
    assert grouped is not None  # an axis is split
    turned = grouped.transpose([0, *range(3, 3 + rank), 2, 1])
    shape: tuple[int, ...] = (s.groups, s.inner * s.taps, s.outer)
    if s.depthwise:
        turned, shape = grouped.transpose([*range(3, 3 + rank), 0, 1, 2]), (s.taps, s.groups)
    elif s.groups == 1:
        shape = shape[1:]
    matrix = turned.reshape(shape) or schedule.packed(node, turned).reshape(shape)
    assert matrix is not None
    if s.depthwise and s.rows >= LONG and schedule.buffers[matrix.buffer].role == "const":
        near = schedule.buffer(f"{node.name}.taps", matrix.type)  # each tile of the result reads it
        schedule.step(node, "copy", [matrix], [near])
        return near
    return matrix


def _product(schedule: Schedule, call: _Call, out: View, edges: list[View]) -> None:
    """Schedule windows by weights: a row a position, a batch a group."""
    s, seen = call.sizes, call.seen
    rank, at = len(s.kernel), seen.strides
    down = [(n, t * a) for n, t, a in zip(out.shape[1:-1], s.strides, at[1:-1], strict=True)]
    right = [(k, d * a) for k, d, a in zip(s.kernel, s.dilations, at[1:-1], strict=True)]
    right = _joined([*right, (s.inner, at[-1])])
    dims = [(out.shape[0], at[0]), *down, *right]
    if s.groups > 1:
        dims.insert(0, (s.groups, s.inner * at[-1]))
        out, edges = _by_group(out, s, rank), [_by_group(e, s, rank) for e in edges]
    windows = replace(seen, shape=tuple(n for n, _ in dims), strides=tuple(t for _, t in dims))
    rows = out.shape[0] * math.prod(out.shape[1:-1]) // s.groups
    inputs = [windows, call.weight, *(_edge(schedule, call.node, e) for e in edges)]
    params = {"batch": s.groups, "m": rows, "k": s.inner * s.taps, "n": s.outer, "across": len(right)}
    text = str(call.tape) if call.tape.steps else ""
    schedule.step(call.node, "matmul", inputs, [out], **params, epilogue=text)


def _joined(dims: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (size, stride) of the fewest dimensions that step as these do, at least one."""
    joined: list[tuple[int, int]] = []
    for size, stride in dims:
        if size == 1:
            continue
        if joined and joined[-1][1] == size * stride:
            joined[-1] = (joined[-1][0] * size, stride)
        else:
            joined.append((size, stride))
    return joined or [(1, 1)]


def _by_group(view: View, s: ConvShape, rank: int) -> View:
    """Return [n,*out,o] as [g,n,*out,o/g]."""
    split = view.reshape((*view.shape[:-1], s.groups, s.outer))
    assert split is not None  # an axis is split
    return split.transpose([rank + 1, *range(rank + 1), rank + 2])


def _edge(schedule: Schedule, node: Node, full: View) -> View:
    """Return an operand of the tape as one row [1, n], one column [rows, 1], or as it is."""
    n = full.shape[-1]
    if all(t == 0 or d == 1 for t, d in zip(full.strides[:-1], full.shape[:-1], strict=True)):
        return View(full.buffer, full.dtype, (1, n), (0, full.strides[-1]), full.offset)
    if full.strides[-1] == 0 and n > 1:
        rows = math.prod(full.shape[:-1])
        column = _cut(full, len(full.shape) - 1, 0, 1)
        flat = column.reshape((rows, 1)) or schedule.packed(node, column).reshape((rows, 1))
        assert flat is not None
        return flat
    return full


def _by_taps(schedule: Schedule, call: _Call, out: View, edges: list[View]) -> None:
    """Schedule a depthwise convolution: the operand as each tap sees it, times its weight, summed in fp32."""
    s, seen, total = call.sizes, call.seen, list[View]()
    places = list(itertools.product(*(range(k) for k in s.kernel)))
    steps = (1, *s.strides, 1)
    for first in range(0, s.taps, MOST_TAPS):
        taps = range(first, min(first + MOST_TAPS, s.taps))
        starts = [(0, *(p * d for p, d in zip(places[t], s.dilations, strict=True)), 0) for t in taps]
        shown = [seen.slice(start, out.shape, steps) for start in starts]
        weights = [_cut(call.weight, 0, t, 1).reshape((s.groups,)) for t in taps]
        inputs = [*total, *shown, *(w.expand(out.shape) for w in weights if w is not None)]
        if taps[-1] + 1 < s.taps:
            total = [schedule.buffer(f"{call.node.name}.sum", TensorType(FP32, out.shape))]
            tape = _weighted(len(taps), bool(first), seen.dtype)
            schedule.step(call.node, "map", inputs, total, tape=str(tape))
            continue
        tape = followed(_weighted(len(taps), bool(first), seen.dtype), call.tape, out.dtype)
        schedule.step(call.node, "map", [*inputs, *edges], [out], tape=str(tape))


def _weighted(taps: int, more: bool, kind: DType) -> Tape:
    """Return the sum of `taps` inputs times as many weights, and of a first input where there is `more`.

    Weights of bytes become fp32 first: the engine multiplies bytes as bytes.
    """
    steps: list[TapeStep] = []
    total: Source | None = 0 if more else None
    for tap in range(taps):
        weight = more + taps + tap
        if not kind.is_float:
            steps.append(TapeStep("copy", (weight,), FP32))
            weight = ~(len(steps) - 1)
        steps.append(TapeStep("mul", (more + tap, weight), FP32))
        product = ~(len(steps) - 1)
        if total is not None:
            steps.append(TapeStep("add", (total, product), FP32))
        total = ~(len(steps) - 1)
    return Tape(more + 2 * taps, tuple(steps), (~(len(steps) - 1),))


def followed(before: Tape, after: Tape, kind: DType) -> Tape:
    """Return a tape and then another on its result, whose other inputs come behind the first one's."""
    if not after.steps:
        return Tape(
            before.inputs, (*before.steps, TapeStep("copy", before.results, kind)), (~len(before.steps),)
        )
    (result,), shift = before.results, len(before.steps)

    def moved(source: Source) -> Source:
        if isinstance(source, float):
            return source
        if source < 0:
            return source - shift
        return result if source == 0 else before.inputs + source - 1

    steps = (*before.steps, *(replace(s, sources=tuple(map(moved, s.sources))) for s in after.steps))
    return Tape(before.inputs + after.inputs - 1, steps, tuple(map(moved, after.results)))
