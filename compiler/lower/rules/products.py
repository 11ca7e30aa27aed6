"""How products are scheduled: which batches become rows, and what is done on each tile of the result."""

from __future__ import annotations

import math
from dataclasses import replace

from mtia_emu.kernels.rows.tape import Source, Tape, TapeStep, finish, inline, parse

from mtia_emu.types import FP32, DType, TensorType

from ...graph import Node
from ...ops.base import broadcast
from ...ops.dequantise import packing
from ...ops.matmul_map import epilogue
from ..steps import Schedule
from ..views import View

UNFIT = (
    "fp64",
    "int64",
    "uint64",
    "uint32",
    "bool",
)  # accumulators do not hold their sums: a core multiplies


def matmul(schedule: Schedule, node: Node) -> list[View]:
    """Schedule a product with scale, bias and activation, all of them on its tiles."""
    bias, scale = (*node.inputs[2:], "", "")[:2]
    activation = str(node.attrs.get("activation", "none"))
    tape: Tape | None = None
    if bias or scale or activation != "none":
        tape = _in(epilogue((bool(scale), bool(bias)), activation), node.type.dtype)
    return _product(schedule, node, [v for v in (scale, bias) if v], tape)


def _in(tape: Tape, kind: DType) -> Tape:
    """Return a tape that computes in integers where its result is of integers."""
    if kind.is_float:
        return tape
    return Tape(tape.inputs, tuple(TapeStep(s.function, s.sources, kind) for s in tape.steps), tape.results)


def matmul_map(schedule: Schedule, node: Node) -> list[View]:
    """Schedule a product whose result, in another shape, goes through a tape together with other tensors."""
    return _product(schedule, node, list(node.inputs[2:]), parse(str(node.attrs["tape"])))


def matmul_packed(schedule: Schedule, node: Node) -> list[View]:
    """Schedule a product with weights of few bits: every batch becomes rows."""
    x, codes, scales = (schedule.values[v] for v in node.inputs[:3])
    zeros = [schedule.values[v] for v in node.inputs[3:4] if v]
    if any(kind.name in UNFIT for kind in (x.dtype, node.type.dtype)) or 0 in x.shape:
        return schedule.on_core(node)
    extras = list(node.inputs[4:])
    tape, left = inline(parse(str(node.attrs["tape"])), schedule.numbers(extras, 1))
    extras = [extras[i - 1] for i in left if i > 0]
    form = packing(node.attrs, codes.dtype)
    m, n = math.prod(x.shape[:-1]), codes.shape[-1]
    out = schedule.result(node)
    edges = [edge(schedule, node, schedule.values[v].expand(node.type.shape), (m, n)) for v in extras]
    target = View(out.buffer, out.dtype, (m, n), (n, 1))
    params = {"m": m, "k": form.k, "n": n, "block": form.block, "epilogue": str(tape), "zeros": bool(zeros)}
    inputs = [_flat(schedule, node, x, (m, form.k)), codes, *edges, scales, *zeros]
    schedule.step(node, "matmul_packed", inputs, [target], **params)
    return [out]


