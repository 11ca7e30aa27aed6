"""Data types, tensor types and the work of a model: what every room may know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol, get_args

import ml_dtypes
import numpy as np

from .errors import UserError, refuse_unknown
from .options import COLD


@dataclass(frozen=True)
class DType:
    """An element type: its name in our texts, its NumPy type, and its width in bits."""

    name: str
    numpy: np.dtype
    bits: int

    @property
    def bytes(self) -> int:
        """Return the bytes one element takes in memory."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        """Return whether values are floating point."""
        return self.name.startswith(("fp", "bf"))

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


DIGITS = 18  # of a dimension: fewer than 2^62
DTYPES: dict[str, DType] = {}
_BY_NUMPY: dict[np.dtype, DType] = {}


def declare_dtype(name: str, numpy: object, bits: int) -> DType:
    """Return a new dtype, which `dtype` then finds by its name and `dtype_of` by its NumPy type."""
    kind = DType(name, np.dtype(numpy), bits)  # type: ignore[call-overload]
    DTYPES[name] = _BY_NUMPY[kind.numpy] = kind
    return kind


FP64 = declare_dtype("fp64", np.float64, 64)
FP32 = declare_dtype("fp32", np.float32, 32)
FP16 = declare_dtype("fp16", np.float16, 16)
BF16 = declare_dtype("bf16", ml_dtypes.bfloat16, 16)
FP8_E4M3 = declare_dtype("fp8_e4m3", ml_dtypes.float8_e4m3fn, 8)
FP8_E5M2 = declare_dtype("fp8_e5m2", ml_dtypes.float8_e5m2, 8)
NARROW_FLOATS = (FP8_E4M3, FP8_E5M2)  # that products are computed in: weights and activations become them
INT64 = declare_dtype("int64", np.int64, 64)
INT32 = declare_dtype("int32", np.int32, 32)
INT16 = declare_dtype("int16", np.int16, 16)
INT8 = declare_dtype("int8", np.int8, 8)
UINT64 = declare_dtype("uint64", np.uint64, 64)
UINT32 = declare_dtype("uint32", np.uint32, 32)
UINT16 = declare_dtype("uint16", np.uint16, 16)
UINT8 = declare_dtype("uint8", np.uint8, 8)
BOOL = declare_dtype("bool", np.bool_, 8)
# Formats that a model may store and convert; in memory each element takes a byte.
FP8_E4M3FNUZ = declare_dtype("fp8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz, 8)
FP8_E5M2FNUZ = declare_dtype("fp8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz, 8)
FP8_E8M0 = declare_dtype("fp8_e8m0", ml_dtypes.float8_e8m0fnu, 8)
FP4_E2M1 = declare_dtype("fp4_e2m1", ml_dtypes.float4_e2m1fn, 4)
INT4 = declare_dtype("int4", ml_dtypes.int4, 4)
UINT4 = declare_dtype("uint4", ml_dtypes.uint4, 4)
INT2 = declare_dtype("int2", ml_dtypes.int2, 2)
UINT2 = declare_dtype("uint2", ml_dtypes.uint2, 2)
STORED = (FP8_E4M3FNUZ, FP8_E5M2FNUZ, FP8_E8M0, FP4_E2M1, INT4, UINT4, INT2, UINT2)


def dtype(name: str) -> DType:
    """Return the dtype of that name; raise `UserError` naming the nearest one."""
    if name not in DTYPES:
        raise refuse_unknown("dtype", name, DTYPES)
    return DTYPES[name]


def dtype_of(array: np.ndarray) -> DType:
    """Return the dtype of a NumPy array of any shape; raise `UserError` for a type that we do not have."""
    if array.dtype not in _BY_NUMPY:
        raise UserError(f"arrays of {array.dtype} are not supported (known: {', '.join(DTYPES)})")
    return _BY_NUMPY[array.dtype]


@dataclass(frozen=True)
class TensorType:
    """The type of a tensor: element type and static shape. Printed as `fp16[8,64]`."""

    dtype: DType
    shape: tuple[int, ...]

    @cached_property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Return the bytes of the tensor, packed."""
        return self.size * self.dtype.bytes

    @property
    def rank(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def parse_type(text: str) -> TensorType:
    """Return the type that `str` printed; raise `UserError` for other text."""
    name, bracket, rest = text.strip().partition("[")
    if not bracket or not rest.endswith("]"):
        raise UserError(f"not a tensor type: {text[:80]!r} (right: fp16[8,64])")
    dims = rest[:-1].split(",") if rest != "]" else []
    if not all(_is_size(d.strip()) for d in dims):
        raise UserError(f"not a tensor type: {text[:80]!r} (dimensions are integers, as in fp16[8,64])")
    return TensorType(dtype(name), tuple(int(d) for d in dims))


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= DIGITS


OF_DATA = {"of_data": True}  # what a field of a work has that no program tells: it depends on a run's inputs


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
    the scores again, then the gradients of queries, keys and values: five products.
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
        cache = self.batch * self.kv_heads * self.keys * (self.key_size + self.value_size)
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


Work = (ProductWork | AttentionWork | ElementwiseWork | RowWork | RotaryWork | BagWork | CopyWork | ScanWork
        | ImplicitGemmWork | ExpertsWork)  # fmt: skip
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
