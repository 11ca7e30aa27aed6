"""Random values in a graph: an element's place in the whole tensor is its counter, so ranks agree on them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..graph import Node

if TYPE_CHECKING:
    from ..build import NodeBuilder

PHILOX = "philox"
DRAWS = 1 << 32  # that there are


def rows_drawn(nodes: Iterable[Node]) -> int:
    """Return how many rows of random bits nodes draw: those after them are others."""
    return sum(math.prod(node.type.shape[:-1]) for node in nodes if node.op == PHILOX)


def drawn(builder: NodeBuilder, shape: tuple[int, ...], first_row: int, draw: str) -> str:
    """Return 32 random bits of each element as uint32, for a `draw`, a number of uint32.

    Rows are numbered from `first_row` through the graph, so that no two elements share a counter.
    """
    rows = first_row + np.arange(math.prod(shape[:-1]), dtype=np.int64)
    columns = np.arange(shape[-1] if shape else 1, dtype=np.uint32)
    row = builder.constant((rows % DRAWS).astype(np.uint32).reshape(*shape[:-1], *(1,) * bool(shape)))
    column = builder.constant(columns.reshape(shape[-1:]))
    return builder.add(PHILOX, row, column, draw, hint="drawn")


def kept(builder: NodeBuilder, bits: str, ratio: float) -> str:
    """Return whether each element is kept: all but a share of `ratio` are, to 1 in 2^32."""
    least = np.asarray(min(round(ratio * DRAWS), DRAWS - 1), np.uint32)
    return builder.add("greater_equal", bits, builder.constant(least), hint="kept")
