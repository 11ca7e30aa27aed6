"""A fused elementwise chain."""

from __future__ import annotations

import numpy as np
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType, dtype

from ..graph import Attrs
from .base import Array, Arrays, Count, Op, Types, array, broadcast, elementwise, need, register


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    tape = parse(str(attrs["tape"]))
    if tape.inputs != len(types) or len(tape.results) != 1 or tape.row_wise:
        raise UserError(
            f"the tape takes {tape.inputs} operands and gives {len(tape.results)} results; "
            f"map has {len(types)} operands and gives one, without folds"
        )
    return (TensorType(dtype(str(attrs["to"])), broadcast([need(t).shape for t in types])),)


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    values = [array(x) for x in arrays]
    shape = broadcast([x.shape for x in values])
    (out,) = parse(str(attrs["tape"])).evaluate(values, [dtype(str(attrs["to"]))])
    return (np.broadcast_to(out, shape).copy(),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    size = results[0].size
    return elementwise(size, size * len(parse(str(attrs["tape"])).steps))


register(
    Op(
        "map",
        "a fused elementwise chain, written as a tape",
        (0, 64),
        _infer,
        _reference,
        _count,
        ("tape", "to"),
    )
)
