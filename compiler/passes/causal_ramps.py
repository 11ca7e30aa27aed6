"""Causal masks that are too large to be constants: a comparison of the places of queries and keys."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Match

Array = np.ndarray[Any, Any]
BEHIND = {
    "less_equal": 0,
    "less": -1,
}  # keys op queries: how far behind its query the last key is that it sees
AHEAD = {"greater_equal": 0, "greater": -1}  # queries op keys


def ramp_diagonal(name: str, by_truth: bool, lowest: float, match: Match) -> int | None:
    """Return d >= 0 where a mask hides key j from query i for j > i + d and nothing else, else None.

    The mask is the comparison itself (`by_truth`), or chooses by it between 0 and a number of at most
    `lowest`; places of queries and keys are constants that count up by one.
    """
    if not by_truth:
        chooser = match.producer(name, "where")
        if chooser is None:
            return None
        shown, hidden = (match.const(v) for v in chooser.inputs[1:])
        if shown is None or hidden is None or shown.type.size != 1 or hidden.type.size != 1:
            return None
        if float(shown.array().reshape(())) != 0 or float(hidden.array().reshape(())) > lowest:
            return None
        name = chooser.inputs[0]
    node = match.producer(name, *BEHIND, *AHEAD)
    if node is None:
        return None
    keys, queries = node.inputs if node.op in BEHIND else reversed(node.inputs)
    first_key, first_query = _first(keys, -1, match), _first(queries, -2, match)
    if first_key is None or first_query is None:
        return None
    diagonal = first_query - first_key + (BEHIND | AHEAD)[node.op]
    return diagonal if diagonal >= 0 else None


def _first(value: str, axis: int, match: Match) -> int | None:
    """Return the first of whole numbers that count up by one along an axis, the only one; else None."""
    const = match.const(value)
    if const is None or not const.present or const.type.dtype.is_float or const.type.rank < 2:
        return None
    places: Array = const.array()
    if places.size != places.shape[axis]:
        return None
    flat = places.reshape(-1).astype(np.int64)
    return int(flat[0]) if (np.diff(flat) == 1).all() else None
