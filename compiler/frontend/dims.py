"""Giving sizes to the symbolic dimensions of a model's inputs."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from mtia_emu.errors import UserError, refuse_unknown
from mtia_emu.types import TensorType

from ..ops.onnx_types import DTYPE_OF_ONNX
from .files import shape_of, text_of

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
LONGEST = 200  # characters of an expression


def _parse(text: str) -> ast.expr | None:
    """Return the expression in a dimension's name; None when it has no form that we evaluate."""
    if len(text) > LONGEST:
        return None
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _evaluate(node: ast.expr, sizes: Mapping[str, int]) -> int | None:
    """Return the value of +, -, *, // over integers and known names; None when it has anything else."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return sizes.get(node.id)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left, sizes), _evaluate(node.right, sizes)
        if left is None or right is None or (isinstance(node.op, ast.FloorDiv) and right == 0):
            return None
        return _OPERATORS[type(node.op)](left, right)
    return None


def symbols(text: str) -> set[str]:
    """Return the names in a symbolic dimension: itself, or those of its expression."""
    node = _parse(text)
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} if node is not None else set()
    simple = node is not None and all(
        isinstance(n, (ast.expr, ast.operator, ast.expr_context)) for n in ast.walk(node)
    )
    return (
        names
        if names and simple and not isinstance(node, ast.Call)
        else ({text} if not _number(text) else set())
    )


def _number(text: str) -> bool:
    return text.strip().isascii() and text.strip().isdigit()


def size_of(text: str, sizes: Mapping[str, int]) -> int | None:
    """Return the size that a symbolic dimension has under the given ones, or None."""
    if text in sizes:
        return sizes[text]
    if _number(text):
        return int(text.strip()[:20])
    node = _parse(text)
    return None if node is None else _evaluate(node, sizes)


def bind(
    inputs: list[Any], dims: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, TensorType]:
    """Return the static types of graph inputs (ValueInfoProtos).

    A shape in `shapes` wins for its input, and gives sizes to the symbols that `dims` leaves open elsewhere.
    """
    names = [i.name for i in inputs]
    for name in shapes:
        if name not in names:
            raise refuse_unknown("input", name, names)
    _refuse_strangers(inputs, dims)
    sizes = _known_sizes(inputs, dims, shapes)
    unbound: dict[str, list[str]] = {}
    types = {i.name: _bind_input(i, sizes, shapes.get(i.name), unbound) for i in inputs}
    if unbound:
        unbound_text = "; ".join(f"'{symbol}' (in {', '.join(where)})" for symbol, where in unbound.items())
        example = " ".join(
            f"--dim '{s}=1'" if not s.replace("_", "").isalnum() else f"--dim {s}=1" for s in unbound
        )
        raise UserError(f"dimensions have no size: {unbound_text}; give each one, for example: {example}")
    return types


def _tensor_type(value: Any) -> Any | None:
    """Return the type of an input that is a tensor, or an optional that holds one."""
    kind = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
    return kind.tensor_type if kind.HasField("tensor_type") else None


def _dims_of(value: Any) -> list[Any]:
    tensor = _tensor_type(value)
    return [] if tensor is None else list(tensor.shape.dim)


def _refuse_strangers(inputs: list[Any], dims: Mapping[str, int]) -> None:
    known: set[str] = set()
    for value in inputs:
        for axis, dim in enumerate(_dims_of(value)):
            known.add(f"{value.name}:{axis}")
            if dim.dim_param:
                known |= {dim.dim_param, *symbols(dim.dim_param)}
    for name, size in dims.items():
        if name not in known:
            plain = [k for k in known if ":" not in k]
            raise refuse_unknown("dimension", name, plain or known)
        if size < 0:
            raise UserError(f"dimension '{name}' cannot be {size} (right: 0 or more)")


def _known_sizes(
    inputs: list[Any], dims: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for value in inputs:
        for dim, size in zip(_dims_of(value), shapes.get(value.name, ()), strict=False):
            if dim.dim_param and symbols(dim.dim_param) == {dim.dim_param}:
                sizes.setdefault(dim.dim_param, size)
    return {**sizes, **dims}


def _bind_input(
    value: Any, sizes: Mapping[str, int], shape: tuple[int, ...] | None, unbound: dict[str, list[str]]
) -> TensorType:
    name = text_of(value.name)
    tensor = _tensor_type(value)
    if tensor is None:
        raise UserError(f"input {name} is not a tensor (sequences and maps are not supported)")
    element = DTYPE_OF_ONNX.get(tensor.elem_type)
    if element is None:
        raise UserError(f"input {name} is of ONNX element type {tensor.elem_type}, which we do not have")
    declared = _dims_of(value)
    if shape is not None:
        if tensor.HasField("shape") and len(shape) != len(declared):
            raise UserError(f"input {name} has {len(declared)} dimensions, the shape given has {len(shape)}")
        return TensorType(element, shape_of(shape, name))
    if not tensor.HasField("shape"):
        raise UserError(f"input {name} has no shape in the model; give it one")
    return TensorType(
        element, shape_of([_size(d, name, a, sizes, unbound) for a, d in enumerate(declared)], name)
    )


def _size(dim: Any, name: str, axis: int, sizes: Mapping[str, int], unbound: dict[str, list[str]]) -> int:
    """Return the size of one dimension; note it in `unbound` when nothing gives it."""
    key = f"{name}:{axis}"
    if key in sizes:
        return sizes[key]
    if dim.HasField("dim_value") and dim.dim_value >= 0:  # exporters write -1 for "any"
        return int(dim.dim_value)
    if dim.dim_param and dim.dim_param != "?":
        size = size_of(dim.dim_param, sizes)
        if size is not None:
            return size
        open_ = {s for s in symbols(dim.dim_param) if s not in sizes} or {dim.dim_param}
        for symbol in sorted(open_):
            unbound.setdefault(symbol, []).append(name)
        return 1
    unbound.setdefault(key, []).append(name)
    return 1
