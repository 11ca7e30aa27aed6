"""Updates of looked-up rows as one kernel: all tables of one width that are changed alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtia_emu.types import RowUpdateWork

from ...graph import Node
from .base import MarkedGraph, Marking, NodeGroup


@dataclass(frozen=True)
class MarkUpdates(Marking):
    """Mark updates that table-batched embeddings (FBGEMM) run at once: one sort, and a warp for each run."""

    def __call__(self, marked: MarkedGraph) -> MarkedGraph:
        alike = dict[object, list[Node]]()
        for node in marked.free:
            work = marked.flow.works[node.name]
            if isinstance(work, RowUpdateWork):
                alike.setdefault((work.dim, work.dtype, *node.attrs.items()), []).append(node)
        groups = [_together(nodes, marked) for nodes in alike.values() if len(nodes) > 1]
        return marked.with_groups(groups)


def _together(nodes: list[Node], marked: MarkedGraph) -> NodeGroup:
    """Return a group of updates: what each does, added up."""
    works = [w for n in nodes if isinstance(w := marked.flow.works[n.name], RowUpdateWork)]
    sizes = (
        "lookups",
        "rows",
        "changed",
        "pieces",
        "narrow",
        "old_bytes",
        "flops",
        "read_bytes",
        "write_bytes",
    )
    whole = replace(works[-1], **{name: sum(getattr(w, name) for w in works) for name in sizes})
    names = marked.flow.in_order(n.name for n in nodes)
    return NodeGroup(names, names[-1], whole)
