"""A product with weights of few bits, which are expanded tile by tile on their way to the matrix unit."""

from __future__ import annotations

from mtia_emu.errors import UserError
from mtia_emu.types import ProductWork, TensorType

from ..graph import Attrs
from .backward import Back, gradient
from .base import Array, Arrays, Count, Op, Types, array, need, op_named, register
from .dequantise import expand, expected
from .matmul_map import behind

WEIGHTS = ("k", "block")
RESULT = ("shape", "tape", "to")


def _parts(attrs: Attrs) -> tuple[Attrs, Attrs]:
    """Return the attributes of the weights and those of the product."""
    chosen = ({name: attrs[name] for name in names} for names in (WEIGHTS, RESULT))
    weights, result = chosen
    return weights, result


def _plain(types: Types, attrs: Attrs) -> Types:
    """Return the operands of the product with expanded weights."""
    x, zeros = need(types[0]), types[3] if len(types) > 3 else None
    matrix = expected([types[1], types[2], zeros], _parts(attrs)[0])
    if x.dtype != matrix.dtype:
        raise UserError(f"operand {x} and scales of {matrix.dtype} differ in dtype")
    return [x, matrix, *types[4:]]


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    return op_named("matmul_map").infer(_plain(types, attrs), _parts(attrs)[1])


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    weights, result = _parts(attrs)
    zeros = arrays[3] if len(arrays) > 3 else None
    matrix = expand([array(arrays[1]), array(arrays[2]), zeros], weights)
    return op_named("matmul_map").reference([arrays[0], matrix, *arrays[4:]], result)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    plain = _plain(types, attrs)
    count = op_named("matmul_map").count(plain, results, _parts(attrs)[1])
    return Count(ProductWork, count.sizes, count.flops + 2 * need(plain[1]).size)


register(
    Op(
        "matmul_packed",
        "a @ dequantise(codes, scales, zeros?), then a tape on it (x0) and further operands, as `matmul_map`",
        (3, 64),
        _infer,
        _reference,
        _count,
        (*WEIGHTS, *RESULT),
    )
)


@gradient("matmul_packed")
def _back(b: Back) -> tuple[str, ...]:
    """Go back through the product with expanded weights, which themselves stay as they are."""
    attrs, zeros = b.node.attrs, [b[3]] if b.has(3) else []
    matrix = b.add("dequantise", b[1], b[2], *zeros, k=attrs["k"], block=attrs["block"])
    return b.through(behind(b, b.add("matmul", b[0], matrix), b.node.inputs[4:]))
