"""Strided views: how a tensor lies in a buffer, and which moves of elements a view can stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mtia_emu.types import DType, TensorType

FARTHEST = 1 << 48  # elements between two of a view


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

    @cached_property
    def end(self) -> int:
        """Return where the view ends: the offset behind its last element."""
        return self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)) + 1

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
        # of an axis of one element the stride is never taken; a step beyond all memory would be no stride
        strides = tuple(
            s * t if n > 1 or abs(s * t) <= FARTHEST else 0
            for n, s, t in zip(shape, self.strides, steps, strict=True)
        )
        return replace(self, shape=tuple(shape), strides=strides, offset=offset)

    def last(self, axis: int) -> View:
        """Return the view with an axis moved to the end."""
        order = [i for i in range(len(self.shape)) if i != axis]
        return self.transpose([*order, axis])


def channels_last(view: View) -> View:
    """Return a view [n,c,..] as [n,..,c]."""
    return view.last(1)


def channels_first(view: View) -> View:
    """Return a view [n,..,c] as [n,c,..]."""
    return view.transpose([0, len(view.shape) - 1, *range(1, len(view.shape) - 1)])


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


def carried(view: View, source: View, target: View) -> View | None:
    """Return a view of the source's buffer as the target has it, whose elements are the source's, one by one.

    None where the source is not all of its packed buffer, or where the view steps across a dimension that is
    broken in the target.
    """
    runs = _runs(source, target)
    if runs is None:
        return None
    left, offset, reach = view.offset, target.offset, []
    for count, step, other in runs:
        first, left = divmod(left, step)
        offset += first * other
        reach.append(count - 1 - first)
    strides = []
    for n, stride in zip(view.shape, view.strides, strict=True):
        if n == 1 or stride == 0:
            strides.append(0)
            continue
        at = next(i for i, (_, step, _) in enumerate(runs) if step <= stride)
        times, rest = divmod(stride, runs[at][1])
        reach[at] -= (n - 1) * times
        if rest:
            return None
        strides.append(times * runs[at][2])
    if min(reach) < 0:
        return None
    return replace(view, buffer=target.buffer, strides=tuple(strides), offset=offset)


def _runs(source: View, target: View) -> list[tuple[int, int, int]] | None:
    """Return (elements, stride in the source, stride in the target), widest first, of the fewest dimensions.

    None where the source is not packed in some order of its dimensions, from its buffer's first element.
    """
    dims = [
        (step, n, other)
        for n, step, other in zip(source.shape, source.strides, target.strides, strict=True)
        if n > 1
    ]
    runs: list[tuple[int, int, int]] = []
    size = 1
    for step, n, other in sorted(dims):
        if step != size:
            return None
        size *= n
        if runs and other == runs[-1][0] * runs[-1][2]:
            runs[-1] = (runs[-1][0] * n, *runs[-1][1:])
        else:
            runs.append((n, step, other))
    if source.offset or 0 in source.shape:
        return None
    return runs[::-1] or [(1, 1, 0)]
