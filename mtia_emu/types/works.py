"""The work of a model: what each kernel must do, whatever machine does it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, get_args

import numpy as np

from ..options import COLD
from .elements import DType

OF_DATA = {"of_data": True}
"""What a field of a work has that no program tells: it depends on the inputs of a run."""


@dataclass(frozen=True)
class _NodeWork:
    """What the work of every node has: the node's name and op, and the element type that it computes in."""

    name: str
    op: str
    dtype: DType


@dataclass(frozen=True, kw_only=True)
class ProductWork(_NodeWork):
    """Products of matrices, [batch, m, k] x [batch, k, n], and `flops` of arithmetic on their results."""

    kind: ClassVar[str] = "matmul"
    batch: int
    m: int
    k: int
    n: int
    flops: int
    read_bytes: int
    write_bytes: int

    @property
    def macs(self) -> int:
        """Return the multiply-adds."""
        return self.batch * self.m * self.k * self.n


@dataclass(frozen=True, kw_only=True)
class ImplicitGemmWork(ProductWork):
    """A convolution as a product of windows by weights, in `batch` groups: m places, k a window, n channels.

    The windows overlap: no matrix [m, k] is ever in memory. `left_bytes` are those of what they lie in.
    """

    left_bytes: int


@dataclass(frozen=True, kw_only=True)
class ExpertsWork(ProductWork):
    """`rows` rows, each times [k, n], `expert_bytes`, of its expert: `batch` experts have about `m` each."""

    rows: int
    expert_bytes: int

    @property
    def macs(self) -> int:
        """Return the multiply-adds of the rows that there are."""
        return self.rows * self.k * self.n


@dataclass(frozen=True, kw_only=True)
class AttentionWork(_NodeWork):
    """softmax(q k^T) v of `batch` sequences: `group` query heads share each of `kv_heads` heads of keys.

    Each query head has `queries` rows of `key_size` and sees `keys` keys; values have `value_size`. A mask
    that is known hides keys j > i + `diagonal` from query i; None where none is known. The way `back` makes
    the scores again, then the gradients of queries, keys and values: five products. `shared_size` elements of
    a value are part of its key, as latents are, and in memory once.
    """

    kind: ClassVar[str] = "attention"
    flops: ClassVar[int] = 0
    batch: int
    kv_heads: int
    group: int
    queries: int
    keys: int
    key_size: int
    value_size: int
    diagonal: int | None = None
    back: bool = False
    shared_size: int = 0

    @property
    def rows(self) -> int:
        """Return the rows of queries in all heads."""
        return self.batch * self.kv_heads * self.group * self.queries

    @property
    def macs(self) -> int:
        """Return the multiply-adds of all products, hidden ones included."""
        wide = 3 * self.key_size + 2 * self.value_size if self.back else self.key_size + self.value_size
        return self.rows * self.keys * wide

    @property
    def read_bytes(self) -> int:
        """Return the bytes of queries, keys and values, on the way back of results and theirs, read once."""
        cache = self.batch * self.kv_heads * self.keys * (self.key_size + self.value_size - self.shared_size)
        return (self.rows * (self.key_size + 2 * self.back * self.value_size) + cache) * self.dtype.bytes

    @property
    def write_bytes(self) -> int:
        """Return the bytes of the result, on the way back of three gradients."""
        results = self.rows * self.value_size * self.dtype.bytes
        return self.read_bytes - 2 * results if self.back else results


@dataclass(frozen=True, kw_only=True)
class _VectorWork(_NodeWork):
    """Arithmetic that is no product of matrices: `flops` on `elements`."""

    kind: ClassVar[str] = "vector"
    macs: ClassVar[int] = 0
    elements: int
    flops: int
    read_bytes: int
    write_bytes: int


@dataclass(frozen=True, kw_only=True)
class ElementwiseWork(_VectorWork):
    """Arithmetic on elements, or a reduction of them, at which no row waits for itself."""


@dataclass(frozen=True, kw_only=True)
class RowWork(_VectorWork):
    """A norm, a softmax or quantising, which holds a whole row of `row` elements before it writes any."""

    row: int


@dataclass(frozen=True, kw_only=True)
class RotaryWork(_VectorWork):
    """Rotary embedding: a block a token, which goes through `row` elements in steps; 0: not known."""

    row: int = 0


class RowLaw(Protocol):
    """How unevenly the rows of tables are looked up, run after run; equal ones have equal texts."""

    def shares(self, lookups: np.ndarray, rows: int) -> np.ndarray:
        """Return the share of a table's rows, the hottest first, that take shares of look-ups, any shape."""


@dataclass(frozen=True)
class TableUse:
    """How a run looks up a table of `rows` rows: by which law, evenly without one, as every run before.

    `distinct` rows are looked up in this run, where they were counted.
    """

    rows: int
    lookups: int
    law: RowLaw | None = None
    distinct: int | None = None


