"""Arithmetic over parameters, for links and constraints: `pe.matrix.rows * 2`, `area_mm2 <= 450`.

A text is parsed by Python's own parser and only a few kinds of node are walked: nothing in it can be called
but a few functions of numbers, and no attribute is looked up.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ..errors import UserError, nearest

LONGEST = 500  # characters
MOST = 1e300  # of any number on the way
MOST_DIGITS = 300  # that a number is rounded to
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda a, b: float(a) ** float(b),
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _round(value: float, digits: int = 0) -> float:
    """Return a number rounded to so many decimal places; Python's own takes as long as `digits` says."""
    if not isinstance(digits, int) or abs(digits) > MOST_DIGITS:
        raise ValueError(
            f"round to {digits} places (right: a whole number from -{MOST_DIGITS} to {MOST_DIGITS})"
        )
    return round(value, digits) if digits else round(value)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": _round,
    "sqrt": math.sqrt,
    "log2": math.log2,
}


def evaluate(text: str, values: Mapping[str, Any]) -> Any:
    """Return the value of an expression over named values; raise `UserError` for what it cannot mean."""
    try:
        result = _walk(_parsed(text), values)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise UserError(f"expression {text!r}: {error}") from None
    return result


def names(text: str) -> set[str]:
    """Return the names that an expression uses."""
    tree, keys = _parsed(text), set()
    work: list[ast.AST] = [tree]
    while work:
        node = work.pop()
        if isinstance(node, ast.Name | ast.Attribute):
            keys.add(_dotted(node))
        elif isinstance(node, ast.Call):
            work += node.args
        else:
            work += list(ast.iter_child_nodes(node))
    return keys


@cache
def _parsed(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise UserError(f"expression of {len(text)} characters; at most {LONGEST} are read")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        _check(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        right = "sram.bytes * 2, min(a, b), area_mm2 <= 450"
        raise UserError(f"expression {text!r} is not arithmetic over parameters (right: {right})") from None
    return tree


def _check(node: ast.AST) -> None:
    """Raise `ValueError` for a node that has no place in arithmetic."""
    inner: list[ast.expr] = []
    if isinstance(node, ast.Name | ast.Attribute):
        _dotted(node)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool, str):
        pass
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        inner = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        inner = [node.operand]
    elif isinstance(node, ast.BoolOp):
        inner = node.values
    elif isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        inner = [node.left, *node.comparators]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id not in _FUNCTIONS:
            raise ValueError(node.func.id)
        inner = node.args
    else:
        raise ValueError(type(node).__name__)
    for child in inner:
        _check(child)


def _dotted(node: ast.AST) -> str:
    """Return a name with dots in it, which Python's parser takes for attributes."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    raise ValueError(type(node).__name__)


def _walk(node: ast.AST, values: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name | ast.Attribute):
        name = _dotted(node)
        if name not in values:
            raise UserError(f"unknown name '{name}' in an expression{nearest(name, values)}")
        return values[name]
    if isinstance(node, ast.BinOp):
        return _bounded(_BINARY[type(node.op)](_number(node.left, values), _number(node.right, values)))
    if isinstance(node, ast.UnaryOp):
        value = _walk(node.operand, values)
        return -value if isinstance(node.op, ast.USub) else not value
    if isinstance(node, ast.BoolOp):
        each = (bool(_walk(v, values)) for v in node.values)
        return all(each) if isinstance(node.op, ast.And) else any(each)
    if isinstance(node, ast.Compare):
        sides = [_walk(v, values) for v in (node.left, *node.comparators)]
        pairs = zip(node.ops, sides, sides[1:], strict=False)
        return all(_COMPARE[type(op)](a, b) for op, a, b in pairs)
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return _bounded(_FUNCTIONS[node.func.id](*(_number(a, values) for a in node.args)))


def _number(node: ast.AST, values: Mapping[str, Any]) -> Any:
    value = _walk(node, values)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:80]!r} is not a number")
    return _bounded(value)


def _bounded(value: Any) -> Any:
    if isinstance(value, complex) or abs(value) > MOST:
        raise ValueError(f"a number beyond {MOST:g}")  # also what would take long to compute with
    return value
