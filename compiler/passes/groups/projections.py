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
    """Mark plain products of one input as one product of all their columns, in the first one's place."""

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        families: dict[Hashable, list[Node]] = {}
        for node in marked.free:
            work = marked.flow.works[node.name]
            if node.op == "matmul" and len(list(filter(None, node.inputs))) == 2 and _is_linear(work):
                key = (marked.flow.source(node.inputs[0]), work.dtype, work.m, work.k)
                families.setdefault(key, []).append(node)
        groups = [_joint(family, marked) for family in families.values() if len(family) > 1]
        return marked.with_groups(groups)


def _is_linear(work: Work) -> TypeGuard[ProductWork]:
    """Return whether a work is one matrix that multiplies all rows."""
    return isinstance(work, ProductWork) and work.batch == 1


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
