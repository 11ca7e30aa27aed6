"""Names of their own for values of a graph and of those nested in it, where branches use one name for two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from .scope import subgraphs


def distinct(graph: Any) -> Any:
    """Return a GraphProto in which no name stands for two values; itself where that is so already."""
    counts = Counter(_all_names(graph))
    if max(counts.values(), default=1) == 1:
        return graph
    import onnx

    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    _rename(copy, {}, set(), counts)
    return copy


def _own_names(graph: Any) -> Iterator[str]:
    yield from (i.name for i in graph.input)
    yield from (t.name for t in graph.initializer)
    yield from (name for node in graph.node for name in node.output if name)


def _all_names(graph: Any) -> Iterator[str]:
    yield from _own_names(graph)
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _all_names(inner)


def _rename(graph: Any, outer: Mapping[str, str], taken: set[str], known: Mapping[str, int]) -> None:
    """Rename what a graph makes whose name is taken, and what it and its graphs read of it."""
    names = dict(outer)
    for name in _own_names(graph):
        names[name] = _free(name, taken, known)
        taken.add(names[name])
    for value in (*graph.input, *graph.initializer, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for listed in (node.input, node.output):
            listed[:] = [names.get(name, name) for name in listed]
        for inner in subgraphs(node):
            _rename(inner, names, taken, known)


def _free(name: str, taken: set[str], known: Mapping[str, int]) -> str:
    """Return a name that is neither taken nor one of those that the graphs have already."""
    free, count = name, 1
    while free in taken or (free != name and free in known):
        free, count = f"{name}~{count}", count + 1
    return free
