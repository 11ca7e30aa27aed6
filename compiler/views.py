"""Strided views: how a tensor lies in a buffer, and which moves of elements a view can stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtia_emu.types import DType, TensorType


@dataclass(frozen=True)
class View:
    """A tensor as it lies in a buffer: offset and strides count elements."""

    buffer: str
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def type(self) -> TensorType:
        """Return the tensor's type."""
        return TensorType(self.dtype, self.shape)

    @property
    def contiguous(self) -> bool:
        """Return whether elements lie one after another in row-major order."""
        return all(
            n == 1 or s == t for n, s, t in zip(self.shape, self.strides, packed(self.shape), strict=True)
        )

    def reshape(self, shape: Sequence[int]) -> View | None:
        """Return the view of another shape over the same elements, or None where only a copy can give it."""
        if 0 in self.shape:
            return replace(self, shape=tuple(shape), strides=packed(shape))
        # NumPy knows when a reshape needs a copy; the stand-in has our strides on one byte and is never read
        stand_in = np.lib.stride_tricks.as_strided(np.zeros(1, np.int8), self.shape, self.strides)
        try:
            moved = np.reshape(stand_in, tuple(shape), copy=False)
        except ValueError:
            return None
        return replace(self, shape=tuple(shape), strides=moved.strides)

    def transpose(self, perm: Sequence[int]) -> View:
        """Return the view with axes in the order `perm`."""
        return replace(
            self, shape=tuple(self.shape[p] for p in perm), strides=tuple(self.strides[p] for p in perm)
        )

    def expand(self, shape: Sequence[int]) -> View:
        """Return the view broadcast to a shape: new and stretched axes have stride 0."""
        lead = len(shape) - len(self.shape)
        own = [
            0 if n == 1 != m else s for n, s, m in zip(self.shape, self.strides, shape[lead:], strict=True)
        ]
        return replace(self, shape=tuple(shape), strides=(0,) * lead + tuple(own))

    def slice(self, starts: Sequence[int], shape: Sequence[int], steps: Sequence[int]) -> View:
        """Return the view that begins at `starts` and takes every `steps`-th element, `shape` of them."""
        offset = self.offset + sum(a * s for a, s in zip(starts, self.strides, strict=True))
        strides = tuple(s * t for s, t in zip(self.strides, steps, strict=True))
        return replace(self, shape=tuple(shape), strides=strides, offset=offset)

    def last(self, axis: int) -> View:
        """Return the view with an axis moved to the end."""
        order = [i for i in range(len(self.shape)) if i != axis]
        return self.transpose([*order, axis])


def packed(shape: Sequence[int]) -> tuple[int, ...]:
    """Return row-major strides."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def whole(buffer: str, kind: TensorType) -> View:
    """Return the view of a whole packed buffer."""
    return View(buffer, kind.dtype, kind.shape, packed(kind.shape))
