"""Products with routed experts and the scales of their weights and rows as one kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mtia_emu.types import ExpertsWork

from ...graph import Node
from .base import MarkedGraph, Marking, NodeGroup

OP = "expert_matmul"
CHOSEN = 2  # the operand of it that says which experts
TURNS = ("map", "mul", "cast")  # what makes of sums what is written


@dataclass(frozen=True)
class MarkExperts(Marking):
    """Mark the product with routed experts with what scales its sums.

    A grouped gemm knows whose rows it computes: each expert's scales are operands of its epilogue (CUTLASS'
    grouped gemm in TensorRT-LLM, DeepGEMM). In the graph they are gathered for each row, as large as its
    result.
    """

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        taken, groups = set[str](), list[NodeGroup]()
        for node in marked.free:
            found = _scaled(node, marked) if node.op == OP else None
            if found is None:
                continue
            scaling, scales = found
            inside = {node.name, scaling.name, *(n.name for n in scales)} - taken
            taken |= inside
            tables = [n.inputs[0] for n in scales if n.op == "gather"]
            read = sum(marked.graph.type_of(v).bytes for v in tables)
            work = marked.flow.works[node.name]
            assert isinstance(work, ExpertsWork)
            work = replace(work, read_bytes=work.read_bytes + read, write_bytes=scaling.type.bytes)
            groups.append(NodeGroup(marked.flow.in_order(inside), node.name, work))
        return marked.with_groups(groups)


def _scaled(node: Node, marked: MarkedGraph) -> tuple[Node, list[Node]] | None:
    """Return the node that scales a product, and those that bring the scales; None where there is none."""
    scaling = marked.flow.sole_reader(node)
    if scaling is None or scaling.op not in TURNS or scaling.type.size != node.type.size:
        return None
    scales = list(_scales(scaling, node, marked))
    return (scaling, scales) if scales and scaling.name in {n.name for n in marked.free} else None


def _scales(scaling: Node, product: Node, marked: MarkedGraph) -> Iterator[Node]:
    """Yield the nodes that take each row's scales: of weights by its choice, of rows for each choice."""
    graph, flow = marked.graph, marked.flow
    chosen = flow.source(product.inputs[CHOSEN])
    for value in scaling.inputs:
        made = graph.producer(flow.source(value))
        if made is None or made.name not in flow.works or made.name in marked.grouped:
            continue
        by_choice = made.op == "gather" and flow.source(made.inputs[1]) == chosen
        own = by_choice and made.inputs[0] in graph.consts and flow.readers(made) == {scaling.name}
        if own or (made.op == "expand" and made.type.size < scaling.type.size):
            yield made
