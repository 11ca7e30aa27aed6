"""Sampling of images at fractional places, as gathers of the rows around each and their weighted sum."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from mtia_emu.types import FP32, FP64, INT32

from ..build import NodeBuilder
from ..graph import Match, Node, Rewrite, Skip
from .base import building

WHOLE = 1 << 24  # places that fp32 counts one by one


@dataclass(frozen=True)
class Tap:
    """A neighbour of each place along one axis, fp32[n, places, 1]: where, its weight, if it is inside."""

    place: str
    weight: str
    inside: str


def lower_grid_sample(node: Node, match: Match) -> Rewrite | Skip:
    """Sample x [n, c, ..] at grid [n, .., axes]: gather what is around each place, add it up by weight."""
    x, grid = (match.type_of(v) for v in node.inputs)
    mode, padding = node.attrs.get("mode", "linear"), node.attrs.get("padding", "zeros")
    if mode == "cubic" or padding == "reflection":
        return Skip(f"mode {mode} and padding {padding} are of neighbours that are worked out on a core")
    if x.dtype == FP64 or prod(x.shape) == 0 or grid.size == 0 or prod(x.shape) // x.shape[1] > WHOLE:
        return Skip(f"{x} has no places, or more than fp32 counts")
    b, size = building(node, match), x.shape[2:]
    axes = [_taps(b, _places(b, node, axis, n), n, str(mode)) for axis, n in enumerate(size)]
    order = (0, *range(2, x.rank), 1)
    rows = (prod(x.shape) // x.shape[1], x.shape[1])
    table = b.add("reshape", b.add("transpose", node.inputs[0], perm=order), shape=rows)
    total = ""
    for taps in itertools.product(*axes):
        part = _sampled(b, table, taps, x.shape, zeros=padding == "zeros")
        total = b.add("add", total, part) if total else part
    back = b.add("transpose", b.add("cast", total, to=x.dtype.name), perm=(0, 2, 1))
    return b.rewrite({node.output: b.add("reshape", back, shape=node.type.shape)})


def _number(b: NodeBuilder, value: float) -> str:
    return b.constant(value, FP32.numpy)


def _places(b: NodeBuilder, node: Node, axis: int, size: int) -> str:
    """Return where the grid says to sample along an axis of so many elements, [n, places, 1]."""
    grid = node.inputs[1]
    shape = b.type_of(grid).shape
    at = shape[-1] - 1 - axis  # the last axis first
    starts, ends = (*(0 for _ in shape[:-1]), at), (*shape[:-1], at + 1)
    one = b.add("slice", grid, starts=starts, ends=ends, steps=(1,) * len(shape))
    flat = b.add("reshape", b.add("cast", one, to=FP32.name), shape=(shape[0], prod(shape[1:-1]), 1))
    above = b.add("add", flat, _number(b, 1))
    if node.attrs.get("align_corners", False):
        return b.add("mul", b.add("mul", above, _number(b, 0.5)), _number(b, size - 1))
    return b.add("mul", b.add("sub", b.add("mul", above, _number(b, size)), _number(b, 1)), _number(b, 0.5))


def _taps(b: NodeBuilder, place: str, size: int, mode: str) -> list[Tap]:
    """Return the neighbours of places along an axis."""
    if mode == "nearest":
        return [_tap(b, b.add("round", place), "", size)]
    low = b.add("floor", place)
    part = b.add("sub", place, low)
    near = b.add("sub", _number(b, 1), part)
    return [_tap(b, low, near, size), _tap(b, b.add("add", low, _number(b, 1)), part, size)]


def _tap(b: NodeBuilder, place: str, weight: str, size: int) -> Tap:
    """Return a neighbour, held to the axis; a place that is no number is held to its end."""
    zero, last = _number(b, 0), _number(b, size - 1)
    below = b.add("where", b.add("less", place, last), place, last)
    held = b.add("where", b.add("greater", below, zero), below, zero)
    return Tap(held, weight, b.add("equal", held, place))


def _sampled(b: NodeBuilder, table: str, taps: Sequence[Tap], shape: tuple[int, ...], *, zeros: bool) -> str:
    """Return what a neighbour adds to each place, fp32[n, places, c]."""
    n, size = shape[0], shape[2:]
    flat = b.constant(np.arange(n, dtype=np.float32).reshape(n, 1, 1))
    for tap, length in zip(taps, size, strict=True):
        flat = b.add("add", b.add("mul", flat, _number(b, length)), tap.place)
    count = b.type_of(flat).shape[1]
    index = b.add("reshape", b.add("cast", flat, to=INT32.name), shape=(n, count))
    value = b.add("cast", b.add("gather", table, index, axis=0), to=FP32.name)
    if zeros:
        inside = taps[0].inside
        for tap in taps[1:]:
            inside = b.add("and", inside, tap.inside)
        value = b.add("where", inside, value, _number(b, 0))
    for tap in taps:
        value = b.add("mul", value, tap.weight) if tap.weight else value
    return value
