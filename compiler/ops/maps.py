"""A fused elementwise chain of which several values are kept."""

from __future__ import annotations

import numpy as np
from mtia_emu.kernels.rows.tape import Tape, parse

from mtia_emu.errors import UserError
from mtia_emu.types import DType, TensorType, dtype

from ..graph import Attrs
from .backward import no_gradient
from .base import Array, Arrays, Count, Op, Types, array, broadcast, elementwise, need, register


def tape_of_maps(attrs: Attrs) -> tuple[Tape, list[DType]]:
    """Return the tape, and the types of its results."""
    tape, kinds = parse(str(attrs["tape"])), [dtype(name) for name in str(attrs["to"]).split()]
    if tape.row_wise or len(tape.results) != len(kinds):
        raise UserError(
            f"the tape gives {len(tape.results)} results of {len(kinds)} types "
            "(right: a type for each, with spaces between, and no folds)"
        )
    return tape, kinds


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    tape, kinds = tape_of_maps(attrs)
    if tape.inputs != len(types):
        raise UserError(f"the tape takes {tape.inputs} operands; there are {len(types)}")
    shape = broadcast([need(t).shape for t in types])
    return tuple(TensorType(kind, shape) for kind in kinds)


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    tape, kinds = tape_of_maps(attrs)
    values = [array(x) for x in arrays]
    shape = broadcast([x.shape for x in values])
    return tuple(np.broadcast_to(x, shape).copy() for x in tape.evaluate(values, kinds))


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    size = results[0].size
    return elementwise(size, size * len(tape_of_maps(attrs)[0].steps))


register(
    Op(
        "maps",
        "a fused elementwise chain of which several values are kept, written as a tape",
        (1, 64),
        _infer,
        _reference,
        _count,
        ("tape", "to"),
    )
)
no_gradient("it is made of elementwise work when a graph is lowered (right: differentiate the model)", "maps")
