"""Embedding bags spelled as a gather and a reduction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph import Match, Node, Rewrite
from .base import Rule, Rules, become, building

MODES = {"reduce_sum": "sum", "reduce_mean": "mean", "reduce_max": "max"}


@dataclass(frozen=True)
class Bags(Rules):
    """Make reduce(gather(table[r,d], indices[b,p]), axis 1) an embedding bag: rows are pooled on the way in."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_bag,)


def _bag(node: Node, match: Match) -> Rewrite | None:
    if node.op not in MODES or node.attrs["axes"] != (1,):
        return None
    rows = match.producer(node.inputs[0], "gather")
    if rows is None or rows.attrs["axis"] != 0 or match.only_user(rows.output) is not node:
        return None
    table, indices = (match.type_of(v) for v in rows.inputs)
    if table.rank != 2 or indices.rank != 2 or indices.shape[1] == 0 or not table.dtype.is_float:
        return None
    b = building(node, match)
    bags, pooling = indices.shape
    flat = b.add("reshape", rows.inputs[1], shape=(bags * pooling,))
    offsets = b.constant(np.arange(bags + 1) * pooling, indices.dtype.numpy, hint="offsets")
    pooled = b.add("embedding_bag", rows.inputs[0], flat, offsets, mode=MODES[node.op])
    return become(node, b, b.add("reshape", pooled, shape=node.type.shape))
