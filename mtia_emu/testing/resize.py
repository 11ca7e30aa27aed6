"""Smaller sizes: a graph, or an ONNX model, with a dimension halved wherever it stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeVar

from mtia_emu.compiler.check import check
from mtia_emu.compiler.graph import Const, Graph, Node
from mtia_emu.compiler.nodes import Attr
from mtia_emu.compiler.ops import infer

from ..errors import UserError
from ..types import TensorType

SIZED = ("shape", "starts", "ends", "k")  # attributes that hold sizes
MOST_PAIRS = 60  # of places that are tried two at a time
M = TypeVar("M")
Place = tuple[str, int]  # an input or a constant, and an axis


@dataclass(frozen=True)
class Change:
    """New sizes of some places, and of sizes that stand in attributes, by the old one."""

    places: Mapping[Place, int]
    sizes: Mapping[int, int]

    def shape(self, name: str, old: tuple[int, ...]) -> tuple[int, ...]:
        """Return the new shape of an input or a constant."""
        return tuple(self.places.get((name, axis), n) for axis, n in enumerate(old))


def changes(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Change]:
    """Yield changes that halve a size of inputs and constants, the largest first.

    Each is tried wherever it stands, together with its multiples, in one place alone, and in two.
    """
    places = {(name, axis): n for name, shape in shapes.items() for axis, n in enumerate(shape)}
    for size in sorted({n for n in places.values() if n > 1}, reverse=True):
        mine, new = [place for place, n in places.items() if n == size], size // 2
        multiples = {n: n // size * new for n in places.values() if n and n % size == 0}
        yield Change(dict.fromkeys(mine, new), {size: new})
        yield Change({p: multiples[n] for p, n in places.items() if n in multiples}, multiples)
        few = [*((place,) for place in mine), *combinations(mine, 2)]
        for some in few[:MOST_PAIRS] if len(mine) > 1 else ():
            yield Change(dict.fromkeys(some, new), {size: new})
            yield Change(dict.fromkeys(some, new), {})


def shrink_sizes(graph: Graph, fails: Callable[[Graph], bool]) -> Graph:
    """Return a graph that still fails, with sizes of its inputs and constants halved as often as can be."""
    return halved(graph, shapes_of, resized, fails)


def shapes_of(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs and constants."""
    shapes = {name: kind.shape for name, kind in graph.inputs.items()}
    return shapes | {name: const.type.shape for name, const in graph.consts.items()}


def halved(
    model: M,
    shapes: Callable[[M], Mapping[str, tuple[int, ...]]],
    resize: Callable[[M, Change], M | None],
    fails: Callable[[M], bool],
) -> M:
    """Return a model that still fails, after as many changes of size as can be; none is tried twice."""
    failed: set[Any] = set()
    while True:
        for change in changes(shapes(model)):
            key = (frozenset(change.places.items()), frozenset(change.sizes.items()))
            small = None if key in failed else resize(model, change)
            if small is not None and fails(small):
                model = small
                break
            failed.add(key)
        else:
            return model


def resized(graph: Graph, change: Change) -> Graph | None:
    """Return the graph with sizes changed, types found anew; None where that is no lawful graph."""
    inputs = {k: replace(t, shape=change.shape(k, t.shape)) for k, t in graph.inputs.items()}
    consts = {name: _const(name, const, change) for name, const in graph.consts.items()}
    types = inputs | {name: const.type for name, const in consts.items()}
    nodes = []
    try:
        for node in graph.nodes:
            nodes.append(node_now := _node(node, types, change.sizes))
            types.update(zip(node_now.outputs, node_now.types, strict=True))
        small = Graph(graph.name, nodes, inputs, graph.outputs, consts)
        return check(small.with_states(graph.states), "resize")
    except (UserError, ArithmeticError, LookupError, TypeError, ValueError):  # rules take lawful operands
        return None


def _const(name: str, const: Const, change: Change) -> Const:
    shape = change.shape(name, const.type.shape)
    if shape == const.type.shape:
        return const
    kind = replace(const.type, shape=shape)
    return Const(kind, cut(const.array(name), shape) if const.present else None)


def cut(array: Any, shape: tuple[int, ...]) -> Any:
    """Return the first elements along each axis."""
    return array[tuple(slice(0, n) for n in shape)].copy()


def _node(node: Node, types: Mapping[str, TensorType], sizes: Mapping[int, int]) -> Node:
    attrs = {k: _sized(v, sizes) if k in SIZED else v for k, v in node.attrs.items()}
    if node.op == "reshape":
        attrs["shape"] = _holding(attrs["shape"], types[node.inputs[0]].size)
    types_now = infer(node.op, [types[v] if v else None for v in node.inputs], attrs)
    return replace(node, types=types_now, attrs=attrs)


def _holding(shape: Any, size: int) -> Any:
    """Return a shape of so many elements: the first axis that can be is divided by what is too much."""
    whole = math.prod(shape)
    factor = whole // size if size and whole % size == 0 else 1
    at = next((i for i, n in enumerate(shape) if n % factor == 0), None)
    return shape if at is None else tuple(n // factor if i == at else n for i, n in enumerate(shape))


def _sized(value: Attr, sizes: Mapping[int, int]) -> Any:
    if isinstance(value, tuple | list):
        return tuple(sizes.get(n, n) if isinstance(n, int) else n for n in value)
    return sizes.get(value, value) if isinstance(value, int) and not isinstance(value, bool) else value
