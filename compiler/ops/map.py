"""A fused elementwise chain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.errors import UserError
from mtia_emu.types import BOOL, FP32, DType, TensorType, dtype

from ..graph import Attrs
from .backward import Back, gradient
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


def unfolded(b: Back, values: Sequence[str]) -> str:
    """Return what a node's tape makes of values, by ops of their own."""
    tape, steps = parse(str(b.node.attrs["tape"])), list[str]()
    for step in tape.steps:
        operands = [_operand(b, s, values, steps, step.to) for s in step.sources]
        if step.function == "where":
            operands[0] = _truth(b, step.sources[0], values, steps)
        made = b.add(step.function, *operands)
        steps.append(b.cast(made, TensorType(step.to, ())))
    (result,) = tape.results
    return _operand(b, result, values, steps, b.node.type.dtype)


def _truth(b: Back, source: int | float, values: Sequence[str], steps: Sequence[str]) -> str:
    value = steps[~int(source)] if source < 0 else values[int(source)]
    return value if b.type(value).dtype == BOOL else b.add("cast", value, to="bool")


def _operand(b: Back, source: int | float, values: Sequence[str], steps: Sequence[str], to: DType) -> str:
    """Return a step's operand: floats in the type of the step, fp32 for one that gives truth values."""
    wide = to if to.is_float else FP32
    if isinstance(source, float):
        return b.builder.constant(source, wide.numpy)
    value = steps[~source] if source < 0 else values[source]
    return b.cast(value, TensorType(wide, ())) if b.type(value).dtype.is_float else value


@gradient("map")
def _back(b: Back) -> tuple[str, ...]:
    """Go back through each step of the tape."""
    shape = b.node.type.shape
    return b.through(b.add("expand", unfolded(b, b.node.inputs), shape=shape))
