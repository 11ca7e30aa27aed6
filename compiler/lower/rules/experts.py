"""How products with routed experts are scheduled: rows in turns of experts, then a product for each turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtia_emu.kernels.turns import Turns, turns_of

from mtia_emu.types import INT32, TensorType

from ...graph import Node
from ...ops.base import integer
from ...ops.dequantise import packing
from ...ops.expert_matmul import expert_loads
from ..steps import Schedule
from ..views import View
from .products import UNFIT


@dataclass(frozen=True)
class _Turned:
    """Rows in turns of experts: where they and their table are, where results go, and what kernels ask."""

    rows: View
    table: View
    made: View
    place: View
    params: dict[str, Any]


def expert_matmul(schedule: Schedule, node: Node) -> list[View]:
    """Gather the rows of each turn, multiply turn by turn, and put results where their choices stand.

    Products by the same choices, and of the same rows, share what puts them in turns.
    """
    weights = schedule.operands(node)[1]
    if weights.dtype.name in UNFIT or _empty(schedule, node):
        return schedule.on_core(node)
    x = _in_turns(schedule, node)
    schedule.step(node, "expert_matmul", [x.rows, weights, x.table], [x.made], **x.params)
    return _put_back(schedule, node, x)


def expert_matmul_packed(schedule: Schedule, node: Node) -> list[View]:
    """Schedule a product with routed experts whose weights are of few bits as one with plain weights."""
    rows, codes, _, *scales = schedule.operands(node)
    if rows.dtype.name in UNFIT or _empty(schedule, node):
        return schedule.on_core(node)
    x = _in_turns(schedule, node)
    named = x.params | {"block": packing(node.attrs, codes.dtype).block, "zeros": len(scales) > 1}
    schedule.step(node, "expert_matmul_packed", [x.rows, codes, x.table, *scales], [x.made], **named)
    return _put_back(schedule, node, x)


def _empty(schedule: Schedule, node: Node) -> bool:
    """Return whether a product with experts has no rows, no columns or nothing to add."""
    return any(0 in view.shape for view in schedule.operands(node)[:3])


def _in_turns(schedule: Schedule, node: Node) -> _Turned:
    """Gather the rows of each turn, and make room for what becomes of them."""
    x, weights, chosen, *_ = schedule.operands(node)
    experts, k, n = weights.shape[0], x.shape[1], weights.shape[2]
    tokens, each = chosen.shape
    among = integer(node.attrs, "of", experts)
    turns = turns_of(experts, tokens * each, tokens, among)
    loads = expert_loads(tokens, experts, each, node.attrs)
    params = {"rows": turns.rows, "routed": turns.routed, "loads": loads}
    table, token, choice, place = _routed(schedule, node, chosen, turns, among)
    numbers = token if x.shape[0] == tokens else choice
    size = turns.count * turns.rows
    key = ("turns", x, numbers)
    if key not in schedule.memo:
        sorted_ = schedule.buffer(f"{node.name}.turns", TensorType(x.dtype, (size, k)))
        schedule.step(node, "rows_to_turns", [schedule.packed(node, x), numbers, table], [sorted_], **params)
        schedule.memo[key] = sorted_
        schedule.reread.add(sorted_.buffer)  # for each part of the weights that local memory holds
    made = schedule.buffer(f"{node.name}.made", TensorType(node.type.dtype, (size, n)))
    rows = _by_turn(schedule.memo[key], turns)
    return _Turned(rows, table, _by_turn(made, turns), place, params | {"k": k, "n": n})


def _put_back(schedule: Schedule, node: Node, x: _Turned) -> list[View]:
    """Put the results of turns where their choices stand."""
    out, (count, rows, n) = schedule.result(node), x.made.shape
    lies = View(x.made.buffer, x.made.dtype, (1, count * rows, n), (count * rows * n, n, 1))
    schedule.step(node, "gather", [lies, x.place], [out])
    return [out]


def _routed(
    schedule: Schedule, node: Node, chosen: View, turns: Turns, among: int
) -> tuple[View, View, View, View]:
    """Return the table of turns, tokens and choices of their rows, and the places of choices: one step."""
    key = ("route", chosen, turns, among)
    if key not in schedule.memo:
        size = turns.count * turns.rows
        shapes = {
            "table": (turns.count, 2),
            "token": (1, size),
            "choice": (1, size),
            "place": (1, turns.routed),
        }
        results = [schedule.buffer(f"{node.name}.{x}", TensorType(INT32, s)) for x, s in shapes.items()]
        sizes = (("experts", turns.experts), ("rows", turns.rows), ("turns", turns.count))
        attrs = sizes if among == turns.experts else (("of", among), *sizes)
        schedule.step(node, "scalar", [chosen], results, op="route", attrs=attrs)
        schedule.memo[key] = tuple(results)
    found: tuple[View, View, View, View] = schedule.memo[key]
    return found


def _by_turn(view: View, turns: Turns) -> View:
    """Return packed rows [turns * rows, k] as [turns, rows, k]."""
    k = view.shape[1]
    return View(view.buffer, view.dtype, (turns.count, turns.rows, k), (turns.rows * k, k, 1), view.offset)
