"""What a mask hides whatever the inputs of the model are: causal ones that padding of the inputs is part of.

Each element of a value is known to lie between two numbers, which are equal where it is a constant and far
apart where nothing is known. So `and(causal, padding)` is false where `causal` is, whatever the padding is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from mtia_emu.kernels.rows.tape import Source, parse

from mtia_emu.types import BOOL, DType, TensorType

from ...graph import Match, Node
from ..base import MADE

Array = np.ndarray[Any, Any]
DEEPEST = 16  # nodes between a mask and what it is made of
NARROWEST = 127  # what every integer type holds


class Bounds(NamedTuple):
    """The least and the largest value that each element may have; truth values are 0 and 1."""

    low: Array
    high: Array

    @staticmethod
    def exactly(value: Array | float) -> Bounds:
        """Return the bounds of known values."""
        known = np.asarray(value, np.float64)
        return Bounds(known, known)

    def seen_as(self, kind: TensorType) -> Bounds:
        """Return the bounds in the shape of a type, broadcast or regrouped."""
        if self.low.size == kind.size:
            return Bounds(self.low.reshape(kind.shape), self.high.reshape(kind.shape))
        return Bounds(np.broadcast_to(self.low, kind.shape), np.broadcast_to(self.high, kind.shape))


def _anything(kind: TensorType) -> Bounds:
    """Return the bounds of a value of which nothing is known."""
    least, most = (0.0, 1.0) if kind.dtype == BOOL else (-np.inf, np.inf)
    return Bounds(np.broadcast_to(least, kind.shape), np.broadcast_to(most, kind.shape))


def _spanning(*corners: Array) -> Bounds:
    """Return the bounds of values that lie between these; all there are where one of them is no number."""
    values = np.stack(np.broadcast_arrays(*corners))
    wild = np.isnan(values).any(axis=0)
    return Bounds(np.where(wild, -np.inf, values.min(axis=0)), np.where(wild, np.inf, values.max(axis=0)))


def _truth(x: Bounds) -> Bounds:
    """Return the bounds of whether values are other than 0."""
    true, false = (x.low > 0) | (x.high < 0), (x.low == 0) & (x.high == 0)
    return Bounds(true.astype(float), (~false).astype(float))


def _and(a: Bounds, b: Bounds) -> Bounds:
    a, b = _truth(a), _truth(b)
    return Bounds(np.minimum(a.low, b.low), np.minimum(a.high, b.high))


def _not(a: Bounds) -> Bounds:
    a = _truth(a)
    return Bounds(1 - a.high, 1 - a.low)


def _where(chosen: Bounds, a: Bounds, b: Bounds) -> Bounds:
    either, truth = _spanning(a.low, a.high, b.low, b.high), _truth(chosen)
    first, second = truth.low > 0, truth.high == 0
    low = np.where(first, a.low, np.where(second, b.low, either.low))
    return Bounds(low, np.where(first, a.high, np.where(second, b.high, either.high)))


def _cast(x: Bounds, to: DType) -> Bounds:
    """Return the bounds of values in another type; integers that might wrap around may be anything."""
    if to == BOOL:
        return _truth(x)
    if to.is_float:
        return x
    low, high = np.trunc(x.low), np.trunc(x.high)
    fits = (low >= 0) & (high <= NARROWEST)
    return Bounds(np.where(fits, low, -np.inf), np.where(fits, high, np.inf))


RULES: dict[str, Callable[..., Bounds]] = {
    "and": _and,
    "or": lambda a, b: _not(_and(_not(a), _not(b))),
    "not": _not,
    "add": lambda a, b: _spanning(a.low + b.low, a.high + b.high),
    "sub": lambda a, b: _spanning(a.low - b.high, a.high - b.low),
    "mul": lambda a, b: _spanning(a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high),
    "where": _where,
    "copy": lambda a: a,
}
"""The bounds of an elementwise function's result, from those of its operands."""


@dataclass
class MaskBounds:
    """The bounds of values of one graph, worked out once each."""

    match: Match
    known: dict[str, Bounds] = field(default_factory=dict)

    def diagonal(self, value: str, shape: tuple[int, int], hides: Callable[[Bounds], Array]) -> int | None:
        """Return the least d >= 0 for which every key j > i + d is hidden from query i, for certain.

        `shape` is [queries, keys]; `hides` says of bounds which elements hide for certain. None where the
        first query may see the last key, or the mask has more than `MADE` elements.
        """
        queries, keys = shape
        kind = self.match.type_of(value)
        if kind.size > MADE or not kind.size:
            return None
        with np.errstate(invalid="ignore", over="ignore"):
            shown = ~np.asarray(hides(self.of(value).seen_as(kind)))
        some = np.broadcast_to(shown.reshape(-1, *kind.shape[-2:]).any(axis=0), shape)
        key = keys - 1 - some[:, ::-1].argmax(axis=1)  # the last that each query may see
        ahead = (key - np.arange(queries))[some.any(axis=1)]
        last = int(ahead.max(initial=0))
        return last if last < keys - 1 else None

    def of(self, value: str, depth: int = 0) -> Bounds:
        """Return the bounds of a value."""
        if value not in self.known:
            self.known[value] = self._worked_out(value, depth)
        return self.known[value]

    def _worked_out(self, value: str, depth: int) -> Bounds:
        kind, const = self.match.type_of(value), self.match.const(value)
        if const is not None and const.present and kind.size <= MADE:
            return Bounds.exactly(const.array(value).astype(np.float64))
        node = self.match.producer(value)
        if node is None or depth > DEEPEST or kind.size > MADE or len(node.outputs) > 1:
            return _anything(kind)
        return self._made_by(node, depth + 1) or _anything(kind)

    def _made_by(self, node: Node, depth: int) -> Bounds | None:
        """Return the bounds of a node's result; None for an op that there is no rule of."""
        if node.op in ("reshape", "expand"):
            return self.of(node.inputs[0], depth).seen_as(node.type)
        if node.op == "cast":
            return _cast(self.of(node.inputs[0], depth), node.type.dtype)
        if node.op == "map":
            return self._tape(node, depth)
        if node.op not in RULES:
            return None
        return _cast(RULES[node.op](*(self.of(v, depth) for v in node.inputs)), node.type.dtype)

    def _tape(self, node: Node, depth: int) -> Bounds | None:
        """Return the bounds of a chain's result."""
        tape, results = parse(str(node.attrs["tape"])), list[Bounds]()

        def source(x: Source) -> Bounds:
            if isinstance(x, float):
                return Bounds.exactly(x)
            return results[~x] if x < 0 else self.of(node.inputs[x], depth)

        for step in tape.steps:
            if step.function not in RULES:
                return None
            results.append(_cast(RULES[step.function](*map(source, step.sources)), step.to))
        return source(tape.results[0])
