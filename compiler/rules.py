"""How each op is scheduled: a view where one will do, else a kernel call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mtia_emu.kernels.tape import Step as TapeStep
from mtia_emu.kernels.tape import Tape, TapeBuilder, inline, parse

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, DType
from mtia_emu.units.simd import FUNCTIONS

from .graph import Node
from .ops.base import broadcast
from .ops.matmul_map import epilogue
from .ops.quantise_rows import rows_tape
from .schedule import Schedule
from .views import View, packed

Rule = Callable[[Schedule, Node], list[View]]
ROW_TILE_SHARE = (
    16  # bytes of local memory that a row-wise kernel may need for each element of a row (estimate)
)


def rule_of(op: str) -> Rule:
    """Return the rule of an op; ops without one run by their reference on a core."""
    if op in FUNCTIONS:
        return _function
    return RULES.get(op, _scalar)


def _ins(plan: Schedule, node: Node) -> list[View]:
    return [plan.values[v] for v in node.inputs if v]


def _out(plan: Schedule, node: Node, index: int = 0) -> View:
    return plan.buffer(node.outputs[index], node.types[index])


def _scalar(plan: Schedule, node: Node) -> list[View]:
    if "" in node.inputs:
        raise UserError(f"{node.op} {node.name}: an omitted operand cannot be passed to a core")
    outs = [_out(plan, node, i) for i in range(len(node.outputs))]
    plan.step(node, "scalar", _ins(plan, node), outs, op=node.op, attrs=tuple(node.attrs.items()))
    return outs


def _numbers(plan: Schedule, values: Sequence[str], first: int) -> dict[int, float]:
    """Return the operands that are float constants of one number, by tape input; values[i] is input first + i."""
    found = {}
    for index, value in enumerate(values, first):
        const = plan.graph.const(value)
        if const is not None and const.type.size == 1 and const.type.dtype.is_float and const.present:
            found[index] = float(const.array(value).reshape(-1)[0])
    return found


def _run_map(plan: Schedule, node: Node, tape: Tape, inputs: list[View]) -> list[View]:
    """Schedule an elementwise tape over the result's shape; constant numbers go into its commands."""
    out = _out(plan, node)
    tape, left = inline(tape, _numbers(plan, [v for v in node.inputs if v], 0))
    views = [inputs[i].expand(out.shape) for i in left]
    plan.step(node, "map", views, [out], tape=str(tape))
    return [out]


def _function(plan: Schedule, node: Node) -> list[View]:
    inputs = _ins(plan, node)
    if node.op == "copy":
        return inputs
    step = TapeStep(node.op, tuple(range(len(inputs))), node.type.dtype)
    return _run_map(plan, node, Tape(len(inputs), (step,), (~0,)), inputs)


def _map(plan: Schedule, node: Node) -> list[View]:
    return _run_map(plan, node, parse(str(node.attrs["tape"])), _ins(plan, node))


def _cast(plan: Schedule, node: Node) -> list[View]:
    (x,) = _ins(plan, node)
    if x.dtype == node.type.dtype:
        return [x]
    if node.type.dtype.name == "bool":
        steps = (TapeStep("not", (0,), node.type.dtype), TapeStep("not", (~0,), node.type.dtype))
        return _run_map(plan, node, Tape(1, steps, (~1,)), [x])
    return _run_map(plan, node, Tape(1, (TapeStep("copy", (0,), node.type.dtype),), (~0,)), [x])


def _reshape(plan: Schedule, node: Node) -> list[View]:
    (x,) = _ins(plan, node)
    view = x.reshape(node.type.shape)
    if view is None:
        view = plan.packed(node, x).reshape(node.type.shape)
    assert view is not None
    return [view]


def _transpose(plan: Schedule, node: Node) -> list[View]:
    (x,) = _ins(plan, node)
    return [x.transpose(_tuple(node, "perm"))]


def _expand(plan: Schedule, node: Node) -> list[View]:
    (x,) = _ins(plan, node)
    return [x.expand(node.type.shape)]


