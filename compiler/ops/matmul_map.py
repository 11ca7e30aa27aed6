"""A product and the elementwise work on its result, done tile by tile before the result is stored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from mtia_emu.kernels.rows.tape import Tape, TapeBuilder, parse

from mtia_emu.errors import UserError
from mtia_emu.types import ProductWork, TensorType, dtype

from ..graph import Attrs
from .backward import Back, gradient
from .base import Array, Arrays, Count, Op, Types, array, broadcast, integers, need, op_named, register
from .map import unfolded
from .matmul import product


def epilogue(present: tuple[bool, bool], activation: str) -> Tape:
    """Return activation(x0 * scale + bias) as a tape; `present` says whether there is a scale and a bias."""
    tape = TapeBuilder(1 + sum(present))
    value, used = 0, 0
    for function, given in zip(("mul", "add"), present, strict=True):
        if given:
            used += 1
            value = tape.call(function, value, used)
    return tape.done(tape.call(activation, value) if activation != "none" else value)


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    plain = op_named("matmul").infer(types[:2], {})[0]
    shape, tape = integers(attrs, "shape"), parse(str(attrs["tape"]))
    if math.prod(shape) != plain.size or not shape or shape[-1] != plain.shape[-1]:
        raise UserError(f"the product is {plain}, which cannot be seen as {list(shape)} with equal columns")
    if tape.inputs != len(types) - 1 or len(tape.results) != 1 or tape.row_wise:
        raise UserError(
            f"the tape takes {tape.inputs} operands; there are {len(types) - 1}: the product and others"
        )
    if broadcast([shape, *(need(t).shape for t in types[2:])]) != shape:
        raise UserError(f"an operand of the tape does not broadcast to {list(shape)}")
    return (TensorType(dtype(str(attrs["to"])), shape),)


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    shape, kind = integers(attrs, "shape"), dtype(str(attrs["to"]))
    result = product(array(arrays[0]), array(arrays[1])).reshape(shape)
    (out,) = parse(str(attrs["tape"])).evaluate([result, *(array(x) for x in arrays[2:])], [kind])
    return (np.broadcast_to(out, shape).copy(),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    plain = op_named("matmul").infer(types[:2], {})
    count = op_named("matmul").count(types[:2], plain, {})
    return Count(ProductWork, count.sizes, results[0].size * len(parse(str(attrs["tape"])).steps))


register(
    Op(
        "matmul_map",
        "a @ b in `shape`, then a tape on it (x0) and further operands",
        (2, 64),
        _infer,
        _reference,
        _count,
        ("shape", "tape", "to"),
    )
)


@gradient("matmul_map")
def _back(b: Back) -> tuple[str, ...]:
    """Go back through each step of the tape, then through the product."""
    return b.through(behind(b, b.add("matmul", b[0], b[1]), b.node.inputs[2:]))


def behind(b: Back, product: str, others: Sequence[str]) -> str:
    """Return what a node's tape makes of a product, in its shape, and of further operands."""
    if not b.type(product).dtype.is_float:
        raise UserError("a product of integers has none (right: train in floats, then quantise)")
    seen = b.reshape(product, integers(b.node.attrs, "shape"))
    return b.add("expand", unfolded(b, [seen, *others]), shape=b.node.type.shape)
