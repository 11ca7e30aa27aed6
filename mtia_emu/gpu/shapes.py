"""Matmuls as columns of numbers, so that one closed form times one or ten thousand of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Shapes:
    """Batched matmuls, one element each in every array of shape [rows, 1].

    `left`, `right` are bytes of one element of either operand; `read`, `write` the compulsory bytes.
    `warm` is the share of `right` and of the result that L2 holds already: 0 in a model, whose weights are
    read once a run; more in a benchmark that repeats one small matmul. `left_read` are the bytes that the
    left operand has in memory: fewer than m * k elements where rows are windows that overlap.
    """

    batch: Array
    m: Array
    k: Array
    n: Array
    left: Array
    right: Array
    read: Array
    write: Array
    warm: Array
    left_read: Array

    @cached_property
    def macs(self) -> Array:
        """Return multiply-adds, [rows, 1]."""
        return self.batch * self.m * self.k * self.n

    @cached_property
    def outputs(self) -> Array:
        """Return elements of the result, [rows, 1]."""
        return self.batch * self.m * self.n

    @cached_property
    def left_bytes(self) -> Array:
        """Return the bytes of the left operand, which the kernel before has just written, [rows, 1]."""
        return np.minimum(self.left_read, self.read)

    @property
    def right_bytes(self) -> Array:
        """Return the bytes of the right operand, [rows, 1]: what is read besides the left."""
        return self.read - self.left_bytes

    @property
    def cold_bytes(self) -> Array:
        """Return the bytes that DRAM must move at least, the left operand included, [rows, 1]."""
        return self.left_bytes + (self.right_bytes + self.write) * (1 - self.warm)


OUTPUT_BYTES = 2.0  # results are at least 16 bits wide
Sizes = tuple[Array | int, Array | int, Array | int, Array | int]
"""Batch, m, k, n of matmuls: vectors [rows] or numbers."""


def shapes(sizes: Sizes, element: float, warm: Array | float = 0.0) -> Shapes:
    """Return `Shapes` of matmuls of elements of so many bytes, each operand byte read once."""
    batch, m, k, n, shares = _columns(*sizes, warm)
    read = batch * (m * k + k * n) * element
    return _shapes((batch, m, k, n), element, read, batch * m * n * max(OUTPUT_BYTES, element), shares)


def shape(
    sizes: tuple[int, int, int, int],
    element: float,
    read: int,
    write: int,
    left_read: int | None = None,
    warm: float = 0.0,
) -> Shapes:
    """Return `Shapes` of one matmul of batch, m, k, n whose compulsory bytes are given.

    `left_read`, those of the left operand, are all of its elements if not said; `warm` is the share of the
    right one that L2 holds already.
    """
    batch, m, k, n, reads, writes, shares = _columns(*sizes, read, write, warm)
    s = _shapes((batch, m, k, n), element, reads, writes, shares)
    return s if left_read is None else replace(s, left_read=np.full_like(m, left_read))


def _columns(*values: Array | float) -> list[Array]:
    """Return vectors [rows] or numbers as columns [rows, 1]."""
    wide = np.broadcast_arrays(*(np.asarray(x, float) for x in values))
    return [np.reshape(x, (-1, 1)) for x in wide]


def _shapes(sizes: tuple[Array, ...], element: float, read: Array, write: Array, warm: Array) -> Shapes:
    """Return `Shapes` of columns [rows, 1]; both operands have elements of so many bytes."""
    batch, m, k, n = sizes
    one = np.full_like(m, element)
    return Shapes(batch, m, k, n, one, one, read, write, warm, batch * m * k * element)


def only(s: Shapes, rows: Array) -> Shapes:
    """Return the chosen rows: numbers of rows [chosen], or a mask [rows]."""
    return Shapes(**{f.name: getattr(s, f.name)[rows] for f in fields(Shapes)})
