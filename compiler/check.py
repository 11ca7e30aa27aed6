"""The law of the graph: what every pass may assume and must leave."""

from __future__ import annotations

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from . import ops, text
from .graph import Graph, Node
from .ops.embedding_bag import bag_operand

AROUND = 2  # lines shown before and after a fault


class Unlawful(UserError):
    """A graph breaks the law; `value` is what the node at fault makes, or the output or the constant."""

    def __init__(self, message: str, value: str = "") -> None:
        super().__init__(message)
        self.value = value


Known = dict[int, tuple[Node, tuple[TensorType | None, ...]]]


def check(graph: Graph, after: str = "", known: Known | None = None) -> Graph:
    """Return the graph, found lawful; raise `UserError` naming the pass it comes `after` and the lines there.

    Lawful: every value is defined once, before it is read; the types of nodes are those that their ops infer;
    constants hold data of their type; outputs are defined; a state fits into the memory of its next
    value, which no other shares; only embedding bags read runs of `ragged_split`.
    `known` remembers nodes found lawful on operands of given types: a later check does not infer them again.
    """
    known = {} if known is None else known
    defined: dict[str, TensorType] = {**graph.inputs, **{k: c.type for k, c in graph.consts.items()}}
    if len(defined) != len(graph.inputs) + len(graph.consts):
        raise _fault(graph, None, "a value is both an input and a constant", after)
    for node in graph.nodes:
        _check_node(graph, node, defined, after, known)
    for name in graph.outputs:
        if name not in defined:
            raise _fault(graph, name, f"output %{name} is not defined", after)
    for name, const in graph.consts.items():
        data = const.loaded
        if data is not None and (data.shape != const.type.shape or data.dtype != const.type.dtype.numpy):
            raise _fault(graph, name, f"%{name} : {const.type} holds {data.dtype}{list(data.shape)}", after)
    _check_states(graph, after)
    return graph


def check_made(before: Graph, after: Graph, name: str, floats: str = "", known: Known | None = None) -> Graph:
    """Return what the pass `name` made of a graph, found lawful and with the inputs and outputs of that one.

    Raises `UserError` as `check` does, and for what `signature_fault` finds. With nodes `known` the graph
    before was found lawful: where the pass leaves it as it was, there is nothing to check.
    """
    if after is before and known:
        return after
    check(after, name, known)
    wrong = signature_fault(before, after, floats)
    if wrong:
        raise Unlawful(f"graph {after.name}: after {name}: {wrong}")
    return after


def signature_fault(before: Graph, after: Graph, floats: str = "") -> str:
    """Return what a pass changes of a graph's inputs and outputs that it may not; "" for nothing.

    Their names, order and shapes stay, and what lives in place. So do their types; but floats may become
    those of the format `floats`, which is the one that the pass says it brings.
    """
    for what, old, new in (
        ("input", tuple(before.inputs), tuple(after.inputs)),
        ("output", before.outputs, after.outputs),
    ):
        if old != new:
            was, is_now = (", ".join(f"%{v}" for v in names) or "none" for names in (old, new))
            return (
                f"its {what}s are {is_now}, not {was} (right: those of the graph that it was given, in order)"
            )
        for name in old:
            kind, now = before.type_of(name), after.type_of(name)
            if kind != now:
                formats = kind.shape == now.shape and kind.dtype.is_float and now.dtype.is_float
                if not formats or now.dtype.name != floats:
                    hint = f", or `floats` of the pass is {now.dtype.name!r}" if formats else ""
                    return f"{what} %{name} is {now}, not {kind} (right: as it was{hint})"
    lost = [f"%{new} at %{old}" for new, old in before.states.items() if after.states.get(new) != old]
    return (
        f"it loses that {lost[0]} lives in place (right: `with_states` of the graph before)" if lost else ""
    )


def _check_states(graph: Graph, after: str) -> None:
    """Refuse outputs that cannot lie where their inputs lie."""
    before = list(graph.states.values())
    for new, old in graph.states.items():
        was, now = graph.type_of(old), graph.type_of(new)
        sizes = list(zip(was.shape, now.shape, strict=False))
        fits = len(was.shape) == len(now.shape) and all(a <= b for a, b in sizes)
        if was.dtype != now.dtype or not fits or sum(a < b for a, b in sizes) > 1:
            right = "of its dtype, longer on one axis at most"
            message = f"output %{new} : {now} cannot lie at %{old} : {was} (right: {right})"
            raise _fault(graph, new, message, after)
        if before.count(old) > 1:
            raise _fault(graph, new, f"several outputs lie at %{old} (right: one)", after)


def _check_node(graph: Graph, node: Node, defined: dict[str, TensorType], after: str, known: Known) -> None:
    try:
        operands = tuple([defined[v] if v else None for v in node.inputs])
    except KeyError as missing:
        message = f"{node.op} %{node.output} reads %{missing.args[0]} before it is defined"
        raise _fault(graph, node, message, after) from None
    found = known.get(id(node))
    if found is None or found[0] is not node or found[1] != operands:
        try:
            ops.check_node(node, defined.__getitem__)
        except UserError as error:
            raise _fault(graph, node, str(error), after) from None
        known[id(node)] = (node, operands)  # holding the node keeps its identity from being used again
    for value, kind in zip(node.outputs, node.types, strict=True):
        if value in defined:
            raise _fault(graph, node, f"%{value} is defined twice", after)
        defined[value] = kind
    if node.op == "ragged_split":
        _check_ragged(graph, node, after)


def _check_ragged(graph: Graph, node: Node, after: str) -> None:
    for value in node.outputs:
        for user, position in graph.users(value):
            if bag_operand(user.op, user.attrs, position)[0] != "indices":
                message = (
                    f"{user.op} %{user.output} reads %{value}, a run of ragged_split: only embedding_bag may"
                )
                raise _fault(graph, user, message, after)
        if value in graph.outputs:
            raise _fault(graph, node, f"%{value}, a run of ragged_split, is an output of the graph", after)


def _fault(graph: Graph, node: Node | str | None, message: str, after: str) -> Unlawful:
    """Return the error, with the lines around the node that is at fault; a value's name is no node."""
    head = f"after {after}: {message}" if after else message
    if not isinstance(node, Node):
        return Unlawful(f"graph {graph.name}: {head}", node or "")
    at = graph.nodes.index(node)
    shown = [
        f"{'> ' if i == at else '  '}{text.line(graph.nodes[i])}"
        for i in range(max(0, at - AROUND), min(len(graph.nodes), at + AROUND + 1))
    ]
    return Unlawful("\n".join([f"graph {graph.name}: {head}", *shown]), node.output)
