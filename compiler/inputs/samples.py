"""Random inputs that a model can take, drawn to break what is made of it."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mtia_emu import settings
from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..graph import Graph
from .landmarks import landmarks, solved
from .lawful import EXPONENTS, Lawful
from .roles import DIVISOR, EXPONENT, OFFSETS, ROWS, SHIFT, SMALL, Role, role_of
from .rows import shaped

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
KINDS = ("usual", "constants", "small", "large", "extremes", "special")
"""The characters of samples; `random_inputs` says what each is."""
STEPS = (0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, -0.0)  # where signs change and roundings tie
MODERATE = 64.0  # what narrow formats still compute with as wide ones do
SPRINKLED = 8  # one element in so many of a usual sample is such a number
DRAWN = 8  # bytes of a number when it is drawn
SPECIALS = (np.nan, np.inf, -np.inf, -0.0)
LANDMARKS = 8  # rows that a graph names, of which indices have some
SHIFTED = 3  # a divisor in place of 0 and -1, by which there is no quotient, or none that fits


def random_inputs(graph: Graph, seed: int = 0, kind: str = "usual") -> dict[str, Array]:
    """Return a random array for each input, the same for the same seed and kind.

    `usual`: normal numbers, and here and there those at which the graph may change what it does; rows of
    masks end early. `constants`: half of the numbers at and around the graph's own. `small`, `large`:
    magnitudes far below and above 1, each row its own. `extremes`: the largest, the least and subnormal
    numbers. `special`: NaN, infinities and -0. But for the first, whole rows of masks are 0, indices
    repeat, lie at the ends and count from the last where they may, and rows of floats are as `shaped` has it.

    Whatever the kind, integers that index rows lie within them, offsets of bags rise, lengths that cut what
    there is share it, and what a name that ends in "mask" has is 0 or 1. Other names shape the usual kind
    alone, where what has "pos" in it counts up. What becomes an index by arithmetic is 0 or 1 there, and in
    the other kinds any integers that `Lawful` finds to be right.
    """
    _refuse_large(graph)
    values = {name: _sample(graph, name, kind, _rng(seed, name, kind)) for name in graph.inputs}
    if kind == "usual":
        return values
    for name, declared in graph.inputs.items():
        role = role_of(graph, name)
        if role is not None and role.what == SMALL and not declared.dtype.is_float:
            rng = _rng(seed + 1, name, kind)
            lawful = Lawful(graph, name)
            if lawful.rises and "length" in name.lower():
                continue  # they share what there is already
            sample = lawful.first(name, _candidates(graph, name, lawful.size, kind, rng), values)
            values[name] = values[name] if sample is None else sample
    return values


def _rng(seed: int, name: str, kind: str) -> Rng:
    return np.random.default_rng([seed, zlib.crc32(name.encode()), KINDS.index(kind)])


def _refuse_large(graph: Graph) -> None:
    """Raise `UserError` for inputs that take more memory to draw than `settings.MEMORY` allows."""
    bytes_of = {name: _drawn_bytes(kind) for name, kind in graph.inputs.items()}
    need, most = sum(bytes_of.values()), settings.integer(settings.MEMORY)
    if need > most:
        name = max(bytes_of, key=bytes_of.__getitem__)
        kind = graph.inputs[name]
        raise UserError(
            f"drawing inputs of {graph.name} takes {need} bytes of memory, most of it for %{name} : {kind}; "
            f"at most {most} are allowed: choose smaller dimensions, or set {settings.MEMORY.name} higher"
        )


def _drawn_bytes(kind: TensorType) -> int:
    """Return the bytes of an array while it is drawn; of an empty one those that NumPy refuses it for."""
    counted = DRAWN * math.prod(n or 1 for n in kind.shape)
    return counted if counted >= 1 << 63 else DRAWN * kind.size


def _sample(graph: Graph, name: str, kind: str, rng: Rng) -> Array:
    role, declared = role_of(graph, name), graph.inputs[name]
    if role is not None and role.what == ROWS:
        wraps = role.wraps and declared.dtype.numpy.kind == "i"
        near = () if kind == "usual" else [int(c) for c in landmarks(graph, name) if c == int(c)]
        values = _indices(declared.shape, Role(ROWS, role.size, wraps), kind, near, rng)
    elif declared.dtype.is_float:
        return _floats(graph, name, declared, kind, rng)
    elif role is not None and role.what == OFFSETS:
        values = _offsets(declared.shape, role.size, kind, rng)
    elif role is not None or kind == "usual":
        values = _named(graph, name, declared, role, kind, rng)
    else:
        values = _any(graph, name, declared, kind, rng)
    return np.asarray(values).astype(declared.dtype.numpy)


def _named(graph: Graph, name: str, declared: TensorType, role: Role | None, kind: str, rng: Rng) -> Array:
    """Return integers of the declared shape as their name says, or within what their role allows."""
    if "length" in name.lower():
        return _lengths(graph, name, declared, kind, rng)
    if "mask" in name.lower() or declared.dtype.name == "bool":
        return _mask(declared.shape, kind, rng)
    if "pos" in name.lower() and declared.rank:
        return np.broadcast_to(np.arange(declared.shape[-1]), declared.shape)
    return _bounded(_integers(graph, name, declared, kind, rng), declared, role, rng)


def _any(graph: Graph, name: str, declared: TensorType, kind: str, rng: Rng) -> Array:
    """Return integers of the declared shape of which nothing is asked.

    They are 0 and 1 for a mask, positions in some kinds, else any."""
    if declared.dtype.name == "bool" or _is_mask(name):
        return _mask(declared.shape, kind, rng)
    if "pos" in name.lower() and declared.rank and kind in ("small", "large", "special"):
        return _positions(declared.shape, kind, rng)
    return _integers(graph, name, declared, kind, rng)


def _is_mask(name: str) -> bool:
    """Return whether a name ends in the word mask, numbers aside: not that of an id, which may be any."""
    return re.sub("[^a-z]+", " ", name.lower()).strip().endswith("mask")


def _positions(shape: tuple[int, ...], kind: str, rng: Rng) -> Array:
    """Return positions shape[..,n], in rows out of order, from some other on than 0, or some repeated."""
    rows = np.broadcast_to(np.arange(shape[-1]), shape)
    if kind == "small":
        return rng.permuted(rows, axis=-1)
    return rows + rng.integers(1, 1000, (*shape[:-1], 1)) if kind == "large" else rng.integers(0, 4, shape)


def _candidates(graph: Graph, name: str, size: int, kind: str, rng: Rng) -> Iterator[Array]:
    """Yield integers of an input's shape to be indices by arithmetic: any, any from 0 on, then fewer."""
    declared = graph.inputs[name]
    real = declared.dtype.numpy
    drawn = _any(graph, name, declared, kind, rng).astype(real)
    yield drawn
    yield np.where(drawn < 0, -(drawn + 1), drawn).astype(real)
    near = [round(c) + step for step in (0, 1, -1) for c in (*solved(graph, name), *landmarks(graph, name))]
    while size > 0:
        for low in (-size, 0) if real.kind == "i" else (0,):
            pool = [c for c in dict.fromkeys((low, size - 1, *near)) if low <= c < size]
            yield _sprinkled(rng.integers(low, size, declared.shape), np.asarray(pool), 2, rng).astype(real)
        size //= 2


