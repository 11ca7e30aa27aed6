"""Gradients of tables of which rows are looked up: those rows and their indices, which cost follows.

The gradient of a look-up is a sum of rows into zeros as large as the table. Where nothing else depends on a
table, the sum need not be made: an optimiser changes the rows that were looked up, in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mtia_emu.types import INT64

from ..build import NodeBuilder
from ..graph import Graph
from .arithmetic import Arithmetic
from .optimisers import Optimiser


@dataclass(frozen=True)
class Gradient:
    """A gradient: `values` of the weight's shape or, with `indices` [n], rows [n, d] that belong to its rows.

    Rows of equal indices are to be added up, in their order.
    """

    values: str
    indices: str = ""

    def with_values(self, values: str) -> Gradient:
        """Return the gradient with other values at the same places."""
        return Gradient(values, self.indices)


def by_rows(builder: NodeBuilder, value: str) -> Gradient | None:
    """Return a gradient [r, d] as rows and indices, or None where it is not only sums of rows into zeros."""
    node = builder.producer(value)
    kind = builder.type_of(value)
    if node is None or kind.rank != 2:
        return None
    if node.op == "scatter_rows":
        base, indices, rows = node.inputs
        if node.attrs.get("reduction", "none") != "add" or not _is_zero(builder, base):
            return None
        count = builder.type_of(indices).size
        flat = builder.add("reshape", builder.add("cast", indices, to=INT64.name), shape=(count,))
        return Gradient(builder.add("reshape", rows, shape=(count, kind.shape[1])), flat)
    if node.op == "cast":
        found = by_rows(builder, node.inputs[0])
        return found and found.with_values(builder.add("cast", found.values, to=kind.dtype.name))
    parts = [by_rows(builder, v) for v in node.inputs] if node.op == "add" else [None]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    values = builder.add("concat", *(part.values for part in known), axis=0)
    return Gradient(values, builder.add("concat", *(part.indices for part in known), axis=0))


def _is_zero(builder: NodeBuilder, value: str) -> bool:
    """Return whether a value is made of nothing but zeros, as gradient rules make them."""
    node = builder.producer(value, "expand")
    const = builder.const_of(value if node is None else node.inputs[0])
    return const is not None and const.present and not const.array(value).any()


@dataclass(frozen=True)
class Touched:
    """The rows of a table that a gradient belongs to: one for each index, alike where indices are."""

    a: Arithmetic
    gradient: Gradient
    rows: int  # of the table

    @cached_property
    def first(self) -> str:
        """Return for each index the place of the first that names the same row."""
        return self.a("first_equal", self.gradient.indices, rows=self.rows)

    @cached_property
    def once(self) -> str:
        """Return the gradient of each row once, at the first index that names it, and 0 at the others."""
        kind = self.a.builder.type_of(self.gradient.values)
        none = self.a("expand", self.a.number(0, self.gradient.values), shape=kind.shape)
        return self.a("scatter_rows", none, self.first, self.gradient.values, reduction="add")

    @cached_property
    def whole(self) -> str:
        """Return for each index the gradient of its row."""
        return self.a("gather", self.once, self.first, axis=0)

    def of(self, table: str) -> str:
        """Return for each index its row of a table."""
        return self.a("gather", table, self.gradient.indices, axis=0)

    def put(self, table: str, rows: str) -> str:
        """Return a table with other rows where the indices say."""
        return self.a("scatter_rows", table, self.gradient.indices, rows, reduction="none")

    def added(self, table: str, rows: str) -> str:
        """Return a table with rows added where the indices say, one after another."""
        return self.a("scatter_rows", table, self.gradient.indices, rows, reduction="add")


def rows_note(graph: Graph, looked_up: Mapping[str, int], optimiser: Optimiser) -> tuple[str, ...]:
    """Return what to say of tables that are changed by rows, given how many of each at most."""
    if not looked_up:
        return ()
    rows, total = sum(looked_up.values()), sum(graph.type_of(name).shape[0] for name in looked_up)
    which = f"%{next(iter(looked_up))}" + (", ..." if len(looked_up) > 1 else "")
    waits = "; what moves the others without a gradient (momentum, moments, decay) waits until they are"
    return (
        f"tables that are only looked up: {len(looked_up)} ({which}), with gradients of the rows that are, "
        f"{rows:,} of {total:,} at most; only these are changed, in place"
        f"{waits if optimiser.moves_all else ''} (--embeddings tables: gradients of whole tables)",
    )
