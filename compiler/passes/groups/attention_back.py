"""The way back through attention as one kernel: FlashAttention's, which makes the scores again by blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtia_emu.types import AttentionWork

from ...gradients.marks import BACKWARD
from ...graph import Node
from .base import MarkedGraph, Marking, NodeGroup

MADE_AGAIN = ("softmax", "attention_back")  # what the rule makes shares by, op by op or at once


@dataclass(frozen=True)
class MarkAttentionBack(Marking):
    """Mark what the gradient rule of an `attention` op made, in the place of its last node.

    All of it says in its origin which attention it is of. It reads what the forward pass made and the
    gradient of the result, and nothing that is made of its own results.
    """

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        families: dict[str, list[Node]] = {}
        for node in marked.free:
            if node.origin.endswith(BACKWARD):
                families.setdefault(node.origin, []).append(node)
        groups = []
        for node in marked.graph.nodes:
            work = marked.flow.works.get(node.name)
            family = families.get(f"{node.origin or node.name}{BACKWARD}", [])
            if isinstance(work, AttentionWork) and any(n.op in MADE_AGAIN for n in family):
                whole = replace(work, name=family[-1].name, back=True)
                groups.append(NodeGroup(tuple(n.name for n in family), family[-1].name, whole))
        return marked.with_groups(groups)
