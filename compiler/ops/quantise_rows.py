"""Rows in 8 bits, each with a scale of its own: what dynamic quantisation does to activations."""

from __future__ import annotations

from mtia_emu.kernels.rows.tape import Tape, TapeBuilder

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, INT8, NARROW_FLOATS, DType, RowWork, TensorType

from ..codes import LEAST, largest
from ..graph import Attrs
from .backward import no_gradient
from .base import Array, Arrays, Count, Op, Types, array, need, register, word

KINDS = {kind.name: kind for kind in (INT8, *NARROW_FLOATS)}


def kind_of(attrs: Attrs) -> DType:
    """Return the type that rows are quantised to: int8 unless the attribute `to` says another."""
    return KINDS[word(attrs, "to", INT8.name, tuple(KINDS))]


def rows_tape(to: DType = INT8) -> Tape:
    """Return q = x * top / max|x|, whole for integers, and scale = max|x| / top over each row.

    `top` is the largest number of the type, of int8 127.
    """
    t, most = TapeBuilder(1), largest(to)
    top = t.call("max", t.call("fold_max", t.call("abs", 0)), LEAST)
    factor = t.call("mul", t.call("reciprocal", top), most)
    level = t.call("mul", 0, factor)
    return t.done(level if to.is_float else t.call("round", level), t.call("mul", top, 1.0 / most))


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x = need(types[0])
    if not x.dtype.is_float or not x.rank:
        raise UserError(f"rows of floats can be quantised, not {x}")
    return TensorType(kind_of(attrs), x.shape), TensorType(FP32, (*x.shape[:-1], 1))


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    to = kind_of(attrs)
    values, scales = rows_tape(to).evaluate([array(arrays[0])], [to, FP32])
    return values, scales


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    shape = need(types[0]).shape
    sizes = {"elements": results[0].size, "row": shape[-1] if shape else 0}
    return Count(RowWork, sizes, 4 * results[0].size)


register(
    Op(
        "quantise_rows",
        "x as int8 (or fp8, as `to` says), and the fp32 scale of each row",
        (1, 1),
        _infer,
        _reference,
        _count,
        optional=("to",),
    )
)

no_gradient("it rounds to few bits (right: train in floats, then quantise)", "quantise_rows")
