"""The numbers at which a graph may change what it does: its small constants, its attributes, its tapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from mtia_emu.kernels.rows.tape import parse

from ..graph import Graph, Node
from .roles import THROUGH

LARGEST = 16  # elements of a constant whose values are looked at
MOST = 64  # numbers of a graph, the nearest to an input first
LARGER = 1 << 16  # elements of one of which only some are looked at
MEETS = ("less", "less_equal", "greater", "greater_equal", "equal", "min", "max", "mod", "fmod")
"""Ops that do something else from some number on."""
ROUNDS = {"round": (0.5, 1.5, -0.5, 2.5), "floor": (1.0, -1.0), "ceil": (1.0, -1.0)}
KEEPS = (*THROUGH, "relu", "abs", "min", "max")  # behind which a number is what it was, in a range of its own
Undo = Callable[[float], float]
UNARY: dict[str, Undo] = {
    "neg": lambda y: -y,
    "sqrt": lambda y: y * y,
    "exp": math.log,
    "log": math.exp,
    "reciprocal": lambda y: 1 / y,
    "tanh": math.atanh,
    "sigmoid": lambda y: math.log(y / (1 - y)),
}
PLACES = ("epsilon", "value", "alpha", "scale", "threshold")  # attributes that hold numbers to compute with


def landmarks(graph: Graph, name: str) -> tuple[float, ...]:
    """Return at most `MOST` finite numbers that a graph computes with behind an input, the nearest first."""
    numbers: dict[float, None] = {}
    for node in _behind(graph, name):
        for number in _numbers(graph, node):
            if np.isfinite(number):
                numbers.setdefault(float(number))
        if len(numbers) >= MOST:
            break
    return tuple(numbers)[:MOST]


def solved(graph: Graph, name: str) -> tuple[float, ...]:
    """Return at most `MOST` finite numbers of an input where a graph changes what it does, nearest first.

    They are what an input has to be for what is made of it, by steps that can be undone, to meet a number of
    the graph: x * 2 meets 6 at x = 3.
    """
    numbers: dict[float, None] = {}
    seen, work = {name}, _start(name)
    for value, undo in work:
        for node, position in graph.users(value):
            numbers.update(dict.fromkeys(x for y in _met(graph, node) for x in _undone(undo, y)))
            step = _undo(graph, node, position)
            if step is not None and node.output not in seen:
                seen.add(node.output)
                work.append((node.output, _joined(undo, step)))
        if len(numbers) >= MOST:
            break
    return tuple(numbers)[:MOST]


def _start(name: str) -> list[tuple[str, Undo]]:
    return [(name, lambda y: y)]


def _joined(undo: Undo, step: Undo) -> Undo:
    return lambda y: undo(step(y))


def _undone(undo: Undo, number: float) -> Iterator[float]:
    """Yield the finite number of an input that a step makes a number of, if there is one."""
    try:
        value = float(undo(number))
    except (ValueError, ArithmeticError):  # the logarithm of -1, a quotient by 0
        return
    if math.isfinite(value):
        yield value


def _undo(graph: Graph, node: Node, position: int) -> Undo | None:
    """Return what an operand of a node is, of the result; None for a node that is not undone."""
    if node.op in UNARY:
        return UNARY[node.op]
    if node.op in KEEPS or (node.op == "where" and position):
        return lambda y: y
    if node.op == "mul" and node.inputs[0] == node.inputs[1]:
        return math.sqrt
    if node.op not in ("add", "sub", "mul", "div"):
        return None
    other = graph.const(node.inputs[1 - position])
    if other is None or not other.present or not 0 < other.type.size <= LARGEST:
        return None
    return _arithmetic(node.op, position, float(other.array(node.name).reshape(-1)[0]))


def _arithmetic(op: str, position: int, c: float) -> Undo:
    if op == "add":
        return lambda y: y - c
    if op == "mul":
        return lambda y: y / c
    if op == "sub":
        return (lambda y: c - y) if position else (lambda y: y + c)
    return (lambda y: c / y) if position else (lambda y: y * c)


def _met(graph: Graph, node: Node) -> Iterator[float]:
    """Yield the numbers at which a node does something else: of large constants the ends and some between."""
    yield from ROUNDS.get(node.op, ())
    if node.op in MEETS or "tape" in node.attrs:
        yield from _numbers(graph, node)
    if node.op not in MEETS:
        return
    for value in node.inputs:
        const = graph.const(value)
        if const is not None and const.present and LARGEST < const.type.size <= LARGER:
            known = np.unique(const.array(value).astype(np.float64))
            places = np.linspace(0, len(known) - 1, min(LARGEST, len(known)))
            yield from known[np.unique(places.round().astype(int))].tolist()


def _behind(graph: Graph, name: str) -> Iterator[Node]:
    """Yield the nodes that read a value or what is made of it, breadth first."""
    seen, work = {name}, [name]
    for value in work:
        for node, _ in graph.users(value):
            if node.name not in seen:
                seen.add(node.name)
                yield node
                work += node.outputs


def _numbers(graph: Graph, node: Node) -> Iterator[float]:
    for value in node.inputs:
        const = graph.const(value)
        if const is not None and const.present and 0 < const.type.size <= LARGEST:
            yield from np.unique(const.array(value).astype(np.float64)).tolist()
    yield from (float(node.attrs[key]) for key in PLACES if isinstance(node.attrs.get(key), float))
    if "tape" in node.attrs:
        for step in parse(str(node.attrs["tape"])).steps:
            yield from (source for source in step.sources if isinstance(source, float))