def _slice(plan: Schedule, node: Node) -> list[View]:
    (x,) = _ins(plan, node)
    starts, steps = _tuple(node, "starts"), _tuple(node, "steps")
    if any(s < 1 for s in steps):
        return _scalar(plan, node)
    begin = [min(max(a + n if a < 0 else a, 0), n) for a, n in zip(starts, x.shape, strict=True)]
    return [x.slice(begin, node.type.shape, steps)]


def _concat(plan: Schedule, node: Node) -> list[View]:
    out, axis, at = _out(plan, node), int(node.attrs["axis"]), 0  # type: ignore[arg-type]
    for x in _ins(plan, node):
        starts = [at if i == axis else 0 for i in range(len(x.shape))]
        if math.prod(x.shape):
            plan.step(node, "copy", [x], [out.slice(starts, x.shape, [1] * len(x.shape))])
        at += x.shape[axis]
    return [out]


def _pad(plan: Schedule, node: Node) -> list[View]:
    (x,) = _ins(plan, node)
    pads, out = _tuple(node, "pads"), _out(plan, node)
    before = pads[: len(x.shape)]
    if any(p < 0 for p in pads):
        return _scalar(plan, node)
    tape = Tape(0, (TapeStep("copy", (float(node.attrs.get("value", 0.0)),), out.dtype),), (~0,))  # type: ignore[arg-type]
    plan.step(node, "map", [], [out], tape=str(tape))
    plan.step(node, "copy", [x], [out.slice(before, x.shape, [1] * len(x.shape))])
    return [out]


def _tile(plan: Schedule, node: Node) -> list[View]:
    (x,) = _ins(plan, node)
    repeats = _tuple(node, "repeats")
    out = _out(plan, node)
    pairs = [d for r, n in zip(repeats, x.shape, strict=True) for d in (r, n)]
    strides = tuple(s for t in x.strides for s in (0, t))
    plan.step(
        node,
        "copy",
        [View(x.buffer, x.dtype, tuple(pairs), strides, x.offset)],
        [View(out.buffer, out.dtype, tuple(pairs), packed(pairs), 0)],
    )
    return [out]


def _tuple(node: Node, name: str) -> tuple[int, ...]:
    value = node.attrs[name]
    assert isinstance(value, tuple)
    return tuple(int(v) for v in value)  # type: ignore[arg-type]


def _fits(plan: Schedule, cols: int) -> bool:
    return cols * ROW_TILE_SHARE <= plan.chip.pe.local.bytes


def _rows(plan: Schedule, node: Node, tape: Tape, inputs: list[View], outs: list[View]) -> list[View] | None:
    """Schedule a row-wise tape, or return None where a row does not fit local memory."""
    if not _fits(plan, inputs[0].shape[-1]):
        return None
    plan.step(node, "row", inputs, outs, tape=str(tape))
    return outs


def _reduce(plan: Schedule, node: Node) -> list[View]:
    """Fold rows: the reduced axes, moved to the end, must lie as one; else the operand is packed so first."""
    (x,) = _ins(plan, node)
    axes = _tuple(node, "axes")
    if not axes or node.type.dtype.name not in (
        "fp16",
        "bf16",
        "fp32",
        "fp64",
        "int32",
        "int64",
        "int8",
        "uint8",
    ):
        return _scalar(plan, node)
    keep = [i for i in range(len(x.shape)) if i not in axes]
    moved = x.transpose([*keep, *axes])
    cols = math.prod(x.shape[a] for a in axes)
    shape = (*(x.shape[i] for i in keep), cols)
    if cols == 0 or not _fits(plan, cols):
        return _scalar(plan, node)
    rows = moved.reshape(shape)
    if rows is None:
        rows = plan.packed(node, moved).reshape(shape)
    assert rows is not None
    out = _out(plan, node)
    plan.step(node, "row", [rows], [_column(out, shape)], tape=str(_reduction(node.op[7:], cols, out.dtype)))
    return [out]


def _column(out: View, shape: tuple[int, ...]) -> View:
    """Return a packed result of one value a row as a view over the iteration space."""
    return View(out.buffer, out.dtype, shape, (*packed(shape[:-1]), 0), out.offset)


