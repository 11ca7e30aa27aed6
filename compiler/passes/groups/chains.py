"""Chains of elementwise work as one kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtia_emu.types import ElementwiseWork, RotaryWork

from .base import MarkedGraph, Marking, NodeGroup

Plain = ElementwiseWork | RotaryWork


@dataclass(frozen=True)
class Chain:
    """Nodes of one chain, by name, and the work of all of them together."""

    nodes: tuple[str, ...]
    work: Plain

    def into(self, last: Chain, between: int) -> Chain:
        """Return this chain followed by another, to which it hands `between` bytes."""
        reads = max(0, last.work.read_bytes - between) + self.work.read_bytes
        whole = replace(last.work, flops=last.work.flops + self.work.flops, read_bytes=reads)
        return Chain((*self.nodes, *last.nodes), whole)


@dataclass(frozen=True)
class MarkChains(Marking):
    """Mark elementwise work with the one node that reads its result, where both have the same elements.

    What goes from one to the other is neither written nor read; the kernel runs in the last one's place.
    """

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        works, groups = marked.flow.works, list[NodeGroup]()
        plain = {n.name: w for n in marked.free if isinstance(w := works[n.name], Plain)}
        chains = {name: Chain((name,), work) for name, work in plain.items()}
        for name, work in plain.items():
            chain, reader = chains[name], marked.flow.sole_reader(marked.graph.by_name[name])
            if reader is not None and reader.name in plain and plain[reader.name].elements == work.elements:
                chains[reader.name] = chain.into(chains[reader.name], work.write_bytes)
            elif len(chain.nodes) > 1:
                groups.append(NodeGroup(marked.flow.in_order(chain.nodes), name, chain.work))
        return marked.with_groups(groups)
