"""Exchanges with the one rank that holds a table: indices go to it, pooled rows come back.

Ranks exchange along `axes`, `owner` is the holder's place along them, `own` says whether this rank is it: the
only one that sees what is collected. Others hold a token in its place, an element that nobody reads, so that
what they give comes before what they get. `table` tells exchanges of one kind apart.
"""

from __future__ import annotations

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import CopyWork, TensorType, dtype

from ..graph import Attrs
from .backward import no_gradient
from .base import Array, Arrays, Count, Op, Types, array, axis_of, integer, need, register

PLACED = ("collect", "spread")
_SHARED = ("axes", "size", "dim", "owner", "own", "table")


def _size(attrs: Attrs) -> int:
    size, owner = integer(attrs, "size"), integer(attrs, "owner")
    if size < 1 or not 0 <= owner < size:
        raise UserError(f"rank {owner} of {size} cannot hold a table (right: 0 to the number of ranks)")
    return size


def token(kind: TensorType) -> TensorType:
    """Return the type of what stands for values that another rank has."""
    return TensorType(kind.dtype, (1,))


def _collected(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, size = need(types[0]), _size(attrs)
    if not attrs["own"]:
        return (token(x),)
    shape = list(x.shape)
    shape[axis_of(attrs, x.rank, "dim")] *= size
    return (TensorType(x.dtype, tuple(shape)),)


def _collect(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x = array(arrays[0])
    if not attrs["own"]:
        return (np.zeros(1, x.dtype),)
    return (np.concatenate([x] * _size(attrs), axis=integer(attrs, "dim")),)


def part_shape(whole: TensorType, attrs: Attrs) -> tuple[int, ...]:
    """Return the shape of what each rank gets of the owner's value: a part along `dim`, or all (1 part)."""
    shape, parts = list(whole.shape), integer(attrs, "parts")
    axis = axis_of(attrs, whole.rank, "dim")
    if parts not in (1, _size(attrs)) or shape[axis] % parts:
        raise UserError(f"axis {axis} of {whole} does not divide into {parts} parts for {_size(attrs)} ranks")
    shape[axis] //= parts
    return tuple(shape)


def _spread_type(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, shape = need(types[0]), attrs["shape"]
    assert isinstance(shape, tuple)
    result = TensorType(dtype(str(attrs["to"])), tuple(int(n) for n in shape))
    if attrs["own"] and (x.dtype, part_shape(x, attrs)) != (result.dtype, result.shape):
        raise UserError(f"a part of {x} is not {result}")
    _size(attrs)
    return (result,)


def _spread(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x = array(arrays[0])
    if attrs["own"]:
        return (np.split(x, integer(attrs, "parts"), axis=integer(attrs, "dim"))[0],)
    kind = dtype(str(attrs["to"])).numpy
    return (np.zeros(attrs["shape"], kind),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    """Count nothing: what an exchange takes is the system's to say, not the chip's."""
    return Count(CopyWork, read_bytes=0, write_bytes=0)


register(
    Op(
        "collect",
        "all ranks' x one after the other along `dim`, on the rank that is `owner`; a token elsewhere",
        (1, 1),
        _collected,
        _collect,
        _count,
        _SHARED,
        stored=True,
    )
)
register(
    Op(
        "spread",
        "a rank's part, one of `parts` along `dim`, of the `owner`'s x, of `shape` and type `to`; others "
        "give a token",
        (1, 1),
        _spread_type,
        _spread,
        _count,
        (*_SHARED, "parts", "shape", "to"),
        stored=True,
    )
)

no_gradient("it stands between ranks (right: differentiate, then partition)", *PLACED)