def _indices(shape: tuple[int, ...], role: Role, kind: str, near: Sequence[int], rng: Rng) -> Array:
    """Return indices of rows, an array of that shape.

    They are uniform, or mostly the ends and those that the graph names, or one for all."""
    last = max(role.size, 1) - 1
    values = rng.integers(0, last + 1, shape)
    if kind in ("constants", "extremes"):
        ends = (0, last, -1, -1 - last) if role.wraps else (0, last)
        values = np.where(rng.random(shape) < 0.5, rng.choice(ends, shape), values)
    pool = [c for c in near if (-1 - last if role.wraps else 0) <= c <= last]
    if pool and kind in ("constants", "small"):
        values = _sprinkled(values, np.asarray(pool[:LANDMARKS]), 4, rng)
    if kind == "extremes" and role.wraps:
        values = np.where(rng.random(shape) < 0.5, values - (last + 1) * (values >= 0), values)
    return np.full(shape, values.reshape(-1)[0]) if kind == "special" and values.size else values


def _offsets(shape: tuple[int, ...], size: int, kind: str, rng: Rng) -> Array:
    """Return where bags begin, shape[..,bags], rising from 0: many of them empty, or all but one."""
    few = kind in ("constants", "extremes")
    most = size // 2 if kind == "small" else size  # the last of them ends before what there is
    cuts = np.sort(rng.choice((0, size), shape) if few else rng.integers(0, most + 1, shape), axis=-1)
    cuts[..., 0] = 0
    return cuts


