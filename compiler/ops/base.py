"""What an op is: its shape rule, its NumPy reference and its work; and the table that lists all of them."""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import numpy as np

from mtia_emu.errors import UserError, refuse_unknown
from mtia_emu.types import (
    FP32,
    WORKS,
    AttentionWork,
    CopyWork,
    DType,
    ElementwiseWork,
    ExpertsWork,
    ImplicitGemmWork,
    ProductWork,
    RowWork,
    ScanWork,
    TensorType,
    Work,
)

from ..graph import Attrs, Graph, Node

Array = np.ndarray[Any, Any]
Types = Sequence[TensorType | None]
Arrays = Sequence[Array | None]
Infer = Callable[[Types, Attrs], tuple[TensorType, ...]]
Reference = Callable[[Arrays, Attrs], tuple[Array, ...]]


@dataclass(frozen=True)
class Count:
    """The work of a node: its class and the sizes of that class, by name.

    Bytes left None are those of the distinct operands and of the results; a class that has none of its own,
    or no `flops`, works them out of its sizes. `moved_bytes`, among those read and those written, stay where
    they are if the result is the next value of the first operand, in its place.
    """

    kind: type[Work]
    sizes: Mapping[str, int] = field(default_factory=dict)
    flops: int = 0
    read_bytes: int | None = None
    write_bytes: int | None = None
    moved_bytes: int = 0

    def in_place(self) -> Count:
        """Return the work where the result lies in the place of the first operand."""
        read, written = (
            None if n is None else n - self.moved_bytes for n in (self.read_bytes, self.write_bytes)
        )
        return replace(self, read_bytes=read, write_bytes=written)

    def work(self, node: str, op: str, dtype: DType, read: int = 0, written: int = 0) -> Work:
        """Return the work of a node; `read` and `written` stand for bytes that are left None."""
        bytes_ = {
            "read_bytes": read if self.read_bytes is None else self.read_bytes,
            "write_bytes": written if self.write_bytes is None else self.write_bytes,
        }
        counted = {"flops": self.flops} | bytes_
        own = {name: value for name, value in counted.items() if name in _FIELDS[self.kind]}
        given: dict[str, Any] = {**self.sizes, **own}
        return self.kind(node, op, dtype, **given)

    @property
    def macs(self) -> int:
        """Return the multiply-adds of products of matrices."""
        return self.work("", "", FP32).macs


Counter = Callable[[Types, tuple[TensorType, ...], Attrs], Count]


@dataclass(frozen=True, eq=False)
class Op:
    """One op of the graph: its name and meaning, operand counts, attributes, and three rules.

    `infer` gives result types, `reference` values (floats computed in fp32 or wider), `count` the work.
    `attrs` are the attributes that a node must have; `optional` those that it may have. What a `stored` op
    makes of constants is larger than they are: it is not computed ahead.
    An op that `looks_up` reads the rows of a table that other operands name.
    """

    name: str
    text: str
    arity: tuple[int, int]
    infer: Infer
    reference: Reference
    count: Counter
    attrs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    stored: bool = False
    looks_up: bool = False


OPS: dict[str, Op] = {}
MOST_INFERRED = 1 << 14  # answers of `infer` that are kept
LONG_ATTRS = 1 << 10  # bytes of attributes beyond which they are not
_inferred: dict[tuple[Op, tuple[TensorType | None, ...], bytes], tuple[TensorType, ...]] = {}


def register(op: Op) -> Op:
    """List an op in `OPS`; a name can be listed once."""
    if op.name in OPS:
        raise ValueError(f"op {op.name} is listed twice")
    OPS[op.name] = op
    return op


def op_named(name: str) -> Op:
    """Return the op of that name; raise `UserError` with the nearest one."""
    if name not in OPS:
        raise refuse_unknown("op", name, OPS)
    return OPS[name]


