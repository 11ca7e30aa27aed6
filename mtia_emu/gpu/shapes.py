"""Matmuls as columns of numbers, so that one closed form times one or ten thousand of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Shapes:
    """Batched matmuls, one element each in every array of shape [rows, 1].

    `left`, `right` are bytes of one element of either operand; `read`, `write` the compulsory bytes.
    `warm` is the share of `right` and of the result that L2 holds already: 0 in a model, whose weights are
    read once a run; more in a benchmark that repeats one small matmul.
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

    @cached_property
    def macs(self) -> Array:
        """Return multiply-adds."""
        return self.batch * self.m * self.k * self.n

    @cached_property
    def outputs(self) -> Array:
        """Return elements of the result."""
        return self.batch * self.m * self.n

    @cached_property
    def left_bytes(self) -> Array:
        """Return the bytes of the left operand, which the kernel before has just written."""
        return np.minimum(self.batch * self.m * self.k * self.left, self.read)

    @property
    def right_bytes(self) -> Array:
        """Return the bytes of the right operand: what is read besides the left."""
        return self.read - self.left_bytes

    @property
    def cold_bytes(self) -> Array:
        """Return the bytes that DRAM must move at least, the left operand included."""
        return self.left_bytes + (self.right_bytes + self.write) * (1 - self.warm)


OUTPUT_BYTES = 2.0  # results are at least 16 bits wide


def shapes(
    m: Array | int,
    k: Array | int,
    n: Array | int,
    element: float,
    *,
    batch: Array | int = 1,
    warm: Array | float = 0.0,
    read: Array | float | None = None,
    write: Array | float | None = None,
) -> Shapes:
    """Return `Shapes` of equal-length vectors or numbers; each operand byte is read once unless given."""
    wide = np.broadcast_arrays(*(np.asarray(x, float) for x in (batch, m, k, n, warm)))
    b, m_, k_, n_, warm_ = (np.reshape(x, (-1, 1)) for x in wide)
    reads = (
        b * (m_ * k_ + k_ * n_) * element if read is None else np.reshape(np.asarray(read, float), (-1, 1))
    )
    writes = b * m_ * n_ * max(OUTPUT_BYTES, element)
    if write is not None:
        writes = np.reshape(np.asarray(write, float), (-1, 1))
    one = np.full_like(m_, element)
    return Shapes(b, m_, k_, n_, one, one, reads, writes, warm_)


def only(s: Shapes, rows: Array) -> Shapes:
    """Return the chosen rows."""
    return Shapes(**{f.name: getattr(s, f.name)[rows] for f in fields(Shapes)})
