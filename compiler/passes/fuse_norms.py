"""Root-mean-square and layer norms, in the spellings of exporters, as one op each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph import Match, Node, Rewrite, Skip
from .base import Rule, Rules, become, building, either, is_row, scalar, strip_casts, too_many


@dataclass(frozen=True)
class FuseNorms(Rules):
    """Fuse x * rsqrt(mean(x*x) + e) * w into rmsnorm; the same of x - mean(x), plus a bias, into layernorm.

    Casts around the norm, as models in narrow floats have them, go: it is computed in fp32 anyway, and
    rounded once, to the type of its result. Where no weight follows (one of ones is gone by then), the norm's
    is of ones.
    """

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (_norm, _bare, _bias)


def _norm(node: Node, match: Match) -> Rewrite | Skip | None:
    """weight * cast?(x * rsqrt(mean(x * x) + epsilon)), the casts of narrow models included."""
    if node.op != "mul" or node.type.rank < 1:
        return None
    for weight, scaled in either(node):
        maker = match.producer(strip_casts(match, scaled, node.type.dtype), "mul")
        weighted = _scaled(maker, match) if maker is not None else None
        if weighted is None:
            continue
        if not is_row(match.type_of(weight), node.type.shape[-1]):
            return Skip(f"the weight {match.type_of(weight)} is not one value a column")
        return _normed(node, match, *weighted, weight)
    return None


def _bare(node: Node, match: Match) -> Rewrite | Skip | None:
    """x * rsqrt(mean(x * x) + epsilon) that no weight is multiplied by."""
    scaled = _scaled(node, match) if node.op == "mul" and node.type.rank else None
    if scaled is None:
        return None
    if any(_weighted(user, match) for user in _readers(node.output, match)):
        return Skip("a weight follows")
    return _normed(node, match, *scaled, None)


def _readers(value: str, match: Match) -> Iterator[Node]:
    """Yield the nodes that read a value, behind casts."""
    for user in match.users(value):
        if user.op == "cast":
            yield from _readers(user.output, match)
        else:
            yield user


def _weighted(user: Node, match: Match) -> bool:
    """Return whether a node multiplies by one value a column."""
    return user.op == "mul" and any(is_row(match.type_of(v), user.type.shape[-1]) for v in user.inputs)


def _normed(node: Node, match: Match, x: str, epsilon: float, weight: str | None) -> Rewrite | Skip:
    centred = _centred(x, match)
    source = strip_casts(match, centred or x)
    if match.type_of(source).dtype != node.type.dtype:
        source = centred or x
    if match.type_of(source) != node.type:
        return Skip(f"the norm's operand is {match.type_of(source)}, its result {node.type}")
    b, columns = building(node, match), node.type.shape[-1]
    if not weight and (many := too_many(columns)):
        return many
    ones = weight or b.constant(np.ones(columns), node.type.dtype.numpy)
    flat = b.add("reshape", ones, shape=(columns,))
    return become(node, b, b.add("layernorm" if centred else "rmsnorm", source, flat, epsilon=epsilon))


def _scaled(node: Node, match: Match) -> tuple[str, float] | None:
    """Return (x, epsilon) of x * rsqrt(mean(x * x) + epsilon) over the last axis."""
    for x, factor in either(node):
        root = match.producer(factor, "rsqrt")
        total = match.producer(root.inputs[0], "add") if root is not None else None
        if total is None:
            continue
        for mean_of, shift in either(total):
            mean, epsilon = match.producer(mean_of, "reduce_mean"), scalar(match, shift)
            if mean is None or epsilon is None or not mean.attrs.get("keepdims", False):
                continue
            if mean.attrs["axes"] != (match.type_of(mean.inputs[0]).rank - 1,):
                continue
            square = match.producer(mean.inputs[0], "mul")
            if square is not None and square.inputs == (x, x):
                return x, epsilon
    return None


def _centred(x: str, match: Match) -> str | None:
    """Return y where x is y - mean(y) over the last axis."""
    shift = match.producer(x, "sub")
    mean = match.producer(shift.inputs[1], "reduce_mean") if shift is not None else None
    if shift is None or mean is None or mean.inputs[0] != shift.inputs[0]:
        return None
    last = (match.type_of(mean.inputs[0]).rank - 1,)
    return shift.inputs[0] if mean.attrs["axes"] == last and mean.attrs.get("keepdims", False) else None


def _bias(node: Node, match: Match) -> Rewrite | Skip | None:
    """A layernorm without a bias takes the one that is added to it."""
    if node.op != "add":
        return None
    for value, bias in either(node):
        norm = match.producer(value, "layernorm")
        if norm is None or len(norm.inputs) > 2 or norm.type != node.type or bias == value:
            continue
        if not is_row(match.type_of(bias), node.type.shape[-1]):
            continue
        if match.only_user(value) is not node:
            return Skip("the norm has other users")
        b = building(node, match)
        flat = b.add("reshape", bias, shape=node.type.shape[-1:])
        return become(node, b, b.add("layernorm", *norm.inputs, flat, **norm.attrs))
    return None