def _lengths(graph: Graph, name: str, declared: TensorType, kind: str, rng: Rng) -> Array:
    """Return lengths of the declared shape that share the integers there are: by chance, or all in one."""
    others = (t.size for other, t in graph.inputs.items() if other != name and not t.dtype.is_float)
    total, bins = max(others, default=0), max(declared.size, 1)
    places = np.full(total, rng.integers(bins)) if kind == "extremes" else rng.integers(0, bins, total)
    return np.bincount(places, minlength=declared.size)[: declared.size].reshape(declared.shape)


def _mask(shape: tuple[int, ...], kind: str, rng: Rng) -> Array:
    """Return ones and zeros, shape[..,n].

    Rows end early, or have holes and every other one is empty, or a single one is left."""
    if not shape:
        return np.asarray(1 if kind in ("usual", "large") else rng.integers(2))
    rows, width = (*shape[:-1], 1), shape[-1]
    ends = rng.integers(1, max(width, 1) + 1, rows)
    if kind == "usual":
        return np.broadcast_to(np.arange(width) < ends, shape)
    if kind in ("small", "large"):
        return rng.random(shape) < 0.5
    empty = (rng.permutation(int(np.prod(rows))) % 2).reshape(rows) == 1
    left = np.arange(width) == ends - 1 if kind == "extremes" else rng.random(shape) < 0.75
    return left & ~empty


def _integers(graph: Graph, name: str, declared: TensorType, kind: str, rng: Rng) -> Array:
    """Return integers of the declared shape; those of a byte are uniform over all that it holds."""
    info = np.iinfo(declared.dtype.numpy) if declared.dtype.numpy.kind in "iu" else None
    low, high = (0, 1) if info is None else (int(info.min), int(info.max))
    wide = np.dtype(np.uint64 if low == 0 else np.int64)
    if kind == "large" or declared.dtype.bits <= 8:
        values = rng.integers(low, high, declared.shape, wide, endpoint=True)
    else:
        values = rng.integers(max(low, -8), 16, declared.shape, wide)
    known = landmarks(graph, name) if kind == "usual" else (*solved(graph, name), *landmarks(graph, name))
    near = [round(c) + step for step in (0, 1, -1) for c in (*known, 0)]
    ends = [low, high, low + 1, high - 1, *(2**k - 1 for k in range(0, high.bit_length(), 5))]
    pool = {"constants": near, "extremes": ends + near}.get(kind, [c for c in near if abs(c) <= MODERATE])
    pool = [c for c in dict.fromkeys(pool) if low <= c <= high]
    pool = _turned(pool, values.size, rng) if kind == "constants" else pool
    return _sprinkled(values, np.asarray(pool, wide), SPRINKLED if kind in ("usual", "special") else 2, rng)


def _bounded(values: Array, declared: TensorType, role: Role | None, rng: Rng) -> Array:
    """Return integers of the declared shape within what their role allows."""
    what = role.what if role is not None else ""
    if what == DIVISOR:
        return np.where((values == 0) | (values.astype(np.int64) == -1), SHIFTED, values)
    high = {SMALL: 2, EXPONENT: EXPONENTS, SHIFT: declared.dtype.bits}.get(what)
    return values if high is None else rng.integers(0, high, declared.shape)


