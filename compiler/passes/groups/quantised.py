"""Quantising as the end of the kernel before it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtia_emu.types import AttentionWork, Work

from ...graph import Node
from .base import MarkedGraph, Marking, NodeGroup

OP = "quantise_rows"


@dataclass(frozen=True)
class MarkQuantised(Marking):
    """Mark quantising with the kernel that writes what it reads, which then writes 8 bits an element.

    So do runtimes with scales that calibration fixed (TensorRT fuses Q and DQ; vLLM has passes for norms,
    activations and attention): the GPU at its strongest. What another kernel reads too is also written as it
    was. Inputs of the model have no kernel before them.
    """

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        groups = {name: group for group in marked.groups for name in group.nodes}
        grown = dict[str, NodeGroup]()  # by the node that a group runs at
        for node in marked.free:
            makers = [n for n in marked.flow.writers(node) if n.name in marked.flow.works]
            if node.op != OP or len(makers) != 1:
                continue
            alone = NodeGroup((makers[0].name,), makers[0].name, marked.flow.works[makers[0].name])
            before = groups.get(makers[0].name, alone)
            before = grown.get(before.at, before)
            names = marked.flow.in_order((*before.nodes, node.name))
            grown[before.at] = NodeGroup(names, before.at, _ending(before.work, makers[0], node, marked))
        kept = [g for g in marked.groups if g.at not in grown]
        return replace(marked, groups=(*kept, *grown.values()))


def _ending(work: Work, maker: Node, node: Node, marked: MarkedGraph) -> Work:
    """Return the work of a kernel that quantises its result at its end."""
    if isinstance(work, AttentionWork):
        return work  # its bytes are those of its heads
    quantising = marked.flow.works[node.name]
    reader = marked.flow.sole_reader(maker)
    spared = maker.type.bytes if reader is not None and reader.name == node.name else 0
    written = max(0, work.write_bytes - spared) + quantising.write_bytes
    return replace(work, write_bytes=written)
