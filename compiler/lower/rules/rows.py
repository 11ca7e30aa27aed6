"""How work on whole rows is scheduled: reductions, softmax, norms, rotary embeddings."""

from __future__ import annotations

import math

from mtia_emu.kernels.rows.tape import Tape, TapeBuilder
from mtia_emu.kernels.rows.top import TopKernel

from mtia_emu.types import BOOL, FP32, FP64, DType

from ...graph import Node
from ...ops.base import integer, integers, number
from ...ops.quantise_rows import kind_of, rows_tape
from ..steps import Schedule
from ..views import View, packed
from .row_parts import column, fold_rows, foldable

FEW, APART = 8, 32  # elements of a sum, and those beside each: fewer are moved to the end of their row


def reduction(schedule: Schedule, node: Node) -> list[View]:
    """Fold rows: the reduced axes, moved to the end, must lie as one; else the operand is packed so first."""
    (x,), kind = schedule.operands(node), node.type.dtype
    axes = integers(node.attrs, "axes")
    cols = math.prod(x.shape[a] for a in axes)
    integer_mean = node.op == "reduce_mean" and not kind.is_float  # rounds as integers do
    if not axes or cols == 0 or kind == BOOL or integer_mean:
        return schedule.on_core(node)
    keep = [i for i in range(len(x.shape)) if i not in axes]
    shape = (*(x.shape[i] for i in keep), cols)
    tape = _fold(node.op.removeprefix("reduce_"), cols, kind)
    if not foldable([x.dtype], [kind]):
        return schedule.on_core(node)
    if kind.is_float and node.op == "reduce_sum" and _few_apart(x, axes):
        return _add_up(schedule, node, x, axes[0])
    moved = x.transpose([*keep, *axes])
    rows = moved.reshape(shape) or schedule.packed(node, moved).reshape(shape)
    assert rows is not None  # packed elements have any shape
    out = schedule.result(node)
    fold_rows(schedule, node, [rows], [column(out, shape)], tape)
    return [out]


def _few_apart(x: View, axes: tuple[int, ...]) -> bool:
    """Return whether a sum is of few elements that lie far apart, each beside many of other sums."""
    inner = math.prod(x.shape[axes[0] + 1 :])
    return len(axes) == 1 and 1 < x.shape[axes[0]] <= FEW and inner >= APART


def _add_up(schedule: Schedule, node: Node, x: View, axis: int) -> list[View]:
    """Add the slices of an axis, element by element: each is read in long runs."""
    shape, ones = (*x.shape[:axis], 1, *x.shape[axis + 1 :]), [1] * len(x.shape)
    parts = [
        x.slice([i if a == axis else 0 for a in range(len(shape))], shape, ones) for i in range(x.shape[axis])
    ]
    b = TapeBuilder(len(parts))
    total: int = 0
    for i in range(1, len(parts)):
        total = b.call("add", total, i)
    out = schedule.result(node)
    schedule.step(
        node, "map", parts, [View(out.buffer, out.dtype, shape, packed(shape))], tape=str(b.done(total))
    )
    return [out]


def first_elements(schedule: Schedule, node: Node) -> list[View]:
    """Take the first elements of rows, packed where the axis is not the last; too long ones on a core."""
    (x,), axis, k = schedule.operands(node), integer(node.attrs, "axis"), integer(node.attrs, "k")
    if not k or x.dtype == BOOL or not TopKernel.fits(schedule.chip, x.shape[axis], k, x.dtype.bytes):
        return schedule.on_core(node)
    order = [*(i for i in range(len(x.shape)) if i != axis), axis]
    rows = x if axis == len(x.shape) - 1 else schedule.packed(node, x.transpose(order))
    results = [schedule.result(node, i) for i in range(2)]
    largest, nan_least = bool(node.attrs.get("largest", True)), bool(node.attrs.get("nan_least", False))
    taken = [view.transpose(order) for view in results]
    schedule.step(node, "top", [rows], taken, largest=largest, nan_least=nan_least)
    return results


