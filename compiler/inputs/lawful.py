"""Whether integers are lawful for a graph: found by executing the part of it that makes indices of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..graph import Graph
from ..reference import evaluate
from .roles import DIVISOR, EXPONENT, OFFSETS, ROWS, SHIFT, SMALL, Role, bounds

Array = np.ndarray[Any, Any]
MOST_WORK = 1 << 20  # elements that may be computed to know of one input
EXPONENTS = 4  # powers of integers up to which most fit


class Lawful:
    """Says which values of one input keep what a graph makes of it within what it may be.

    `size` is the most that any of it counts, `rises` whether cuts are made of it. `known` is false where
    that would take too much work, weights that are not there, or where a use tells no bounds: no value is
    known to be lawful then.
    """

    def __init__(self, graph: Graph, name: str) -> None:
        self.bounds = list(bounds(graph, name))
        self.size = max((role.size for _, role in self.bounds if role.what in (ROWS, OFFSETS)), default=0)
        self.rises = any(role.what == OFFSETS for _, role in self.bounds)
        self.part = graph.with_nodes(graph.nodes, outputs=dict.fromkeys(v for v, _ in self.bounds)).prune()
        work = sum(t.size for node in self.part.nodes for t in node.types)
        there = all(const.present for const in self.part.consts.values())
        told = all(role.what != SMALL for _, role in self.bounds)
        self.known = bool(self.bounds) and there and told and work <= MOST_WORK

    def first(self, name: str, candidates: Iterable[Array], others: Mapping[str, Array]) -> Array | None:
        """Return the first of the candidates for the input that is lawful beside the values of all others.

        Where cuts are made of it, sorted ones are tried as well.
        """
        if not self.known:
            return None
        given = (y for x in candidates for y in ((x, np.sort(x, axis=-1)) if self.rises and x.ndim else (x,)))
        return next((x for x in given if self._holds({**others, name: x})), None)

    def _holds(self, inputs: Mapping[str, Array]) -> bool:
        try:
            with np.errstate(all="ignore"):
                results = evaluate(self.part, inputs)
        except Exception:  # NumPy refuses some integers by errors of its own
            return False
        return all(_within(results[value], role) for value, role in self.bounds)


def _within(values: Array, role: Role) -> bool:
    """Return whether values of any shape are what their role allows."""
    if not values.size:
        return True
    low, high = int(values.min()), int(values.max())
    if role.what == ROWS:
        return (-role.size if role.wraps else 0) <= low and high < role.size
    if role.what == OFFSETS:
        return low >= 0 and high <= role.size and bool((np.diff(values, axis=-1) >= 0).all())
    if role.what == DIVISOR:
        return not bool(((values == 0) | (values == -1)).any())
    most = {EXPONENT: EXPONENTS, SHIFT: values.dtype.itemsize * 8}[role.what]
    return low >= 0 and high < most