def _reduction(kind: str, cols: int, to: DType) -> Tape:
    wide = FP32 if to.is_float and to.bits < 64 else to
    b = TapeBuilder(1)
    total = b.call("fold_sum" if kind == "mean" else f"fold_{kind}", 0, to=wide)
    if kind == "mean":
        total = b.call("mul", total, 1.0 / cols, to=wide)
    return b.done(total)


def _softmax(plan: Schedule, node: Node) -> list[View]:
    (x,) = _ins(plan, node)
    axis = int(node.attrs["axis"])  # type: ignore[arg-type]
    b = TapeBuilder(1)
    shifted = b.call("sub", 0, b.call("fold_max", 0))
    powers = b.call("exp", shifted)
    total = b.call("fold_sum", powers)
    if node.op == "softmax":
        result = b.call("mul", powers, b.call("reciprocal", total))
    else:
        result = b.call("sub", shifted, b.call("log", total))
    out = _out(plan, node)
    done = _rows(plan, node, b.done(result), [x.last(axis)], [out.last(axis)])
    return [out] if done else _scalar(plan, node)


def _quantise_rows(plan: Schedule, node: Node) -> list[View]:
    (x,) = _ins(plan, node)
    out, scale = _out(plan, node), _out(plan, node, 1)
    done = _rows(plan, node, rows_tape(), [x], [out, _column(scale, x.shape)])
    return [out, scale] if done else _scalar(plan, node)


def _norm(plan: Schedule, node: Node) -> list[View]:
    x, *edges = _ins(plan, node)
    b = TapeBuilder(1 + len(edges))
    n, centred = x.shape[-1], 0
    if node.op == "layernorm":
        centred = b.call("sub", 0, b.call("mul", b.call("fold_sum", 0), 1.0 / n))
    square = b.call("mul", b.call("fold_sum", b.call("mul", centred, centred)), 1.0 / n)
    root = b.call("rsqrt", b.call("add", square, float(node.attrs["epsilon"])))  # type: ignore[arg-type]
    result = b.call("mul", b.call("mul", centred, root), 1)
    if len(edges) > 1:
        result = b.call("add", result, 2)
    out = _out(plan, node)
    done = _rows(plan, node, b.done(result), [x, *(e.expand(x.shape) for e in edges)], [out])
    return done or _scalar(plan, node)


def _rotary(plan: Schedule, node: Node) -> list[View]:
    """y1 = x1 cos1 - x2 sin1, y2 = x2 cos2 + x1 sin2 over the halves of each row."""
    x, cos, sin = _ins(plan, node)
    out = _out(plan, node)
    half = x.shape[-1] // 2
    if x.shape[-1] % 2:
        return _scalar(plan, node)

    def halves(view: View) -> list[View]:
        view = view.expand(x.shape)
        shape = (*x.shape[:-1], half)
        zero, ones = [0] * len(shape), [1] * len(shape)
        return [view.slice(zero, shape, ones), view.slice([*zero[:-1], half], shape, ones)]

    b = TapeBuilder(6)
    first = b.call("sub", b.call("mul", 0, 2), b.call("mul", 1, 4))
    second = b.call("add", b.call("mul", 1, 3), b.call("mul", 0, 5))
    plan.step(
        node, "rotary", [*halves(x), *halves(cos), *halves(sin)], halves(out), tape=str(b.done(first, second))
    )
    return [out]


def _matmul(plan: Schedule, node: Node) -> list[View]:
    """A product with scale, bias and activation, all of them in the epilogue."""
    extras = {name: v for name, v in zip(("bias", "scale"), node.inputs[2:], strict=False) if v}
    activation = str(node.attrs.get("activation", "none"))
    tape: Tape | None = None
    if extras or activation != "none":
        tape = epilogue(("scale" in extras, "bias" in extras), activation)
    edges = [extras[name] for name in ("scale", "bias") if name in extras]
    return _product(plan, node, edges, tape)


def _matmul_map(plan: Schedule, node: Node) -> list[View]:
    """A product whose result, in another shape, goes through a tape together with other tensors."""
    return _product(plan, node, list(node.inputs[2:]), parse(str(node.attrs["tape"])))