def dequantise(schedule: Schedule, node: Node) -> list[View]:
    """Expand codes that no product takes over: a map for each plane, scales and zero points by blocks."""
    codes, scales, *zeros = schedule.operands(node)
    form, n = packing(node.attrs, codes.dtype), codes.shape[1]
    if form.k % form.block:
        return schedule.on_core(node)
    out = schedule.result(node)
    for plane in range(form.planes):
        name = ("bit_low4", "bit_high4")[plane] if form.planes == 2 else "copy"
        first = plane * form.plane_rows
        rows = min(form.plane_rows, form.k - first)
        if rows < 1:
            continue
        shape = (rows // form.block, form.block, n)
        each = [(scales, first // form.block), *((z, 0) for z in zeros)]
        parts = [_rows(codes, 0, rows, shape), *(_rows(v, at, shape[0], (shape[0], 1, n)) for v, at in each)]
        steps = [TapeStep(name, (0,), FP32)]
        if zeros:
            steps += [TapeStep(name, (2,), FP32), TapeStep("sub", (~0, ~1), FP32)]
        steps.append(TapeStep("mul", (~(len(steps) - 1), 1), out.dtype))
        tape = Tape(len(parts), tuple(steps), (~(len(steps) - 1),))
        target = _rows(out, first, rows, shape)
        schedule.step(node, "map", [v.expand(shape) for v in parts], [target], tape=str(tape))
    return [out]


def _rows(view: View, first: int, count: int, shape: tuple[int, ...]) -> View:
    """Return some rows of a packed matrix in another shape."""
    rows = view.slice((first, 0), (count, view.shape[1]), (1, 1)).reshape(shape)
    assert rows is not None
    return rows


def _product(schedule: Schedule, node: Node, extras: list[str], tape: Tape | None) -> list[View]:
    """Schedule a product: batches that only the left side has become rows; what is left is expanded."""
    a, b = (schedule.values[v] for v in node.inputs[:2])
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if any(kind.name in UNFIT for kind in (a.dtype, b.dtype, node.type.dtype)):
        return schedule.on_core(node)
    if tape is not None:
        tape, left = inline(tape, schedule.numbers(extras, 1))
        extras = [extras[i - 1] for i in left if i > 0]
    if not k:
        return _nothing(schedule, node, extras, tape)
    lead = broadcast([a.shape[:-2], b.shape[:-2]])
    batch = math.prod(lead)
    a = a.expand((*lead, m, k))
    if math.prod(b.shape[:-2]) == 1:
        a, b = _flat(schedule, node, a, (batch * m, k)), _flat(schedule, node, b, (k, n))
        batch, m = 1, batch * m
    else:
        b = b.expand((*lead, k, n))
    out = schedule.result(node)
    edges = [edge(schedule, node, schedule.values[v].expand(node.type.shape), (batch * m, n)) for v in extras]
    target = View(out.buffer, out.dtype, (batch * m, n), (n, 1))
    params = {"batch": batch, "m": m, "k": k, "n": n, "epilogue": str(tape) if tape else ""}
    before = len(schedule.steps)
    schedule.step(node, "matmul", [a, b, *edges], [target], **params)
    if tape is not None and _moves_far(schedule, edges, target):
        _apart_if_faster(schedule, node, before, tape)
    return [out]


def _moves_far(schedule: Schedule, edges: list[View], target: View) -> bool:
    """Return whether an operand as large as the result comes from DRAM by tiles, or is one of several."""
    whole = [e for e in edges if e.shape == target.shape]
    return len(whole) > 1 or any(schedule.buffers[e.buffer].role in ("input", "const") for e in whole)


def _apart_if_faster(schedule: Schedule, node: Node, at: int, tape: Tape) -> None:
    """Put a product and a map in place of the step at `at` where they take less time than it.

    Tiles of a product are a few columns wide, so that what the tape moves to and from DRAM comes in short
    runs; a map takes whole rows. The product is kept in fp32, as the tape of the tile has it.
    """
    (fused,) = schedule.steps[at:]
    if schedule.fastest is None:
        return
    a, b, *edges = fused.inputs
    (target,), shape = fused.outputs, fused.outputs[0].shape
    kind = FP32 if target.dtype.is_float else target.dtype
    product = schedule.buffer(f"{node.name}.product", TensorType(kind, shape))
    schedule.step(node, "matmul", [a, b], [product], **(dict(fused.params) | {"epilogue": ""}))
    operands = [product, *(e.expand(shape) for e in edges)]
    schedule.step(node, "map", operands, [target], tape=str(finish(tape, [target.dtype])))
    apart = schedule.steps[at + 1 :]
    if schedule.fastest(schedule, [[fused], apart]):
        del schedule.steps[at]
    else:
        del schedule.steps[at + 1 :], schedule.buffers[product.buffer]


def _nothing(schedule: Schedule, node: Node, extras: list[str], tape: Tape | None) -> list[View]:
    """Schedule a product over no elements: what follows it, on zeros."""
    out = schedule.result(node)
    zero = TapeStep("copy", (0.0,), FP32 if out.dtype.is_float else out.dtype)
    after = tape or Tape(1, (), (0,))

    def moved(source: Source) -> Source:
        if isinstance(source, float):
            return source
        return source - 1  # x0 becomes t0, x1 becomes x0, t0 becomes t1

    steps = (zero, *(replace(s, sources=tuple(map(moved, s.sources))) for s in after.steps))
    joined = Tape(after.inputs - 1, steps, tuple(map(moved, after.results)))
    schedule.step(
        node, "map", [schedule.values[v].expand(out.shape) for v in extras], [out], tape=str(joined)
    )
    return [out]


def _flat(schedule: Schedule, node: Node, view: View, shape: tuple[int, int]) -> View:
    """Return a view as a matrix, of a copy where it cannot be seen so."""
    flat = view.reshape(shape) or schedule.packed(node, view).reshape(shape)
    assert flat is not None
    return flat


def edge(schedule: Schedule, node: Node, full: View, shape: tuple[int, int]) -> View:
    """Return an operand of an epilogue as one row [1, n], one column [rows, 1], or whole with n columns."""
    rows, n = shape
    if all(s == 0 or d == 1 for s, d in zip(full.strides[:-1], full.shape[:-1], strict=True)):
        return View(full.buffer, full.dtype, (1, n), (0, full.strides[-1]), full.offset)
    if full.strides[-1] == 0 or full.shape[-1] == 1:
        column = full.slice([0] * len(full.shape), (*full.shape[:-1], 1), [1] * len(full.shape))
        return _flat(schedule, node, column, (rows, 1))
    return full.reshape((rows, n)) or full
