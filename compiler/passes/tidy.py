"""Leave out what changes nothing and what nobody reads; make equal things once."""

from __future__ import annotations

from dataclasses import dataclass

from ..build import NodeBuilder, stays
from ..graph import Graph, Match, Node, Rewrite
from ..ops.collectives import COLLECTIVES
from .base import Pass, become


@dataclass(frozen=True)
class Fold(Pass):
    """Compute what depends on constants alone, make equal nodes once, drop what changes nothing.

    Exchanges between ranks stay where they stand: of equal ones the second may spare the memory in between.
    """

    def __call__(self, graph: Graph) -> Graph:
        for _ in range(4):
            seen: dict[object, tuple[str, ...]] = {}

            def rule(node: Node, match: Match, seen: dict[object, tuple[str, ...]] = seen) -> Rewrite | None:
                return _simpler(node, match, seen)

            folded = graph.rewrite(rule).prune()
            if folded is graph:
                break
            graph = folded
        return graph


def _simpler(node: Node, match: Match, seen: dict[object, tuple[str, ...]]) -> Rewrite | None:
    key = (node.op, node.inputs, tuple(node.attrs.items()))
    before = () if node.op in COLLECTIVES else seen.get(key, ())
    if before and all(match.producer(v) is not None for v in before):  # it may have been simplified since
        if not any(match.is_output(v) for v in node.outputs):
            return Rewrite(renames=dict(zip(node.outputs, before, strict=True)))
    else:
        seen[key] = node.outputs
    if len(node.outputs) != 1 or stays(node.op, node.inputs, match):
        return None
    builder = NodeBuilder(match)
    builder.origin = node.origin
    (value,) = builder.make(node.op, node.inputs, node.attrs, node.output)
    same = (
        len(builder.nodes) == 1 and builder.nodes[0].op == node.op and builder.nodes[0].inputs == node.inputs
    )
    return None if same else become(node, builder, value)


@dataclass(frozen=True)
class Prune(Pass):
    """Drop nodes that no output needs and constants that no node reads."""

    def __call__(self, graph: Graph) -> Graph:
        return graph.prune()
