"""How each op is scheduled: a view where one will do, else a kernel call; ops without a rule run on a core.

Rules may assume that at least one result has elements. Rules of rows are in `rows.py`, of products in
`products.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from ml_dtypes import finfo
from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.kernel import Kernel
from mtia_emu.kernels.rows.scatter import ScatterKernel
from mtia_emu.kernels.rows.tape import Tape, TapeStep, inline, parse

from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.types import BOOL, FP32, FP64, STORED

from ...graph import Node
from ...ops.base import integer, integers, number
from ...ops.maps import tape_of_maps
from ...user_kernels import user_rule
from ..steps import Schedule
from ..views import View, channels_last, packed
from .attention import attention
from .attention_back import attention_back
from .convolutions import conv
from .experts import expert_matmul, expert_matmul_packed
from .products import dequantise, matmul, matmul_map, matmul_packed
from .rows import first_elements, norm, quantise_rows, reduction, rotary, softmax
from .scan import scan
from .updates import update_rows

Rule = Callable[[Schedule, Node], list[View]]
WORTH_A_COPY = 1 << 18  # bytes of bursts from which a launch that copies a constant takes less time
OFTEN = 64  # rows from which indices that each of them reads are worth a copy in SRAM


def rule_of(op: str) -> Rule:
    """Return the rule of an op, a kernel's from outside first; ops without one run on a core."""
    rule: Rule = _function if op in FUNCTIONS else RULES.get(op, Schedule.on_core)
    for kernel in KERNELS.values():
        if kernel.op == op:
            rule = partial(_as_it_is, kernel, rule)
    return user_rule(op, rule)


def _as_it_is(kernel: Kernel, otherwise: Rule, schedule: Schedule, node: Node) -> list[View]:
    """Schedule a kernel that runs nodes of an op as they are, where it takes this one."""
    types = [schedule.values[v].type if v else None for v in node.inputs]
    if "" in node.inputs or not kernel.takes(types, node.attrs):
        return otherwise(schedule, node)
    views = schedule.operands(node)
    inputs = views if kernel.reads_views else [schedule.packed(node, view) for view in views]
    results = [schedule.result(node, i) for i in range(len(node.outputs))]
    schedule.step(node, kernel.name, inputs, results, **node.attrs)
    return results


def _at_hand(schedule: Schedule, node: Node, view: View, shape: tuple[int, ...]) -> View:
    """Return an operand of a map, or a copy in SRAM of a small constant that most rows read a part of.

    A constant along the last axis alone is read once anyway.
    """
    rows, full = math.prod(shape[:-1]), view.expand(shape).strides
    along = all(t == 0 or n == 1 for t, n in zip(full[:-1], shape[:-1], strict=True))
    const = schedule.buffers[view.buffer].role == "const" and view.type.size * OFTEN <= math.prod(shape)
    if not const or along or rows * schedule.chip.dram.burst_bytes < WORTH_A_COPY:
        return view
    near = schedule.buffer(f"{node.name}.near", view.type)
    schedule.step(node, "copy", [view], [near])
    return near


def _run_map(schedule: Schedule, node: Node, tape: Tape) -> list[View]:
    """Schedule an elementwise tape over the result's shape; constant numbers go into its commands."""
    inputs = schedule.operands(node)
    out = schedule.result_like(node, inputs)
    tape, left = inline(tape, schedule.numbers(node.inputs, 0))
    views = [*(_at_hand(schedule, node, inputs[i], out.shape).expand(out.shape) for i in left), out]
    if out.buffer in schedule.channels_last:
        views = [channels_last(v) for v in views]
    schedule.step(node, "map", views[:-1], views[-1:], tape=str(tape))
    return [out]


def _function(schedule: Schedule, node: Node) -> list[View]:
    if node.op == "copy":
        return schedule.operands(node)
    sources = tuple(range(len(node.inputs)))
    return _run_map(schedule, node, Tape(len(sources), (TapeStep(node.op, sources, node.type.dtype),), (~0,)))


def _map(schedule: Schedule, node: Node) -> list[View]:
    return _run_map(schedule, node, parse(str(node.attrs["tape"])))


def _maps(schedule: Schedule, node: Node) -> list[View]:
    """Schedule an elementwise tape that keeps several values, all of one shape."""
    inputs, results = schedule.operands(node), [schedule.result(node, i) for i in range(len(node.outputs))]
    tape, left = inline(tape_of_maps(node.attrs)[0], schedule.numbers(node.inputs, 0))
    shape = results[0].shape
    views = [_at_hand(schedule, node, inputs[i], shape).expand(shape) for i in left]
    schedule.step(node, "map", views, results, tape=str(tape))
    return results


