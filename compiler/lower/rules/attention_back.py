"""How the way back of attention is scheduled: a walk for the gradient of queries, one for keys and values."""

from __future__ import annotations

from mtia_emu.kernels.attention.back_plan import BackProblem, tilings
from mtia_emu.kernels.attention.back_tape import back_tapes, of_queries
from mtia_emu.kernels.attention.plan import ALWAYS
from mtia_emu.kernels.rows.tape import inline, parse

from mtia_emu.types import TensorType

from ...graph import Node
from ...ops.attention_back import OPERANDS
from ...ops.base import integer
from ..steps import Schedule
from ..views import View


def attention_back(schedule: Schedule, node: Node) -> list[View]:
    """Schedule both walks; on the core what does not fit a PE."""
    mask = integer(node.attrs, "mask", 0)
    numbers = {i: x for i, x in schedule.numbers(node.inputs[OPERANDS:], 1).items() if i != mask}
    tape, left = inline(parse(str(node.attrs["tape"])), numbers)
    tapes = back_tapes(tape, left.index(mask) if mask else 0)
    diagonal = integer(node.attrs, "diagonal", ALWAYS) if mask else ALWAYS
    operands = _operands(schedule, node, [node.inputs[OPERANDS - 1 + i] for i in left if i > 0])
    (b, g, h, m, d), (n, e), kind = operands[0].shape, operands[2].shape[2:], node.type.dtype
    wide = sum(x.dtype.bytes for x in operands[OPERANDS:])
    queries, of_keys = (BackProblem(x, b * g, h, m, n, d, e, kind, diagonal, wide) for x in (False, True))
    if tapes is None or not all(tilings(p, schedule.chip) for p in (queries, of_keys)):
        return schedule.on_core(node)
    dq, dk, dv = (_result(schedule, node, i) for i in range(3))
    split = dq.reshape((b, g, h, m, d))
    assert split is not None
    for problem, results, each in ((queries, [split], of_queries(tapes)), (of_keys, [dk, dv], tapes)):
        factors = each.factors
        schedule.step(
            node, "attention_back", operands, results, problem=problem, tape=str(each.masked),
            plain=str(each.plain), factors=factors,
        )  # fmt: skip
    return [dq, dk, dv]


def _operands(schedule: Schedule, node: Node, extras: list[str]) -> list[View]:
    """Return q, k, v, the result's gradient, totals, deltas and extras, heads of queries by groups."""
    q, k, v, *rows = (schedule.values[x] for x in node.inputs[:OPERANDS])
    (b, h, m, _), g, n = q.shape, k.shape[1], k.shape[2]

    def by_group(view: View) -> View:
        split = (b, g, h // g, *view.shape[2:])
        found = view.reshape(split) or schedule.packed(node, view).reshape(split)
        assert found is not None
        return found

    full = [by_group(schedule.values[x].expand((b, h, m, n))) for x in extras]
    return [by_group(q), k, v, *map(by_group, rows), *full]


def _result(schedule: Schedule, node: Node, index: int) -> View:
    """Add a buffer for a gradient [b,h,m,d], stored [b,m,h,d]: as what made the heads wants it."""
    b, h, m, d = node.types[index].shape
    stored = TensorType(node.types[index].dtype, (b, m, h, d))
    return schedule.buffer(node.outputs[index], stored).transpose((0, 2, 1, 3))