def _product(plan: Schedule, node: Node, extras: list[str], tape: Tape | None) -> list[View]:
    """Schedule a product: batches that only the left side has become rows; what is left is expanded."""
    if tape is not None:
        tape, left = inline(tape, _numbers(plan, extras, 1))
        extras = [extras[i - 1] for i in left if i > 0]
    a, b = (plan.values[v] for v in node.inputs[:2])
    lead = broadcast([a.shape[:-2], b.shape[:-2]])
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    batch = math.prod(lead)
    if 0 in (*node.type.shape, k):
        return _scalar(plan, node)
    a = a.expand((*lead, m, k))
    if math.prod(b.shape[:-2]) == 1:
        flat = a.reshape((batch * m, k)) or plan.packed(node, a).reshape((batch * m, k))
        right = b.reshape((k, n))
        assert flat is not None and right is not None
        a, b, batch, m = flat, right, 1, batch * m
    else:
        b = b.expand((*lead, k, n))
    out = _out(plan, node)
    edges = [_edge(plan, node, plan.values[v].expand(node.type.shape), (batch * m, n)) for v in extras]
    target = View(out.buffer, out.dtype, (batch * m, n), (n, 1), 0)
    plan.step(
        node,
        "matmul",
        [a, b, *edges],
        [target],
        batch=batch,
        m=m,
        k=k,
        n=n,
        epilogue=str(tape) if tape else "",
    )
    return [out]


def _edge(plan: Schedule, node: Node, full: View, shape: tuple[int, int]) -> View:
    """Return an operand of an epilogue as one row [1, n], one column [rows, 1], or whole with n columns."""
    rows, n = shape
    if all(s == 0 or d == 1 for s, d in zip(full.strides[:-1], full.shape[:-1], strict=True)):
        return View(full.buffer, full.dtype, (1, n), (0, full.strides[-1]), full.offset)
    if full.strides[-1] == 0 or full.shape[-1] == 1:
        column = full.slice([0] * len(full.shape), (*full.shape[:-1], 1), [1] * len(full.shape))
        flat = column.reshape((rows, 1)) or plan.packed(node, column).reshape((rows, 1))
        assert flat is not None
        return flat
    return full.reshape((rows, n)) or full


def _gather(plan: Schedule, node: Node) -> list[View]:
    x, indices = _ins(plan, node)
    axis = int(node.attrs["axis"])  # type: ignore[arg-type]
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    count = math.prod(indices.shape)
    if not outer * inner * count * x.shape[axis]:
        return _scalar(plan, node)
    table = plan.packed(node, x).reshape((outer, x.shape[axis], inner))
    flat = plan.packed(node, indices).reshape((1, count))
    out = _out(plan, node)
    assert table is not None and flat is not None
    plan.step(
        node, "gather", [table, flat], [View(out.buffer, out.dtype, (outer * count, inner), (inner, 1), 0)]
    )
    return [out]


def _embedding_bag(plan: Schedule, node: Node) -> list[View]:
    table, *vectors = _ins(plan, node)
    if 0 in (*node.type.shape, *vectors[0].shape):
        return _scalar(plan, node)
    table = plan.packed(node, table)
    rows = [plan.packed(node, v).reshape((1, v.shape[0])) for v in vectors]
    out = _out(plan, node)
    plan.step(
        node,
        "embedding_bag",
        [table, *rows],
        [out],
        mode=str(node.attrs["mode"]),
        quantised=bool(node.attrs.get("quantised", False)),
        lowest=node.attrs.get("empty", "zero") == "lowest",
    )
    return [out]


RULES: dict[str, Rule] = {
    "map": _map,
    "cast": _cast,
    "reshape": _reshape,
    "transpose": _transpose,
    "expand": _expand,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
    "tile": _tile,
    "softmax": _softmax,
    "quantise_rows": _quantise_rows,
    "log_softmax": _softmax,
    "rmsnorm": _norm,
    "layernorm": _norm,
    "rotary": _rotary,
    "matmul": _matmul,
    "matmul_map": _matmul_map,
    "gather": _gather,
    "embedding_bag": _embedding_bag,
} | {f"reduce_{kind}": _reduce for kind in ("sum", "mean", "max", "min", "prod")}
