"""Bags of equal size, each rank's own: a table that every rank has is looked up for its part of the batch."""

from __future__ import annotations

import numpy as np

from ..graph import Graph, Node
from ..ops.layout import WHOLE, Layout
from .draft import SplitDraft, layout_of, version_of


def bagged(draft: SplitDraft, node: Node) -> bool:
    """Add a node that pools rows to every rank, for the bags that its indices are of; say whether it is one.

    That is where indices are split by whole bags of equal size, and no axis of theirs splits the table.
    """
    if node.op != "embedding_bag":
        return False
    table, indices, offsets, *weights = node.inputs
    (axes,) = layout_of(draft, indices).settled.dims
    bags, asked = draft.graph.type_of(offsets).size - 1, draft.policy.tables
    if not axes or bags % draft.policy.count(axes) or set(axes) & set(draft.policy.lookup if asked else ()):
        return False
    if not _even(draft.graph, offsets, draft.graph.type_of(indices).size):
        draft.whole[node.op] = draft.whole.get(node.op, 0) + 1
        return False
    at, whole = Layout((axes,)), Layout.whole(2)
    wanted = {table: whole, indices: at, **dict.fromkeys(filter(None, weights), at)}
    local = {value: version_of(draft, value, layout) for value, layout in wanted.items()}
    first = version_of(draft, offsets, Layout.whole(1))
    ends = (bags // draft.policy.count(axes) + 1,)
    origin = node.origin or node.name
    own = draft.make("slice", (first,), f"{offsets}.own", origin, starts=(0,), ends=ends, steps=(1,))
    operands = (local[table], local[indices], own, *(v and local[v] for v in weights))
    lies = Layout((axes, WHOLE))
    kinds = (draft.local(node.type, lies),)
    draft.add(Node(node.name, node.op, operands, node.outputs, kinds, node.attrs, node.origin))
    draft.versions[node.output] = {lies: node.output}
    draft.read |= {(node.name, value): layout for value, layout in wanted.items()}
    draft.made[node.name, node.output] = lies
    return True


def _even(graph: Graph, offsets: str, count: int) -> bool:
    """Return whether bags begin at the first of `count` indices, end with the last and are of one size."""
    const = graph.consts.get(offsets)
    if const is None or not const.present:
        return False
    sizes = np.diff(const.array(offsets))
    starts = const.array(offsets)[0] == 0 and const.array(offsets)[-1] == count
    return bool(starts and sizes.size and (sizes == sizes[0]).all())
