"""Rows in int8, each with a scale of its own: what dynamic quantisation does to activations."""

from __future__ import annotations

from mtia_emu.kernels.tape import Tape, TapeBuilder

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, INT8, TensorType

from ..graph import Attrs
from .base import Array, Arrays, Count, Op, Types, array, need, register

LARGEST = 127.0  # symmetric: -128 is not used
LEAST = 1e-12  # scale of a row of zeros


def rows_tape() -> Tape:
    """Return q = round(x * 127 / max|x|) and scale = max|x| / 127 over each row."""
    t = TapeBuilder(1)
    top = t.call("max", t.call("fold_max", t.call("abs", 0)), LEAST)
    factor = t.call("mul", t.call("reciprocal", top), LARGEST)
    return t.done(t.call("round", t.call("mul", 0, factor)), t.call("mul", top, 1.0 / LARGEST))


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x = need(types[0])
    if not x.dtype.is_float or not x.rank:
        raise UserError(f"rows of floats can be quantised, not {x}")
    return TensorType(INT8, x.shape), TensorType(FP32, (*x.shape[:-1], 1))


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    values, scales = rows_tape().evaluate([array(arrays[0])], [INT8, FP32])
    return values, scales


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    return Count("vector", (results[0].size,), flops=4 * results[0].size)


register(Op("quantise_rows", "x as int8, and the fp32 scale of each row", (1, 1), _infer, _reference, _count))