@dataclass(frozen=True, kw_only=True)
class BagWork(_NodeWork):
    """Look-ups in a table of `rows` rows of `dim` elements, pooled to `bags` results.

    Where data tell, `tables` are the tables that are looked up as one. `before` works just before it, and
    `behind` just behind it in a model's order, neither make what it reads nor read what it makes.
    """

    kind: ClassVar[str] = "embedding_bag"
    macs: ClassVar[int] = 0
    lookups: int
    bags: int
    dim: int
    rows: int
    flops: int
    read_bytes: int
    write_bytes: int
    before: int = 0
    behind: int = 0
    tables: tuple[TableUse, ...] = field(default=(), metadata=OF_DATA)


def distinct_rows(draws: int, rows: int) -> float:
    """Return how many of `rows` rows so many even draws name, on average."""
    return rows * -math.expm1(draws * math.log1p(-1 / rows)) if rows > 1 else float(min(draws, rows))


@dataclass(frozen=True, kw_only=True)
class RowUpdateWork(_NodeWork):
    """Rows of a table of `rows` rows changed by gradients of `dim` elements, one for each of `lookups`.

    Gradients of equal rows are summed first: even draws name `changed` rows on average. `pieces` rows of the
    table and of states are written, `narrow` of them of one element, `write_bytes` in all; `old_bytes` of
    those are read. What else is read is gradients, indices and places.
    """

    kind: ClassVar[str] = "row_update"
    macs: ClassVar[int] = 0
    lookups: int
    dim: int
    rows: int
    changed: int
    pieces: int
    narrow: int
    old_bytes: int
    flops: int
    read_bytes: int
    write_bytes: int


@dataclass(frozen=True, kw_only=True)
class CopyWork(_NodeWork):
    """A move of elements: a copy, a transpose, a gather."""

    kind: ClassVar[str] = "move"
    macs: ClassVar[int] = 0
    flops: ClassVar[int] = 0
    read_bytes: int
    write_bytes: int


@dataclass(frozen=True, kw_only=True)
class ScanWork(_NodeWork):
    """A loop of `steps`, each of which waits for the states that the one before it leaves.

    With a weight, each multiplies [rows, k] x [k, n] and does elementwise work on the result; without one (k
    and n are 0), each of `rows` elements goes its own way. `depth` is the operations that an element of a
    state passes through in a step.
    """

    kind: ClassVar[str] = "scan"
    steps: int
    rows: int
    k: int
    n: int
    depth: int
    flops: int
    read_bytes: int
    write_bytes: int

    @property
    def macs(self) -> int:
        """Return the multiply-adds of all steps."""
        return self.steps * self.rows * self.k * self.n


Work = (
    ProductWork | AttentionWork | ElementwiseWork | RowWork | RotaryWork | BagWork | CopyWork | ScanWork
    | ImplicitGemmWork | ExpertsWork | RowUpdateWork
)  # fmt: skip
"""What one kernel must do, whatever machine does it.

Bytes are compulsory traffic: each distinct operand byte once. `macs` are multiply-adds of products of
matrices, `flops` all other arithmetic. `kind` is the family that reports and error bands go by.
"""

WORKS: tuple[type[Work], ...] = get_args(Work)


@dataclass(frozen=True)
class WorkGroup:
    """Nodes that a serving runtime runs as one kernel: what the whole does, and which works it replaces.

    `parts` are the places of those works among all of a model, in order; the kernel runs in place `at`.
    """

    work: Work
    parts: tuple[int, ...]
    at: int


def launched(works: Sequence[Work], groups: Sequence[WorkGroup]) -> tuple[Work, ...]:
    """Return what a serving runtime launches for works, in order: groups in place of their parts."""
    return tuple(work for _, work in placed(works, groups))


def placed(works: Sequence[Work], groups: Sequence[WorkGroup]) -> tuple[tuple[tuple[int, ...], Work], ...]:
    """Return what a serving runtime launches for works, in order, each with the places of all its parts."""
    inside = {i for group in groups for i in group.parts}
    whole = {group.at: group for group in groups}
    out: list[tuple[tuple[int, ...], Work]] = []
    for i, work in enumerate(works):
        if i in whole:
            out.append((whole[i].parts, whole[i].work))
        elif i not in inside:
            out.append(((i,), work))
    return tuple(out)


@dataclass(frozen=True)
class ModelWork:
    """What a model asks of any machine: the work of each node, in order, and groups that run as one kernel.

    `dtype` is the number format that it runs in, `dims` are its symbolic dimensions. A work is in one group
    at most. `state` is how a run finds the machine: cold, or warm from runs before.
    """

    works: tuple[Work, ...]
    groups: tuple[WorkGroup, ...] = ()
    model: str = ""
    dtype: str = "fp16"
    dims: Mapping[str, int] = field(default_factory=dict)
    state: str = COLD
