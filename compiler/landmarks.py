"""The numbers at which a graph may change what it does: its small constants, its attributes, its tapes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from mtia_emu.kernels.tape import parse

from .graph import Graph, Node

LARGEST = 16  # elements of a constant whose values are looked at
MOST = 64  # numbers of a graph, the nearest to an input first
PLACES = ("epsilon", "value", "alpha", "scale", "threshold")  # attributes that hold numbers to compute with


def landmarks(graph: Graph, name: str) -> tuple[float, ...]:
    """Return at most `MOST` finite numbers that a graph computes with behind an input, the nearest first."""
    found: dict[float, None] = {}
    for node in _behind(graph, name):
        for number in _numbers(graph, node):
            if np.isfinite(number):
                found.setdefault(float(number))
        if len(found) >= MOST:
            break
    return tuple(found)[:MOST]


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
