"""Convolutions whose results are parts of one tensor as one kernel: a transposed convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtia_emu.types import ImplicitGemmWork

from ...graph import Node
from ...ops.base import integer
from .base import MarkedGraph, Marking, NodeGroup


@dataclass(frozen=True)
class MarkTransposed(Marking):
    """Mark convolutions of one operand with the concats that join their results, in the last concat's place.

    So a transposed convolution, which is imported as one for each place between strides, is the one kernel
    that libraries have for it. It reads its operand once and writes its result once.
    """

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        groups, taken = list[NodeGroup](), set[str]()
        for node in reversed(marked.free):  # what joins most comes last
            if _joins(node) and node.name not in taken:
                found = _joined(node, marked)
                groups += found
                taken.update(name for group in found for name in group.nodes)
        return marked.with_groups(reversed(groups))


def _joins(node: Node) -> bool:
    """Return whether a node puts places, not channels, beside one another."""
    return node.op == "concat" and integer(node.attrs, "axis") > 1


def _joined(last: Node, marked: MarkedGraph) -> list[NodeGroup]:
    """Return the group that ends in a concat, or none."""
    joins, convs, pending = [last], list[Node](), [last]
    while pending:
        for maker in marked.flow.writers(pending.pop()):
            if marked.flow.sole_reader(maker) is None or not (maker.op == "conv" or _joins(maker)):
                return []
            (convs if maker.op == "conv" else joins).append(maker)
            pending += [maker] if maker.op != "conv" else []
    works = [w for c in convs if isinstance(w := marked.flow.works[c.name], ImplicitGemmWork)]
    alike = {(marked.flow.source(c.inputs[0]), w.batch, w.m) for c, w in zip(convs, works, strict=False)}
    if len(works) != len(convs) or len(alike) != 1 or len(convs) < 2:
        return []
    names = marked.flow.in_order(n.name for n in (*joins, *convs))
    return [NodeGroup(names, last.name, _joint(works))]


def _joint(works: list[ImplicitGemmWork]) -> ImplicitGemmWork:
    """Return the work of convolutions of one operand, with as many multiply-adds: windows of the longest."""
    k = max(w.k for w in works)
    return replace(
        works[0],
        k=k,
        n=-(-sum(w.k * w.n for w in works) // k),
        flops=sum(w.flops for w in works),
        read_bytes=sum(w.read_bytes - w.left_bytes for w in works) + works[0].left_bytes,
        write_bytes=sum(w.write_bytes for w in works),
    )
