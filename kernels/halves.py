"""A call cut in two, where its block would have too many commands: each half is a part of the results.

What is cut is anything that has a shape and can be sliced, so that whoever places the operands (the
compiler, by views of buffers) needs no rules of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .builder import round_up

TILE = 64  # halves are whole tiles where they can be


@dataclass(frozen=True)
class Portion:
    """What a call reads and writes, and its parameters."""

    inputs: tuple[
        Any, ...
    ]  # of a `shape` and with a `slice(starts, shape, steps)`, as `compiler.lower.views.View`
    outputs: tuple[Any, ...]
    params: Mapping[str, Any]

    def of(self, inputs: Sequence[Any], outputs: Sequence[Any], **changes: Any) -> Portion | None:
        """Return the call on parts of the operands; None where one of them is None: there is no such part."""
        if any(x is None for x in (*inputs, *outputs)):
            return None
        return Portion(tuple(inputs), tuple(outputs), {**self.params, **changes})


Cut = Callable[[int, int], Portion | None]  # by start and count


def in_two(size: int, cut: Cut) -> list[Portion]:
    """Return what `cut` gives for both halves of a dimension, the first whole tiles where it can be."""
    half = -(-size // 2)
    first = round_up(half, TILE)
    return cut_at(first if first < size else half, size, cut)


def cut_at(first: int, size: int, cut: Cut) -> list[Portion]:
    """Return what `cut` gives for the first part of a dimension and for the rest; [] where one is None."""
    portions = [cut(0, first), cut(first, size - first)]
    return [p for p in portions if p is not None] if None not in portions else []


def part(x: Any, dim: int, start: int, count: int) -> Any:
    """Return a part of an operand along a dimension; what is broadcast along it stays whole."""
    if x.shape[dim] == 1:
        return x
    dim %= len(x.shape)
    starts = [start if i == dim else 0 for i in range(len(x.shape))]
    shape = [count if i == dim else n for i, n in enumerate(x.shape)]
    return x.slice(starts, shape, [1] * len(shape))


def rows(x: Any, total: int, start: int, count: int) -> Any | None:
    """Return some of `total` rows of an operand, all of what has one row; None where that is no slice."""
    if math.prod(x.shape[:-1]) != total or total == 1:
        return x
    dim = next(i for i, n in enumerate(x.shape) if n > 1)
    inner = total // x.shape[dim]
    if start % inner or count % inner:
        return None
    return part(x, dim, start // inner, count // inner)
