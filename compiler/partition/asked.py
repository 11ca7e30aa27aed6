"""Layouts that a model's own annotations ask for, and how a node is split so that it has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..ops.layout import SPLITS, Layout, NodeSplit, Query, kept_whole


@dataclass(frozen=True)
class Asked:
    """Layouts that values are to have at nodes: of operands and of results, by node's name and value.

    `stages` are the stages of a pipeline that nodes are to run in, by name; none where nothing is asked.
    `batches` are the axes of micro-batches, of which annotations say nothing: over them a value stays split.
    """

    operands: Mapping[tuple[str, str], Layout]
    results: Mapping[tuple[str, str], Layout]
    stages: Mapping[str, int]
    batches: frozenset[str] = frozenset()

    def result(self, node: str, value: str, have: Layout) -> Layout:
        """Return the layout that a node's result is to have, which has one already."""
        return self._in_batches(self.results[node, value], have)

    def operand(self, node: str, value: str, have: Layout | None) -> Layout | None:
        """Return the layout that a node is to read a value in; None where nothing is asked."""
        want = self.operands.get((node, value))
        return want if want is None or have is None else self._in_batches(want, have)

    def _in_batches(self, want: Layout, have: Layout) -> Layout:
        own = [tuple(a for a in axes if a in self.batches) for axes in have.dims]
        return Layout(tuple((*batch, *axes) for batch, axes in zip(own, want.dims, strict=True)))


def answered(query: Query, asked: Asked | None) -> tuple[NodeSplit, Query]:
    """Return how a node is split, and what its rule was asked.

    Where the rule by itself wants other layouts than are asked for, it is asked again as if operands lay so
    and could not be had otherwise.
    """
    node, rule = query.node, SPLITS.get(query.node.op, kept_whole)
    answer = rule(query)
    if asked is None:
        return answer, query
    pairs = list(zip(node.inputs, query.layouts, strict=True))
    want = [asked.operand(node.name, value, have) for value, have in pairs]
    if all(x is None or x == y for x, y in zip(want, answer.operands, strict=True)):
        return answer, query
    layouts = tuple(x or have for x, (_, have) in zip(want, pairs, strict=True))
    free = tuple(f and x is None for x, f in zip(want, query.free, strict=True))
    query = replace(query, layouts=layouts, free=free)
    return rule(query), query
