"""Rows added into zeros, as a table's gradient is: each rank adds its own, and owes the sum of all."""

from __future__ import annotations

import numpy as np

from ..build import FOLD_ELEMENTS
from ..graph import Graph, Node
from ..ops.layout import WHOLE, Layout
from .draft import SplitDraft, layout_of, version_of


def scattered(draft: SplitDraft, node: Node) -> bool:
    """Add a node that adds rows into zeros to every rank, where ranks have rows of their own; say whether.

    The rows of a rank stay where they are: no other gets them.
    """
    if node.op != "scatter_rows" or node.attrs.get("reduction", "none") != "add":
        return False
    base, indices, rows = node.inputs
    lies = layout_of(draft, rows).settled
    *at, columns = lies.dims
    over = tuple(axis for axes in at for axis in axes)
    if not over or not _is_zero(draft.graph, base):
        return False
    onto = Layout((WHOLE, columns))
    wanted = {base: onto, indices: Layout(tuple(at)), rows: lies}
    operands = tuple(version_of(draft, value, layout) for value, layout in wanted.items())
    owed = onto.owing(over)
    kinds = (draft.local(node.type, owed),)
    draft.add(Node(node.name, node.op, operands, node.outputs, kinds, node.attrs, node.origin))
    draft.versions[node.output] = {owed: node.output}
    draft.read |= {(node.name, value): layout for value, layout in wanted.items()}
    draft.made[node.name, node.output] = owed
    return True


def _is_zero(graph: Graph, value: str) -> bool:
    """Return whether a value is zeros: a constant, or made of one."""
    maker = graph.producer(value)
    name = value if maker is None else maker.inputs[0]
    const = graph.consts.get(name)
    if const is None or not const.present or (maker is not None and maker.op != "expand"):
        return False
    return const.type.size <= FOLD_ELEMENTS and not np.any(const.array(name))
