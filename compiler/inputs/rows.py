"""Whole rows of floats that random numbers never make: of zeros, of one number, of one sign, with ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
Shape = Callable[[Array], Array]


def _kept(x: Array) -> Array:
    return x


def _same(x: Array) -> Array:
    return np.broadcast_to(x[..., :1], x.shape)


def _negative(x: Array) -> Array:
    return -np.abs(x)


def _below(x: Array) -> Array:
    """Return rows [..,n] that lie far below 0, as seen from how far their numbers lie apart."""
    sizes = np.abs(x)
    return -((sizes / CLOSE).astype(x.dtype) + sizes.max(axis=-1, keepdims=True, initial=0))


def _tied(x: Array) -> Array:
    """Return rows [..,n] whose second half has the numbers of the first: the largest is there twice."""
    half = x.shape[-1] // 2
    return np.concatenate([x[..., : x.shape[-1] - half], x[..., :half]], axis=-1)


SHAPES: dict[str, tuple[Shape, ...]] = {  # no zeros where products overflow: what is infinite times 0?
    "small": (_negative, np.zeros_like, np.abs, _same),
    "large": (_below, np.abs, _tied, _kept),
}
CLOSE = 8  # times nearer to each other that the numbers of a row come
ACROSS = ("large",)  # kinds in half of whose samples rows lie along the first axis
FEWEST = 2  # rows of which some may be made special and others not


def shaped(values: Array, kind: str, rng: Rng) -> Array:
    """Return floats of which each row of a kind has a shape of `SHAPES`: as many rows of each as may be.

    Rows lie along the last axis; in half of those of `ACROSS`, along the first. What is a single row is left
    as it is, but for `small` numbers, which are negative then.
    """
    if not values.ndim or not values.size or values.shape[-1] < FEWEST:
        return values
    across = kind in ACROSS and values.ndim > 1 and rng.random() < 0.5
    turned = np.swapaxes(values, 0, -1) if across else values
    rows = turned.reshape(-1, turned.shape[-1]).copy()
    shapes = SHAPES.get(kind, (_kept,))
    if len(rows) < FEWEST:
        return _negative(values) if kind == "small" else values
    which = (rng.permutation(len(rows)) + rng.integers(len(shapes))) % len(shapes)
    for number, shape in enumerate(shapes):
        rows[which == number] = shape(rows[which == number])
    drawn = rows.reshape(turned.shape)
    return np.swapaxes(drawn, 0, -1) if across else drawn
