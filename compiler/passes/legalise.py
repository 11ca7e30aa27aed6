"""Spell each thing in one way, so that later passes match one spelling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..build import FOLD_ELEMENTS
from ..graph import Match, Node, Rewrite, Skip
from ..ops.base import integers
from .base import Rule, Rules, become, building, either, is_held, scalar
from .keep_rounding import step_follows

FEW = 4096  # elements that are compared before all are
NEAR = 8  # ops between a quotient and a step; what quantises has two or three


@dataclass(frozen=True)
class Legalise(Rules):
    """Spell each thing in one way, so that later passes match one spelling.

    Squares become products, and so do quotients by a number, where that is exact or no step (a rounding to
    whole numbers, a comparison) follows; reciprocals of roots become rsqrt, x sigmoid(x) silu; transposes in
    a row become one, also where they swap the last two axes of a batch that is flattened in between.
    """

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_power, _reciprocal, _quotient, _silu, _transposes, _folded_transpose, _decided, _plus_zeros)


def _power(node: Node, match: Match) -> Rewrite | None:
    """pow(x, c) for the exponents that models use."""
    if node.op != "pow" or (exponent := scalar(match, node.inputs[1])) is None:
        return None
    x, b = node.inputs[0], building(node, match)
    if match.type_of(x) != node.type or not node.type.dtype.is_float:
        return None
    if exponent == 2.0:
        return become(node, b, b.add("mul", x, x))
    roots = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    return become(node, b, b.add(roots[exponent], x)) if exponent in roots else None


def _reciprocal(node: Node, match: Match) -> Rewrite | None:
    """1 / sqrt(x) is rsqrt(x)."""
    root = match.producer(node.inputs[0], "sqrt") if node.op == "reciprocal" else None
    if root is None:
        return None
    b = building(node, match)
    return become(node, b, b.add("rsqrt", root.inputs[0]))


def _quotient(node: Node, match: Match) -> Rewrite | Skip | None:
    """Division by a root or by a constant is a product; 1 / x is a reciprocal."""
    if node.op != "div" or not node.type.dtype.is_float:
        return None
    x, y = node.inputs
    b = building(node, match)
    if scalar(match, x) == 1.0 and match.type_of(y) == node.type:
        return become(node, b, b.add("reciprocal", y))
    root = match.producer(y, "sqrt")
    if root is not None and step_follows(node, match, 1):
        return Skip("a step follows, which sees whether the last digit is right")
    if root is not None:
        return become(node, b, b.add("mul", x, b.add("rsqrt", root.inputs[0])))
    divisor = scalar(match, y)
    if divisor is None or divisor == 0.0 or match.type_of(x).shape != node.type.shape:
        return None
    if not is_held(1.0 / divisor):
        return Skip(f"a narrow format does not hold 1 / {divisor:g}")
    if math.frexp(divisor)[0] not in (0.5, -0.5) and step_follows(node, match, NEAR):
        return Skip(f"x * (1 / {divisor:g}) is not x / {divisor:g} to the last digit, which a step sees")
    dtype = node.type.dtype.numpy
    return become(node, b, b.add("mul", x, b.constant(1.0 / divisor, dtype)))


def _silu(node: Node, match: Match) -> Rewrite | None:
    """x * sigmoid(x)."""
    if node.op != "mul":
        return None
    for x, y in either(node):
        gate = match.producer(y, "sigmoid")
        if gate is not None and gate.inputs[0] == x:
            b = building(node, match)
            return become(node, b, b.add("silu", x))
    return None


def _transposes(node: Node, match: Match) -> Rewrite | None:
    """A transpose of a transpose is one."""
    inner = match.producer(node.inputs[0], "transpose") if node.op == "transpose" else None
    if inner is None:
        return None
    first, second = integers(inner.attrs, "perm"), integers(node.attrs, "perm")
    b = building(node, match)
    return become(node, b, b.add("transpose", inner.inputs[0], perm=tuple(first[p] for p in second)))


def _folded_transpose(node: Node, match: Match) -> Rewrite | None:
    """[b, h, s, d] -> [b*h, s, d] -> [b*h, d, s] -> [b, h, d, s] swaps the last two axes in place."""
    if node.op != "reshape":
        return None
    swap = match.producer(node.inputs[0], "transpose")
    if swap is None or swap.attrs["perm"] != (0, 2, 1):
        return None
    flat = match.producer(swap.inputs[0], "reshape")
    if flat is None:
        return None
    x = match.type_of(flat.inputs[0]).shape
    if len(x) < 3 or flat.type.shape[1:] != x[-2:] or node.type.shape != (*x[:-2], x[-1], x[-2]):
        return None
    b = building(node, match)
    perm = (*range(len(x) - 2), len(x) - 1, len(x) - 2)
    return become(node, b, b.add("transpose", flat.inputs[0], perm=perm))


def _decided(node: Node, match: Match) -> Rewrite | None:
    """where(a constant that is the same everywhere, a, b)."""
    truth = _alike(match, node.inputs[0]) if node.op == "where" else None
    if truth is None:
        return None
    b = building(node, match)
    chosen = node.inputs[1] if truth else node.inputs[2]
    return become(node, b, b.add("expand", chosen, shape=node.type.shape))


def _plus_zeros(node: Node, match: Match) -> Rewrite | None:
    """softmax(x + zeros), which does not see the sign of a zero: masks that hide nothing are such."""
    added = match.producer(node.inputs[0], "add") if node.op == "softmax" else None
    if added is None:
        return None
    for x, zeros in either(added):
        if match.type_of(x) == added.type and _alike(match, zeros) == 0.0:
            b = building(node, match)
            return become(node, b, b.add("softmax", x, **node.attrs))
    return None


def _alike(match: Match, value: str) -> float | None:
    """Return the number that all elements of a constant are, else None."""
    const = match.const(value)
    if const is None or not const.present or not 0 < const.type.size <= FOLD_ELEMENTS:
        return None
    data = np.asarray(const.array(value)).reshape(-1)
    alike = all((part == data[0]).all() for part in (data[:FEW], data))  # most differ within a row
    return float(data[0]) if alike else None
