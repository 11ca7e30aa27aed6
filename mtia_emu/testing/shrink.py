"""Shrinking what fails: the smallest part of a model with which a test still says the same.

`ddmin` is the algorithm of Zeller and Hildebrandt (Simplifying and isolating failure-inducing input, IEEE
Transactions on Software Engineering 28(2), 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from mtia_emu.compiler.graph import Const, Graph

from ..types import TensorType
from .resize import shrink_sizes

T = TypeVar("T", bound=Hashable)
Test = Callable[[Graph], bool]


def ddmin(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """Return a part of `items`, in order, that still fails, but not without any one of its items."""
    kept, pieces = list(items), 2
    while len(kept) > 1:
        size = -(-len(kept) // pieces)
        chunks = [kept[i : i + size] for i in range(0, len(kept), size)]
        part = next((c for c in chunks if len(c) < len(kept) and fails(c)), None) if pieces == 2 else None
        if part is not None:
            kept, pieces = part, 2
            continue
        rest = next((r for c in chunks if fails(r := _without(kept, c))), None)
        if rest is not None:
            kept, pieces = rest, max(pieces - 1, 2)
        elif size == 1:
            break
        else:
            pieces = min(2 * pieces, len(kept))
    return kept


def _without(items: Sequence[T], gone: Iterable[T]) -> list[T]:
    left = set(gone)
    return [item for item in items if item not in left]


def shrink(graph: Graph, fails: Test) -> Graph:
    """Return a part of a graph that still fails: fewer nodes and outputs, smaller sizes, constants of zeros.

    What a removed node made becomes an input; what no node reads any more becomes an output.
    """
    names = ddmin([node.name for node in graph.nodes], lambda some: fails(part(graph, some)))
    small = part(graph, names) if len(names) < len(graph.nodes) else graph
    outputs = ddmin(small.outputs, lambda some: fails(_only(small, some)))
    if len(outputs) < len(small.outputs):
        small = _only(small, outputs)
    small = shrink_sizes(small, fails)
    for name in small.consts:
        simple = _zeroed(small, name)
        if simple is not None and fails(simple):
            small = simple
    return small


def part(graph: Graph, names: Iterable[str]) -> Graph:
    """Return the graph of some nodes, by name: outputs are those of the graph, and what no node reads."""
    chosen = set(names)
    nodes = [node for node in graph.nodes if node.name in chosen]
    read = {v for node in nodes for v in node.inputs if v}
    results = {v for node in nodes for v in node.outputs}
    inputs: dict[str, TensorType] = {v: t for v, t in graph.inputs.items() if v in read}
    inputs |= {v: graph.type_of(v) for v in sorted(read - results - set(inputs) - set(graph.consts))}
    outputs = [v for v in graph.outputs if v in results]
    outputs += [v for node in nodes for v in node.outputs if v not in read and v not in outputs]
    consts = {k: c for k, c in graph.consts.items() if k in read}
    return Graph(graph.name, nodes, inputs, outputs, consts).with_states(graph.states)


def _only(graph: Graph, outputs: Sequence[str]) -> Graph:
    kept = graph.with_nodes(graph.nodes, outputs=outputs).prune()
    read = {v for node in kept.nodes for v in node.inputs} | set(outputs)
    inputs = {v: t for v, t in kept.inputs.items() if v in read}
    return Graph(graph.name, kept.nodes, inputs, outputs, kept.consts).with_states(graph.states)


def _zeroed(graph: Graph, name: str) -> Graph | None:
    """Return the graph with a constant of floats all zero; None where it is that, or absent, already."""
    import numpy as np

    const = graph.consts[name]
    if not const.present or not const.type.dtype.is_float or not const.array(name).any():
        return None
    zeros = Const(const.type, np.zeros(const.type.shape, const.type.dtype.numpy))
    return graph.with_nodes(graph.nodes, consts={**graph.consts, name: zeros})
