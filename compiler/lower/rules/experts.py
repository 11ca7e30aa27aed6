"""How products with routed experts are scheduled: rows in turns of experts, then a product for each turn."""

from __future__ import annotations

from mtia_emu.kernels.turns import Turns, turns_of

from mtia_emu.types import INT32, TensorType

from ...formats import Format
from ...graph import Node
from ...ops.base import integer
from ...ops.expert_matmul import expert_loads
from ..steps import Schedule
from ..views import View
from .products import UNFIT


def expert_matmul(schedule: Schedule, node: Node) -> list[View]:
    """Gather the rows of each turn, multiply turn by turn, and put results where their choices stand.

    Products by the same choices, and of the same rows, share what puts them in turns.
    """
    x, weights, chosen = schedule.operands(node)
    experts, k, n = weights.shape
    tokens, each = chosen.shape
    if weights.dtype.name in UNFIT or 0 in (*x.shape, *weights.shape, *chosen.shape):
        return schedule.on_core(node)
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
    rows = _by_turn(schedule.memo[key], turns)
    made = schedule.buffer(f"{node.name}.made", TensorType(node.type.dtype, (size, n)))
    schedule.step(node, "expert_matmul", [rows, weights, table], [_by_turn(made, turns)], k=k, n=n, **params)
    out = schedule.result(node)
    lies = View(made.buffer, made.dtype, (1, size, n), (size * n, n, 1))
    schedule.step(node, "gather", [lies, place], [out])
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


def wide_experts(schedule: Schedule, form: Format) -> tuple[str, ...]:
    """Return what to say of products with experts whose weights were to be put in few bits."""
    graph = schedule.graph
    experts = [graph.type_of(n.inputs[1]).dtype for n in graph.nodes if n.op == "expert_matmul"]
    wide = [kind for kind in experts if kind.bits > 8]
    if not wide or form.quantise is None:
        return ()
    return (
        f"the weights of {len(wide)} products with experts stay in {wide[0]}: weights alone in few bits are "
        "for other products (right for both: --dtype int8 or fp8)",
    )
