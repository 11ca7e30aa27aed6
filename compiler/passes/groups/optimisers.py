"""What an optimiser makes of a weight as one kernel, as apex and torch's fused optimisers have it."""

from __future__ import annotations

from dataclasses import dataclass

from mtia_emu.types import ElementwiseWork

from ...gradients.marks import OPTIMISER
from ...graph import Node
from .base import Flow, MarkedGraph, Marking, NodeGroup


@dataclass(frozen=True)
class MarkOptimisers(Marking):
    """Mark the elementwise work of an optimiser on one weight, in the last one's place.

    The kernel reads weight, gradient and states once, and writes what the next step needs of them. What
    others read too, as the norm of all gradients does, stands apart.
    """

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        families: dict[tuple[str, int], list[Node]] = {}
        for node in marked.free:
            counted = marked.flow.works[node.name]
            if node.origin.endswith(OPTIMISER) and isinstance(counted, ElementwiseWork):
                families.setdefault((node.origin, counted.elements), []).append(node)
        closed = [_closed(family, marked.flow) for family in families.values()]
        return marked.with_groups(_joint(nodes, marked) for nodes in closed if len(nodes) > 1)


def _closed(family: list[Node], flow: Flow) -> list[Node]:
    """Return the nodes whose results only nodes among them read, or the next step does."""
    names = {node.name for node in family}
    while True:
        kept = {name for name in names if flow.readers(flow.graph.by_name[name]) <= names | {""}}
        if kept == names:
            return [node for node in family if node.name in kept]
        names = kept


def _joint(family: list[Node], marked: MarkedGraph) -> NodeGroup:
    """Return the group of nodes of one weight; what they hand one another is neither read nor written."""
    graph, flow = marked.graph, marked.flow
    works = [w for n in family if isinstance(w := flow.works[n.name], ElementwiseWork)]
    made = {v for node in family for v in node.outputs}
    read = {flow.source(v) for node in family for v in node.inputs if v} - made
    written = [v for v in made if "" in flow.readers_of(v)]
    whole = ElementwiseWork(
        family[-1].name,
        "update",
        works[-1].dtype,
        elements=works[-1].elements,
        flops=sum(w.flops for w in works),
        read_bytes=sum(graph.type_of(v).bytes for v in read),
        write_bytes=sum(graph.type_of(v).bytes for v in written),
    )
    return NodeGroup(tuple(n.name for n in family), family[-1].name, whole)