def _cast(schedule: Schedule, node: Node) -> list[View]:
    """Convert elements; to a truth value by two negations, since any number but 0 is true."""
    (x,), kind = schedule.operands(node), node.type.dtype
    if x.dtype == kind:
        return [x]
    if kind == BOOL:
        return _run_map(
            schedule, node, Tape(1, (TapeStep("not", (0,), BOOL), TapeStep("not", (~0,), BOOL)), (~1,))
        )
    if kind.bits > 8 or not (kind.is_float or kind in STORED):
        return _run_map(schedule, node, Tape(1, (TapeStep("copy", (0,), kind),), (~0,)))
    if kind in STORED:  # the engine has no such lanes
        return schedule.on_core(node)
    steps: list[TapeStep] = []
    if node.attrs.get("saturate", True):
        top, wide = float(finfo(kind.numpy).max), FP64 if x.dtype == FP64 else FP32
        steps = [TapeStep("max", (0, -top), wide), TapeStep("min", (~0, top), wide)]
    steps.append(TapeStep("copy", (~1 if steps else 0,), kind))
    return _run_map(schedule, node, Tape(1, tuple(steps), (~(len(steps) - 1),)))


def _reshape(schedule: Schedule, node: Node) -> list[View]:
    (x,) = schedule.operands(node)
    view = x.reshape(node.type.shape) or schedule.packed(node, x).reshape(node.type.shape)
    assert view is not None
    return [view]


def _transpose(schedule: Schedule, node: Node) -> list[View]:
    (x,) = schedule.operands(node)
    return [x.transpose(integers(node.attrs, "perm"))]


def _expand(schedule: Schedule, node: Node) -> list[View]:
    (x,) = schedule.operands(node)
    return [x.expand(node.type.shape)]


def _slice(schedule: Schedule, node: Node) -> list[View]:
    (x,) = schedule.operands(node)
    starts, steps = integers(node.attrs, "starts"), integers(node.attrs, "steps")
    if any(s < 1 for s in steps):
        return schedule.on_core(node)
    begin = [min(max(a + n if a < 0 else a, 0), n) for a, n in zip(starts, x.shape, strict=True)]
    return [x.slice(begin, node.type.shape, steps)]


def _concat(schedule: Schedule, node: Node) -> list[View]:
    axis, at = integer(node.attrs, "axis"), 0
    first, *_ = operands = schedule.operands(node)
    lie_so = first.buffer in schedule.channels_last and len(first.shape) > 2
    out = schedule.result_channels_last(node) if lie_so else schedule.result(node)
    for x in operands:
        _place(schedule, node, x, out, [at if i == axis else 0 for i in range(len(x.shape))])
        at += x.shape[axis]
    return [out]


def _append(schedule: Schedule, node: Node) -> list[View]:
    """Copy what is new behind the first operand, where that is the state whose next value this is."""
    past, *new = schedule.operands(node)
    if schedule.graph.states.get(node.output) != node.inputs[0]:
        return _concat(schedule, node)
    out, axis = schedule.in_place[node.output], integer(node.attrs, "axis")
    at = past.shape[axis]
    for x in new:
        _place(schedule, node, x, out, [at if i == axis else 0 for i in range(len(x.shape))])
        at += x.shape[axis]
    return [out]


def _place(schedule: Schedule, node: Node, x: View, out: View, starts: list[int]) -> None:
    """Copy a view to where it stands within another."""
    if x.type.size:
        views = [x, out.slice(starts, x.shape, [1] * len(x.shape))]
        if out.buffer in schedule.channels_last:
            views = [channels_last(v) for v in views]
        schedule.step(node, "copy", views[:1], views[1:])


def _pad(schedule: Schedule, node: Node) -> list[View]:
    """Fill the result with the value, then copy the operand into it."""
    (x,) = schedule.operands(node)
    value = float(number(node.attrs, "value", 0.0))
    if float(np.float32(value)) != value and node.type.dtype != FP32 and node.type.dtype.bits >= FP32.bits:
        return schedule.on_core(node)  # a command's number is an fp32
    lie_so = x.buffer in schedule.channels_last and len(x.shape) > 2
    out = schedule.result_channels_last(node) if lie_so else schedule.result(node)
    tape = Tape(0, (TapeStep("copy", (value,), out.dtype),), (~0,))
    schedule.step(node, "map", [], [channels_last(out) if lie_so else out], tape=str(tape))
    _place(schedule, node, x, out, list(integers(node.attrs, "pads")[: len(x.shape)]))
    return [out]


def _tile(schedule: Schedule, node: Node) -> list[View]:
    """Copy once: each axis of the result is a pair, the repeat (stride 0 in the operand) and the axis."""
    (x,), out = schedule.operands(node), schedule.result(node)
    repeats = integers(node.attrs, "repeats")
    pairs = tuple(d for r, n in zip(repeats, x.shape, strict=True) for d in (r, n))
    strides = tuple(s for t in x.strides for s in (0, t))
    source = View(x.buffer, x.dtype, pairs, strides, x.offset)
    schedule.step(node, "copy", [source], [View(out.buffer, out.dtype, pairs, packed(pairs))])
    return [out]


