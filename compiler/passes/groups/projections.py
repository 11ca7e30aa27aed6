"""Projections of one input as one kernel: queries, keys and values of attention."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TypeGuard

from mtia_emu.types import ProductWork, Work

from ...graph import Node
from .base import MarkedGraph, Marking, NodeGroup


@dataclass(frozen=True)
class MarkProjections(Marking):
    """Mark products of one input as one product of all their columns, in the first one's place.

    They are plain ones, or all end in the same arithmetic with a number a row or a column: scales of 8 bits.
    """

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        families: dict[Hashable, list[Node]] = {}
        for node in marked.free:
            work = marked.flow.works[node.name]
            if _is_linear(work) and _is_plain(node, work, marked):
                ends = tuple(str(node.attrs.get(name)) for name in ("tape", "to"))
                key = (marked.flow.source(node.inputs[0]), work.dtype, work.m, work.k, node.op, ends)
                families.setdefault(key, []).append(node)
        groups = [_joint(family, marked) for family in families.values() if len(family) > 1]
        return marked.with_groups(groups)


def _is_linear(work: Work) -> TypeGuard[ProductWork]:
    """Return whether a work is one matrix that multiplies all rows."""
    return isinstance(work, ProductWork) and work.batch == 1


def _is_plain(node: Node, work: ProductWork, marked: MarkedGraph) -> bool:
    """Return whether a product has two operands, and beside them vectors of its rows or columns at most."""
    if node.op == "matmul":
        return len(list(filter(None, node.inputs))) == 2
    sizes = [marked.graph.type_of(v).size for v in node.inputs[2:] if v]
    return node.op == "matmul_map" and bool(sizes) and all(size in (1, work.m, work.n) for size in sizes)


def _joint(family: list[Node], marked: MarkedGraph) -> NodeGroup:
    """Return the group of products of one input, which is read once."""
    works = [w for w in (marked.flow.works[n.name] for n in family) if isinstance(w, ProductWork)]
    first, left = works[0], works[0].m * works[0].k * works[0].dtype.bytes
    whole = replace(
        first,
        n=sum(w.n for w in works),
        flops=sum(w.flops for w in works),
        read_bytes=sum(w.read_bytes for w in works) - left * (len(works) - 1),
        write_bytes=sum(w.write_bytes for w in works),
    )
    return NodeGroup(tuple(n.name for n in family), family[0].name, whole)
