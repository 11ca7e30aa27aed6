"""Exchanges between ranks as ops of the graph: what each rank gives, and what it gets.

`axes` name the axes of the mesh along which ranks exchange, the slowest first, `size` says how many they are.
The references are those of ranks that all hold the same: with other values it takes all ranks to say.
"""

from __future__ import annotations

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import CopyWork, TensorType

from ..graph import Attrs
from .backward import no_gradient
from .base import Array, Arrays, Count, Op, Types, array, axis_of, index_dtype, integer, need, register
from .table_exchanges import PLACED

ROUTED = ("dispatch", "combine")  # between rows and the experts that they go to
_OWN = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send", *ROUTED)
COLLECTIVES = (*_OWN, *PLACED)
_SHARED = ("axes", "size")


def _size(attrs: Attrs) -> int:
    size = integer(attrs, "size")
    if size < 1:
        raise UserError(f"size {size} is no number of ranks (right: 1 or more)")
    return size


def _resized(x: TensorType, axis: int, times: int, parts: int) -> TensorType:
    """Return a type whose dimension is so many times as long, then cut into so many parts."""
    shape = list(x.shape)
    if shape[axis] * times % parts:
        raise UserError(f"axis {axis} of {x} does not divide among {parts} ranks")
    shape[axis] = shape[axis] * times // parts
    return TensorType(x.dtype, tuple(shape))


def _same(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    _size(attrs)
    return (need(types[0]),)


def _gathered(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x = need(types[0])
    return (_resized(x, axis_of(attrs, x.rank, "dim"), _size(attrs), 1),)


def _scattered(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x = need(types[0])
    return (_resized(x, axis_of(attrs, x.rank, "dim"), 1, _size(attrs)),)


def _exchanged(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, size = need(types[0]), _size(attrs)
    cut = _resized(x, axis_of(attrs, x.rank, "dim"), 1, size)
    return (_resized(cut, axis_of(attrs, x.rank, "join"), size, 1),)


def _sum(x: Array, size: int) -> Array:
    return np.asarray(x * np.asarray(size, x.dtype)).astype(x.dtype)


def _all_reduce(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    return (_sum(array(arrays[0]), _size(attrs)),)


def _all_gather(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x = array(arrays[0])
    return (np.concatenate([x] * _size(attrs), axis=integer(attrs, "dim")),)


def _reduce_scatter(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, size = array(arrays[0]), _size(attrs)
    return (_sum(np.split(x, size, axis=integer(attrs, "dim"))[0], size),)


def _all_to_all(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    x, size = array(arrays[0]), _size(attrs)
    part = np.split(x, size, axis=integer(attrs, "dim"))[0]
    return (np.concatenate([part] * size, axis=integer(attrs, "join")),)


def _infer_dispatch(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, chosen = need(types[0]), need(types[1])
    index_dtype(chosen)
    _experts_each(attrs)
    if x.rank != 2 or chosen.rank != 2 or x.shape[0] not in (chosen.shape[0], chosen.size):
        raise UserError(f"{x} has neither a row a token of {chosen} nor one for each of its experts")
    return _gathered(types[:1], attrs)


def _experts_each(attrs: Attrs) -> int:
    """Return how many experts a rank has."""
    experts, size = integer(attrs, "experts"), _size(attrs)
    if experts < size or experts % size:
        raise UserError(f"{experts} experts do not divide among {size} ranks")
    return experts // size


def sent_to(x: Array, chosen: Array, rank: int, attrs: Attrs) -> Array:
    """Return what of rows x goes to a rank: those of which an expert is there, zeros in place of others."""
    own = _experts_each(attrs)
    there = (chosen % integer(attrs, "experts")) // own == rank
    wanted = there.any(axis=1) if len(x) == len(chosen) else there.reshape(-1)
    return np.where(wanted[:, None], x, np.zeros((), x.dtype))


def _dispatch(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    part = sent_to(array(arrays[0]), array(arrays[1]), 0, attrs)
    return (np.concatenate([part] * _size(attrs)),)


def _combine_type(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    _experts_each(attrs)
    return _scattered(types, attrs)


def _send(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    return (array(arrays[0]),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    """Count nothing: what an exchange takes is the system's to say, not the chip's."""
    return Count(CopyWork, read_bytes=0, write_bytes=0)


for _name, _text, _infer, _reference, _own in (
    ("all_reduce", "the sum of all ranks' x, on each", _same, _all_reduce, _SHARED),
    ("all_gather", "all ranks' x one after the other along `dim`", _gathered, _all_gather, (*_SHARED, "dim")),
    (
        "reduce_scatter",
        "a rank's part, along `dim`, of the sum of all ranks' x",
        _scattered,
        _reduce_scatter,
        (*_SHARED, "dim"),
    ),
    (
        "all_to_all",
        "x cut along `dim`, a part for each rank; what a rank gets is joined along `join`",
        _exchanged,
        _all_to_all,
        (*_SHARED, "dim", "join"),
    ),
    ("send", "x, for the next stage of a pipeline", _same, _send, ("size",)),
):
    register(Op(_name, _text, (1, 1), _infer, _reference, _count, _own, stored=True))

register(
    Op(
        "dispatch",
        "all ranks' rows x one after the other along `dim`, zeros in place of those that go to no expert of "
        "a rank: rows go where one of their choices, of chosen [tokens, each], is, and each rank has as many "
        "`experts` as others; `law` is how popular these are",
        (2, 2),
        _infer_dispatch,
        _dispatch,
        _count,
        (*_SHARED, "dim", "experts", "each"),
        ("law",),
        stored=True,
    )
)
register(
    Op(
        "combine",
        "a rank's part, along `dim`, of the sum of all ranks' x, of which a row has zeros where none of its "
        "`each` experts is",
        (1, 1),
        _combine_type,
        _reduce_scatter,
        _count,
        (*_SHARED, "dim", "experts", "each"),
        ("law",),
        stored=True,
    )
)

no_gradient("it stands between ranks (right: differentiate, then partition)", *_OWN)