def _gather(schedule: Schedule, node: Node) -> list[View]:
    x, indices = schedule.operands(node)
    axis = integer(node.attrs, "axis")
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    count = math.prod(indices.shape)
    if not x.shape[axis]:
        return schedule.on_core(node)
    table = schedule.packed(node, x).reshape((outer, x.shape[axis], inner))
    flat = schedule.packed(node, indices).reshape((1, count))
    if flat is not None and outer >= OFTEN and schedule.buffers[flat.buffer].role == "const":
        near = schedule.buffer(f"{node.name}.indices", flat.type)  # each outer row reads all of them
        schedule.step(node, "copy", [flat], [near])
        flat = near
    out = schedule.result(node)
    assert table is not None and flat is not None
    rows = View(out.buffer, out.dtype, (outer * count, inner), (inner, 1))
    schedule.step(node, "gather", [table, flat], [rows])
    return [out]


def _first_equal(schedule: Schedule, node: Node) -> list[View]:
    """Group indices on all PEs: `group` takes a row of them and gives a column of places."""
    (indices,) = schedule.operands(node)
    count, rows = math.prod(indices.shape), integer(node.attrs, "rows")
    out, flat = schedule.result(node), schedule.packed(node, indices).reshape((1, count))
    schedule.step(node, "group", [flat], [out.reshape((count, 1))], rows=rows)
    return [out]


def _scatter_rows(schedule: Schedule, node: Node) -> list[View]:
    """Copy the rows to where the result is, and change them there; a state that no other reads lies there."""
    x, indices, updates = schedule.operands(node)
    if 0 in (*x.shape, *updates.shape) or not ScatterKernel.fits(schedule.chip, x.shape[1], x.dtype.bytes):
        return schedule.on_core(node)
    count, here = math.prod(indices.shape), schedule.may_change(node)
    place = schedule.in_place[schedule.graph.state_after(node)] if here else None
    out = place.reshape(x.shape) if place is not None else schedule.result(node)
    flat = schedule.packed(node, indices).reshape((1, count))
    rows = schedule.packed(node, updates).reshape((count, x.shape[1]))
    assert flat is not None and rows is not None and out is not None  # packed elements have any shape
    if not here:
        schedule.step(node, "copy", [x], [out])
    reduction = str(node.attrs.get("reduction", "none"))
    schedule.step(node, "scatter", [flat, rows], [out], reduction=reduction)
    return [out]


def _embedding_bag(schedule: Schedule, node: Node) -> list[View]:
    table, indices = schedule.operands(node)[:2]
    if 0 in indices.shape or table.dtype == FP64:
        return schedule.on_core(node)
    return _embedding_bags(schedule, node)


def _embedding_bags(schedule: Schedule, node: Node) -> list[View]:
    """Schedule the bags of several tables as one kernel call; vectors become rows."""
    views = [schedule.packed(node, v) for v in schedule.operands(node)]
    rows = [v if len(v.shape) == 2 else v.reshape((1, v.shape[0])) for v in views]
    params = {
        "mode": str(node.attrs["mode"]),
        "quantised": bool(node.attrs.get("quantised", False)),
        "lowest": node.attrs.get("empty", "zero") == "lowest",
    }
    results = [schedule.result(node, i) for i in range(len(node.outputs))]
    schedule.step(node, "embedding_bag", rows, results, **params)
    return results


RULES: dict[str, Rule] = {
    "append": _append,
    "attention": attention,
    "attention_back": attention_back,
    "cast": _cast,
    "concat": _concat,
    "conv": conv,
    "dequantise": dequantise,
    "embedding_bag": _embedding_bag,
    "embedding_bags": _embedding_bags,
    "expand": _expand,
    "expert_matmul": expert_matmul,
    "expert_matmul_packed": expert_matmul_packed,
    "first_equal": _first_equal,
    "gather": _gather,
    "layernorm": norm,
    "log_softmax": softmax,
    "map": _map,
    "maps": _maps,
    "matmul": matmul,
    "matmul_map": matmul_map,
    "matmul_packed": matmul_packed,
    "pad": _pad,
    "quantise_rows": quantise_rows,
    "reshape": _reshape,
    "rmsnorm": norm,
    "rotary": rotary,
    "scan": scan,
    "scatter_rows": _scatter_rows,
    "slice": _slice,
    "softmax": softmax,
    "topk": first_elements,
    "tile": _tile,
    "transpose": _transpose,
    "update_rows": update_rows,
    **{f"reduce_{kind}": reduction for kind in ("sum", "mean", "max", "min", "prod")},
}
