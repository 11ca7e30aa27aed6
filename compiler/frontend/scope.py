"""What ONNX names stand for while a model is imported, and what ONNX nodes read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtia_emu.errors import UserError

GRADIENT = "ai.onnx.preview.training::Gradient"


@dataclass(frozen=True)
class Absent:
    """A value that could not be made; whatever reads it cannot be made either."""


@dataclass(frozen=True)
class Tensors:
    """A sequence of tensors: either its items, or those along the first axis of one value."""

    items: tuple[str, ...] = ()
    rows: str = ""


@dataclass(frozen=True)
class Nothing:
    """An optional that is empty."""


@dataclass(frozen=True)
class Ragged:
    """Rows `start` to `end` of a value, both known only at run time; without a value, those numbers."""

    value: str
    start: str
    end: str


Value = str | Absent | Tensors | Nothing | Ragged


@dataclass
class Scope:
    """The values that ONNX names stand for, innermost graph first, and the versions of the operator sets."""

    opsets: Mapping[str, int]
    parent: Scope | None = None
    values: dict[str, Value] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def find(self, name: str) -> Value | None:
        """Return what a name stands for, or None."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        return None


def op_key(node: Any) -> str:
    """Return an ONNX node's op type, with its domain when that is not the standard one."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def subgraphs(node: Any) -> Iterator[Any]:
    """Yield the graphs among a node's attributes."""
    for attr in node.attribute:
        if attr.type == 5:  # GRAPH
            yield attr.g
        elif attr.type == 10:  # GRAPHS
            yield from attr.graphs


def reads(node: Any) -> set[str]:
    """Return the names that a node reads from the graph around it, its subgraphs' captures among them."""
    names = {n for n in node.input if n}
    if op_key(node) == GRADIENT:
        names |= {attr.s.decode(errors="replace") for attr in node.attribute if attr.name == "y"}
    for graph in subgraphs(node):
        inner = {o.name for o in graph.output}.union(*(reads(n) for n in graph.node))
        stored = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
        own = {i.name for i in graph.input} | stored
        names |= inner - own.union(*(set(n.output) for n in graph.node))
    return names


def in_order(nodes: Sequence[Any]) -> Sequence[Any]:
    """Return ONNX nodes so that each stands after what it reads; raise `UserError` when they form a cycle."""
    makers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    edges = [(makers[name], i) for i, node in enumerate(nodes) for name in reads(node) if name in makers]
    if all(source < target for source, target in edges):
        return nodes
    import networkx as nx  # few models come out of order

    network = nx.DiGraph(edges)
    network.add_nodes_from(range(len(nodes)))
    try:
        return [nodes[i] for i in nx.lexicographical_topological_sort(network)]
    except nx.NetworkXUnfeasible:
        cycle = [nodes[source] for source, _ in nx.find_cycle(network)][:8]
        names = " -> ".join(f"{op_key(n)} {n.name or n.output[0]}" for n in cycle)
        raise UserError(f"the model's graph has a cycle: {names} -> ...") from None


def nested_nodes(graph: Any) -> int:
    """Return how many nodes a graph has, those of the graphs within it included."""
    return len(graph.node) + sum(nested_nodes(inner) for node in graph.node for inner in subgraphs(node))


def cost(node: Any) -> int:
    """Return the work of importing a node, in nodes of the usual size."""
    return 1 + (len(node.input) + len(node.output)) // 16


@dataclass(frozen=True)
class NodeList:
    """The nodes of a graph or function, each after what it reads, and the names that are read in it.

    `source` is the protobuf message itself: while it is held, no other has its `id`.
    """

    source: Any
    nodes: Sequence[Any]
    used: frozenset[str]

    @classmethod
    def of(cls, source: Any, outputs: Sequence[str]) -> NodeList:
        """Return the body of a graph or function with these outputs."""
        return cls.of_nodes(list(source.node), outputs, source)

    @classmethod
    def of_nodes(cls, nodes: Sequence[Any], outputs: Sequence[str], source: Any = None) -> NodeList:
        """Return a body of these nodes, which have no message of their own without `source`."""
        used = frozenset(outputs).union(*map(reads, nodes))
        return cls(source, in_order(nodes), used)


def graph_attr(node: Any, name: str) -> Any:
    """Return a graph among a node's attributes; raise `UserError` when it is missing."""
    for attr in node.attribute:
        if attr.name == name and attr.type == 5:
            return attr.g
    raise UserError(f"{node.op_type} has no {name}")