def infer(name: str, types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    """Return an op's result types; raise `UserError` for operands or attributes that it does not take.

    Layers that repeat ask the same again and again, so answers are kept.
    """
    op = op_named(name)
    written = marshal.dumps(tuple(attrs.items()), 2)  # bytes tell 1, 1.0 and True apart
    key = (op, tuple(types), written)
    found = _inferred.get(key)
    if found is not None:
        return found
    found = _infer(op, types, attrs)
    if len(written) <= LONG_ATTRS:
        if len(_inferred) >= MOST_INFERRED:
            _inferred.clear()
        _inferred[key] = found
    return found


def _infer(op: Op, types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    low, high = op.arity
    if not low <= len(types) <= high or any(t is None for t in types[:low]):
        arity = f"{low}" if low == high else f"{low} to {high}"
        raise UserError(f"{op.name} takes {arity} operands, got {sum(t is not None for t in types)}")
    for attr in attrs:
        if attr not in op.attrs and attr not in op.optional:
            raise refuse_unknown(f"attribute of {op.name}", attr, op.attrs + op.optional)
    for attr in op.attrs:
        if attr not in attrs:
            raise UserError(f"{op.name} needs the attribute '{attr}'")
    return op.infer(types, attrs)


def check_node(node: Node, type_of: Callable[[str], TensorType]) -> None:
    """Raise `UserError`, naming the node and its operands, unless its types are those that its op infers."""
    operands = [type_of(v) if v else None for v in node.inputs]
    try:
        types = infer(node.op, operands, node.attrs)
    except UserError as error:
        raise _refused(node, operands, str(error)) from None
    if types != node.types:
        stated, right = (", ".join(map(str, t)) for t in (node.types, types))
        raise _refused(node, operands, f"stated as {stated}, but its operands give {right}")


def _refused(node: Node, operands: Types, why: str) -> UserError:
    """Return the error of a node whose types are not those that its op infers."""
    source = f"{node.name}{f', from {node.origin}' if node.origin and node.origin != node.name else ''}"
    shown = ", ".join(f"%{v} : {t}" for v, t in zip(node.inputs, operands, strict=True) if v)
    return UserError(f"{node.op} %{node.output}: {why} ({source}); operands {shown or 'none'}")


def reference(name: str, arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    """Return the values of an op's results, an array of its type's shape for each."""
    with np.errstate(all="ignore"):
        return op_named(name).reference(arrays, attrs)


MULTIPLIES = (
    ProductWork,
    ExpertsWork,
    ImplicitGemmWork,
    AttentionWork,
    ScanWork,
)  # their dtype is that of the operands
_FIELDS = {kind: {f.name for f in fields(kind)} for kind in WORKS}


def work(graph: Graph, node: Node) -> Work:
    """Return the work of a node: compulsory traffic reads each distinct operand byte once."""
    operands = [graph.type_of(v) if v else None for v in node.inputs]
    count = op_named(node.op).count(operands, node.types, node.attrs)
    if graph.state_after(node):
        count = count.in_place()
    distinct = {v: graph.type_of(v).bytes for v in node.inputs if v}
    first = operands[0] if operands else None
    kind = first.dtype if first is not None and count.kind in MULTIPLIES else node.type.dtype
    read, written = sum(distinct.values()), sum(t.bytes for t in node.types)
    return count.work(node.name, node.op, kind, read, written)


def need(kind: TensorType | None) -> TensorType:
    """Return an operand's type that `infer` has already found to be there."""
    return cast(TensorType, kind)


def array(value: Array | None) -> Array:
    """Return an operand's value, of any shape, that must be there."""
    return cast(Array, value)


def wide(x: Array) -> Array:
    """Return floats narrower than fp32 as fp32, of the same shape, and all else unchanged."""
    return x if x.dtype.kind in "iubf" and x.dtype != np.float16 else x.astype(np.float32)


def integer(attrs: Attrs, name: str, default: int | None = None) -> int:
    """Return an attribute that must be an integer."""
    value = attrs.get(name, default)
    if not isinstance(value, (int, np.integer)):
        raise UserError(f"attribute '{name}' must be an integer, not {value!r}")
    return int(value)


def number(attrs: Attrs, name: str, default: float) -> float:
    """Return an attribute that must be a number."""
    value = attrs.get(name, default)
    if isinstance(value, (str, tuple)):
        raise UserError(f"attribute '{name}' must be a number, not {value!r}")
    return value


def word(attrs: Attrs, name: str, default: str, known: tuple[str, ...]) -> str:
    """Return an attribute that must be one of the known words."""
    value = attrs.get(name, default)
    if not isinstance(value, str) or value not in known:
        raise refuse_unknown(name, str(value), known)
    return value


def integers(attrs: Attrs, name: str) -> tuple[int, ...]:
    """Return an attribute that must be a tuple of integers."""
    value = attrs.get(name)
    if not isinstance(value, tuple) or not all(isinstance(v, int) for v in value):
        raise UserError(f"attribute '{name}' must be a list of integers, not {value!r}")
    return cast(tuple[int, ...], value)


def axis_of(attrs: Attrs, rank: int, name: str = "axis") -> int:
    """Return an axis attribute, which must lie in 0..rank-1."""
    axis = integer(attrs, name)
    if not 0 <= axis < rank:
        raise UserError(f"{name} {axis} is outside a tensor of rank {rank} (right: 0 to {rank - 1})")
    return axis


def broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the NumPy broadcast of the shapes; raise `UserError` when they do not fit."""
    rank = max((len(s) for s in shapes), default=0)
    result = [1] * rank
    for shape in shapes:
        for i, size in enumerate(shape, rank - len(shape)):
            if result[i] == 1:
                result[i] = size
            elif size not in (1, result[i]):
                raise UserError(f"shapes {' and '.join(str(list(s)) for s in shapes)} do not broadcast")
    return tuple(result)


def fits(shape: tuple[int, ...], into: tuple[int, ...]) -> bool:
    """Return whether a shape broadcasts to another without making it larger."""
    return len(shape) <= len(into) and all(s in (1, t) for s, t in zip(shape[::-1], into[::-1], strict=False))


def same_dtype(types: Types, what: str = "operands") -> DType:
    """Return the one dtype of the present types; raise `UserError` when they differ."""
    present = [t for t in types if t is not None]
    if any(t.dtype != present[0].dtype for t in present):
        raise UserError(f"{what} differ in dtype: {', '.join(map(str, present))}")
    return present[0].dtype


def index_dtype(kind: TensorType) -> None:
    """Raise `UserError` unless the type is one that indices may have."""
    if kind.dtype.name not in ("int64", "int32"):
        raise UserError(f"indices must be int64 or int32, not {kind}")


def vector(flops_per_element: int = 1) -> Counter:
    """Return a counter of elementwise arithmetic on the largest of operands and results."""

    def count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
        size = max(t.size for t in (*types, *results) if t is not None)
        return elementwise(size, flops_per_element * size)

    return count


def elementwise(elements: int, flops: int) -> Count:
    """Return the count of elementwise arithmetic, or of a reduction."""
    return Count(ElementwiseWork, {"elements": elements}, flops)


def rows(flops_per_element: int) -> Counter:
    """Return a counter of an op that holds a whole row, its first operand's last axis, before it writes."""

    def count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
        size, shape = max(t.size for t in (*types, *results) if t is not None), need(types[0]).shape
        row = shape[-1] if shape else 0
        return Count(RowWork, {"elements": size, "row": row}, flops_per_element * size)

    return count


def moved(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    """Count a copy: what is written is read once."""
    bytes_ = sum(t.bytes for t in results)
    return Count(CopyWork, read_bytes=bytes_, write_bytes=bytes_)