def _fold(kind: str, cols: int, to: DType) -> Tape:
    wide = FP32 if to.is_float else to
    b = TapeBuilder(1)
    total = b.call("fold_sum" if kind == "mean" else f"fold_{kind}", 0, to=wide)
    if kind == "mean":
        exact = cols & (cols - 1) == 0  # a power of two
        total = (
            b.call("mul", total, 1.0 / cols, to=wide) if exact else b.call("div", total, float(cols), to=wide)
        )
    return b.done(total)


def softmax_tape(guarded: bool = False) -> Tape:
    """Return the softmax of rows; `guarded` rows of -inf alone give 0 instead of NaN."""
    b = TapeBuilder(1)
    powers = b.call("exp", b.call("sub", 0, b.call("fold_max", 0)))
    weights = b.call("mul", powers, b.call("reciprocal", b.call("fold_sum", powers)))
    return b.done(b.call("where", b.call("isnan", weights), 0.0, weights) if guarded else weights)


def _log_softmax_tape() -> Tape:
    b = TapeBuilder(1)
    shifted = b.call("sub", 0, b.call("fold_max", 0))
    return b.done(b.call("sub", shifted, b.call("log", b.call("fold_sum", b.call("exp", shifted)))))


def softmax(schedule: Schedule, node: Node) -> list[View]:
    """Fold rows of the axis, which is moved to the end, for the largest element and for the sum of powers."""
    x = schedule.operands(node)[0].last(integer(node.attrs, "axis"))
    tape = softmax_tape() if node.op == "softmax" else _log_softmax_tape()
    if not foldable([x.dtype], [node.type.dtype]):
        return schedule.on_core(node)
    out = schedule.result(node)
    fold_rows(schedule, node, [x], [out.last(integer(node.attrs, "axis"))], tape)
    return [out]


def quantise_rows(schedule: Schedule, node: Node) -> list[View]:
    """Fold rows for their largest magnitude, which scales them."""
    (x,), tape = schedule.operands(node), rows_tape(kind_of(node.attrs))
    if not foldable([x.dtype], [t.dtype for t in node.types]):
        return schedule.on_core(node)
    out, scale = schedule.result(node), schedule.result(node, 1)
    fold_rows(schedule, node, [x], [out, column(scale, x.shape)], tape)
    return [out, scale]


def norm(schedule: Schedule, node: Node) -> list[View]:
    """Fold rows for the mean of squares, after that of the values for layernorm; then weight and bias."""
    x, *edges = schedule.operands(node)
    b = TapeBuilder(1 + len(edges))
    n, centred = x.shape[-1], 0
    if node.op == "layernorm":
        centred = b.call("sub", 0, b.call("mul", b.call("fold_sum", 0), 1.0 / n))
    square = b.call("mul", b.call("fold_sum", b.call("mul", centred, centred)), 1.0 / n)
    root = b.call("rsqrt", b.call("add", square, float(number(node.attrs, "epsilon", 0.0))))
    result = b.call("mul", b.call("mul", centred, root), 1)
    tape = b.done(b.call("add", result, 2) if len(edges) > 1 else result)
    inputs = [x, *(e.expand(x.shape) for e in edges)]
    if not foldable([x.dtype for x in inputs], [node.type.dtype]):
        return schedule.on_core(node)
    out = schedule.result(node)
    fold_rows(schedule, node, inputs, [out], tape)
    return [out]


def rotary(schedule: Schedule, node: Node) -> list[View]:
    """Schedule y1 = x1 cos1 - x2 sin1, y2 = x2 cos2 + x1 sin2 over the halves of each row."""
    x, cos, sin = schedule.operands(node)
    if x.dtype == FP64:
        return schedule.on_core(node)
    shape = (*x.shape[:-1], x.shape[-1] // 2)
    starts, ones = ([0] * len(shape), [0] * len(x.shape[:-1]) + [shape[-1]]), [1] * len(shape)

    def halves(view: View) -> list[View]:
        return [view.expand(x.shape).slice(start, shape, ones) for start in starts]

    b = TapeBuilder(6)
    first = b.call("sub", b.call("mul", 0, 2), b.call("mul", 1, 4))
    second = b.call("add", b.call("mul", 1, 3), b.call("mul", 0, 5))
    out = schedule.result(node)
    inputs = [*halves(x), *halves(cos), *halves(sin)]
    schedule.step(node, "rotary", inputs, halves(out), tape=str(b.done(first, second)))
    return [out]
