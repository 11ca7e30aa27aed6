"""Which stored floats of a model are parameters, to be trained, and which are constants of its making."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatch

from mtia_emu.errors import UserError, nearest

from ..graph import Const, Graph, Node
from ..passes.tidy import Fold

MOVES = ("reshape", "transpose", "cast", "expand", "slice", "concat", "copy")
TABLES = ("gather", "embedding_bag", "embedding_bags")
PRODUCTS = ("matmul", "conv", "rmsnorm", "layernorm")
BESIDE = ("add", "sub", "mul", "div", "prelu", "max", "min", "where")
SHOWN = 3  # names in a note


def parameters_of(graph: Graph, stored: Iterable[str]) -> list[str]:
    """Return which of the inputs that hold stored floats are parameters, in the graph's order.

    They are operands of products, convolutions and norms, tables of which rows are looked up, and vectors
    (one axis longer than 1) that meet what depends on the model's data in an elementwise op. Masks,
    frequencies of positions and running statistics are none.
    """
    known = set(stored)
    active = _activations(graph, known)
    behind = {name: {name} for name in known}  # what a value is a move of
    found: set[str] = set()
    for node in graph.nodes:
        sources = {s for v in node.inputs for s in behind.get(v, ())}
        if node.op in MOVES and all(v in behind for v in node.inputs):
            behind.update((v, sources) for v in node.outputs)
            continue
        for index, value in enumerate(node.inputs):
            if value in behind and _trains(graph, node, index, active):
                found |= behind[value]
    return [name for name in graph.inputs if name in found]


def _activations(graph: Graph, stored: Collection[str]) -> set[str]:
    """Return the floats that depend on the model's data: on float inputs, or on rows looked up."""
    active = {n for n, t in graph.inputs.items() if n not in stored and t.dtype.is_float}
    for node in graph.nodes:
        looked_up = node.op in TABLES and node.inputs[0] in stored
        if looked_up or active.intersection(node.inputs):
            active.update(v for v, t in zip(node.outputs, node.types, strict=True) if t.dtype.is_float)
    return active


def _trains(graph: Graph, node: Node, index: int, active: Collection[str]) -> bool:
    if node.op in TABLES:
        return index == 0 or node.op == "embedding_bags"
    others = any(v in active for i, v in enumerate(node.inputs) if i != index)
    if node.op in PRODUCTS:
        return others
    long = sum(size > 1 for size in graph.type_of(node.inputs[index]).shape)
    return node.op in BESIDE and others and long <= 1


def looked_up_of(graph: Graph, ties: Mapping[str, str]) -> set[str]:
    """Return the values of which rows are looked up; `ties` are parameters that are another one elsewhere."""
    tables = {value for node in graph.nodes if node.op in TABLES for value in node.inputs}
    tables |= {ties[name] for name in tables if name in ties}
    return tables | {name for name, first in ties.items() if first in tables}


def chosen(
    graph: Graph, stored: Collection[str], train: Iterable[str] = (), freeze: Iterable[str] = ()
) -> list[str]:
    """Return the parameters, with those that patterns `train` name and without those that `freeze` name.

    Raises `UserError` for a pattern that names none of the stored floats.
    """
    found = set(parameters_of(graph, stored))
    for flag, patterns in (("--train", train), ("--freeze", freeze)):
        for pattern in patterns:
            named = {name for name in stored if fnmatch(name, pattern)}
            if not named:
                raise UserError(f"{flag} {pattern!r} names no stored float{nearest(pattern, stored)}")
            found = found | named if flag == "--train" else found - named
    if not found:
        raise UserError(f"graph {graph.name} has no parameters to train")
    return [name for name in graph.inputs if name in found]


def as_constants(graph: Graph, consts: Mapping[str, Const]) -> Graph:
    """Return the graph with inputs turned into constants, and what depends on constants alone computed."""
    inputs = {name: kind for name, kind in graph.inputs.items() if name not in consts}
    whole = Graph(
        graph.name, graph.nodes, inputs, graph.outputs, {**graph.consts, **consts}, graph.notes
    ).with_states(graph.states)
    return Fold()(whole)


def frozen_note(names: Collection[str]) -> tuple[str, ...]:
    """Return what to say of stored floats that are not trained."""
    if not names:
        return ()
    shown = ", ".join(f"%{n}" for n in list(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return (f"not trained: {shown} (constants of the model's making; --train PATTERN trains them)",)
