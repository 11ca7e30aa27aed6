"""A transposed convolution as plain ones: the places of its result that a stride apart see the same taps.

Along an axis of stride s and dilation d, with a padding b before the result, its place s * j + r is the sum
of x[i] w[k] with s * i + d * k = s * j + r + b. For one r the taps k that divide this are a stride apart, and
x goes from place to place by one: a convolution of stride 1 by the taps, last first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from mtia_emu.types import DType

from .matmul_map import epilogue
from .spelling import Call, Unsupported

MOST_TAPS, MOST_PHASES = 1 << 16, 1 << 12  # all taps of an axis are listed, a phase is a node


@dataclass(frozen=True)
class Phase:
    """Along one axis: the taps that some places of the result see, in the order in which x goes by.

    The first sees x[j + first] at place j, the next x[j + first + dilation].
    """

    taps: tuple[int, ...]
    first: int
    dilation: int


def phase_of(remainder: int, stride: int, dilation: int, kernel: int, before: int) -> Phase:
    """Return what the places `stride` * j + `remainder` of a transposed convolution see along one axis."""
    shift = remainder + before
    taps = [k for k in reversed(range(kernel)) if (shift - k * dilation) % stride == 0]
    first = (shift - taps[0] * dilation) // stride if taps else 0
    return Phase(tuple(taps), first, dilation // math.gcd(dilation, stride))


@dataclass(frozen=True)
class Transposed:
    """What all phases of a node share: by axis the sizes of x and of phases' results, steps and padding."""

    size: tuple[int, ...]
    count: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]

    def phases(self, remainders: Sequence[int]) -> list[Phase]:
        """Return the phase of each axis."""
        axes = zip(remainders, self.strides, self.dilations, self.kernel, self.before, strict=True)
        return [phase_of(*axis) for axis in axes]


def transposed_convolution(c: Call, t: Transposed, out: tuple[int, ...]) -> str:
    """Return a ConvTranspose of floats: its phases side by side, then cut to `out`."""
    if max(t.kernel) > MOST_TAPS or math.prod(t.strides) > MOST_PHASES:
        raise Unsupported(
            f"its kernel of {list(t.kernel)} or its strides of {list(t.strides)} are too large "
            f"(right: at most {MOST_TAPS} taps an axis, {MOST_PHASES} places a stride apart)"
        )
    rank, groups = len(out), c.attr("group", 1)
    inner, outer = c.type(1).shape[0] // groups, c.type(1).shape[1]
    weight = c.reshape(c[1], (groups, inner, outer, *t.kernel))
    weight = c.add("transpose", weight, perm=(0, 2, 1, *range(3, 3 + rank)))
    weight = c.reshape(weight, (groups * outer, inner, *t.kernel))
    bias = c.reshape(c[2], (groups * outer, *(1 for _ in out))) if c.has(2) else ""
    lead = (c.type(0).shape[0], groups * outer)
    split = (*lead, *(x for n in t.count for x in (n, 1)))
    parts = {
        at: c.reshape(_phase(c, t, t.phases(at), weight, bias), split)
        for at in itertools.product(*(range(s) for s in t.strides))
    }
    for axis in reversed(range(rank)):  # join the phases of one axis, the last first
        joined: dict[tuple[int, ...], list[str]] = {}
        for at, value in parts.items():
            joined.setdefault(at[:axis], []).append(value)
        parts = {at: _joined(c, values, 3 + 2 * axis) for at, values in joined.items()}
    (whole,) = parts.values()
    whole = c.reshape(whole, (*lead, *(n * s for n, s in zip(t.count, t.strides, strict=True))))
    return c.add("slice", whole, starts=(0,) * (rank + 2), ends=(*lead, *out), steps=(1,) * (rank + 2))


def _joined(c: Call, values: list[str], axis: int) -> str:
    return c.add("concat", *values, axis=axis) if len(values) > 1 else values[0]


def _phase(c: Call, t: Transposed, phases: list[Phase], weight: str, bias: str) -> str:
    """Return the places of one phase, [n,o,*count]."""
    kind, channels = c.type(0), c.type(weight).shape[0]
    starts, ends, before, after = _seen(t, phases)
    if any(b <= a for a, b in zip(starts, ends, strict=True)) or not all(p.taps for p in phases):
        return _constant(c, bias, (kind.shape[0], channels, *t.count), kind.dtype)
    x = c.add(
        "slice",
        c[0],
        starts=(0, 0, *starts),
        ends=(*kind.shape[:2], *ends),
        steps=(1,) * kind.rank,
    )
    for axis, phase in enumerate(phases, 2):
        if phase.taps != tuple(range(t.kernel[axis - 2])):
            weight = c.add("gather", weight, c.constant(list(phase.taps)), axis=axis)
    return c.add(
        "conv",
        x,
        weight,
        *([bias] if bias else []),
        strides=(1,) * len(phases),
        dilations=tuple(p.dilation for p in phases),
        pads=(*before, *after),
        group=c.attr("group", 1),
        tape=str(epilogue((False, bool(bias)), "none")),
        to=kind.dtype.name,
    )


def _seen(t: Transposed, phases: list[Phase]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return which part of x phases see, from and to, and how much padding before and after it."""
    low = [p.first for p in phases]
    high = [p.first + n + (len(p.taps) - 1) * p.dilation for p, n in zip(phases, t.count, strict=True)]
    starts, ends = [max(a, 0) for a in low], [min(b, n) for b, n in zip(high, t.size, strict=True)]
    before = [max(-a, 0) for a in low]
    after = [max(b - n, 0) for b, n in zip(high, t.size, strict=True)]
    return starts, ends, before, after


def _constant(c: Call, bias: str, shape: tuple[int, ...], kind: DType) -> str:
    """Return what no element of x reaches: the bias, or zeros."""
    return c.add("expand", bias or c.builder.constant(0.0, kind.numpy), shape=shape)