def _floats(graph: Graph, name: str, declared: TensorType, kind: str, rng: Rng) -> Array:
    values, real = rng.standard_normal(declared.shape), declared.dtype.numpy
    if kind in ("small", "large"):
        return shaped((values * _magnitudes(declared, kind, rng)).astype(real), kind, rng)
    numbers = landmarks(graph, name)
    if kind == "usual":
        pool, share = [c for c in _around(numbers) if abs(c) <= MODERATE], SPRINKLED
    elif kind == "constants":
        met = _turned(solved(graph, name), -(-values.size // 4), rng)
        both = list(dict.fromkeys((*met, *numbers)))
        pool, share = [*met, *_around(both), *_beside(both, declared)], 2
    elif kind == "extremes":
        pool, share = _ends(declared), 4
    else:
        pool, share = list(SPECIALS), SPRINKLED // 2
    with np.errstate(all="ignore"):
        drawn = np.asarray(pool).astype(real)
    drawn = drawn if kind == "special" else drawn[np.isfinite(drawn.astype(np.float64))]
    if "mask" in name.lower() and kind in ("constants", "special"):
        drawn, share = np.asarray((0.0, -np.inf if kind == "special" else -1e4)).astype(real), 1
        return _sprinkled(values.astype(real), drawn, share, rng)
    sprinkled = _sprinkled(values.astype(real), drawn, share, rng)
    return sprinkled if kind == "usual" else shaped(sprinkled, kind, rng)


def _turned(pool: Sequence[Any], count: int, rng: Rng) -> list[Any]:
    """Return a pool of which only `count` are sure to be taken from another start, if it has more."""
    start = int(rng.integers(len(pool))) if len(pool) > count else 0
    return [*pool[start:], *pool[:start]]


def _magnitudes(declared: TensorType, kind: str, rng: Rng) -> Array:
    """Return a factor for each row, [..,1] and far from 1: such as every format of 16 bits computes with."""
    rows = (*declared.shape[:-1], 1) if declared.rank else ()
    count = max(int(np.prod(rows)), 1)
    low, high = (-24.0, -3.0) if kind == "small" else (1.0, 10.0)
    powers = low + (high - low) * (rng.permutation(count) + rng.random(count)) / count  # all of the range
    return np.asarray(2.0 ** np.floor(powers))[: int(np.prod(rows))].reshape(rows)


def _around(numbers: Sequence[float]) -> list[float]:
    """Return what lies well beside the numbers of a graph, they themselves, and where roundings tie."""
    far: list[Callable[[float], float]] = [
        lambda c: c + max(abs(c) / 4, 0.5),
        lambda c: c - max(abs(c) / 4, 0.5),
        lambda c: c,
        lambda c: -c,
    ]
    return [move(c) for move in far for c in numbers] + list(STEPS)


def _beside(numbers: Sequence[float], declared: TensorType) -> list[float]:
    """Return the next numbers of a type, and those a few steps away."""
    import ml_dtypes

    if declared.dtype.bits < 16:
        return []
    step = float(ml_dtypes.finfo(declared.dtype.numpy).eps)
    return [c * (1 + k * step) for k in (1, -1, 4, -4) for c in numbers]


def _ends(declared: TensorType) -> list[float]:
    """Return the largest numbers of a type, the least normal and subnormal ones, and halves of them."""
    import ml_dtypes

    info = ml_dtypes.finfo(declared.dtype.numpy)
    sizes = [float(x) for x in (info.max, info.tiny, info.smallest_subnormal)]
    sizes += [sizes[0] / 2, sizes[1] / 2, sizes[0] ** 0.5]
    return [sign * size for size in sizes for sign in (1, -1)] + [0.0, -0.0]


def _sprinkled(values: Array, pool: Array, share: int, rng: Rng) -> Array:
    """Return values of any shape, one in `share` replaced by numbers of pool[n]: the first, then any."""
    flat = values.reshape(-1).copy()
    count = flat.size // share if share >= SPRINKLED else -(-flat.size // share)
    if not len(pool) or not count:
        return values
    places = rng.permutation(flat.size)[:count]
    first = pool[: -(-count // 2)]
    flat[places] = np.concatenate([first, rng.choice(pool, count - len(first))])
    return flat.reshape(values.shape)
