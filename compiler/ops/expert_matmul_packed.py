"""Products with routed experts whose weights are of few bits: codes of other experts are not read."""

from __future__ import annotations

from dataclasses import replace

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..graph import Attrs
from .backward import no_gradient
from .base import Array, Arrays, Count, Op, Types, array, need, op_named, register
from .dequantise import expand, expected
from .expert_matmul import routed_count, routed_product

FORM = ("k", "block")
ROUTING = ("law", "each", "of")


def _plain(types: Types, attrs: Attrs) -> Types:
    """Return the operands of the product with expanded weights."""
    codes = need(types[1])
    parts = [t for t in (codes, need(types[3]), types[4] if len(types) > 4 else None) if t is not None]
    if any(t.rank != 3 or t.shape[0] != codes.shape[0] for t in parts):
        named = ", ".join(map(str, parts))
        raise UserError(f"codes, scales and zero points are each of [experts, .., n], not {named}")
    one = [TensorType(t.dtype, t.shape[1:]) for t in parts]
    matrix = expected(one, {name: attrs[name] for name in FORM})
    return [types[0], TensorType(matrix.dtype, (codes.shape[0], *matrix.shape)), types[2]]


def _routing(attrs: Attrs) -> Attrs:
    return {name: attrs[name] for name in ROUTING if name in attrs}


def _infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    return op_named("expert_matmul").infer(_plain(types, attrs), _routing(attrs))


def _reference(arrays: Arrays, attrs: Attrs) -> tuple[Array, ...]:
    codes, scales = array(arrays[1]), array(arrays[3])
    zeros = arrays[4] if len(arrays) > 4 else None
    shape = (len(codes), int(attrs["k"]), codes.shape[2])

    def weights(expert: int) -> Array:
        return expand([codes[expert], scales[expert], None if zeros is None else zeros[expert]], attrs)

    return (routed_product(array(arrays[0]), weights, shape, array(arrays[2]), attrs),)


def _count(types: Types, results: tuple[TensorType, ...], attrs: Attrs) -> Count:
    plain, stored = _plain(types, attrs), [t for t in (types[1], *types[3:]) if t is not None]
    expert_bytes = sum(t.bytes for t in stored) // need(types[1]).shape[0]
    count = routed_count(plain, results, _routing(attrs), expert_bytes)
    expanded = count.sizes["batch"] * count.sizes["k"] * count.sizes["n"]
    return replace(count, flops=count.flops + 2 * expanded)


register(
    Op(
        "expert_matmul_packed",
        "expert_matmul(x, dequantise(codes, scales, zeros?) of each, chosen), of codes [experts, .., n]: "
        "weights of 4 or 8 bits, those of experts that nobody chooses neither read nor expanded",
        (4, 5),
        _infer,
        _reference,
        _count,
        FORM,
        ROUTING,
    )
)

no_gradient("its codes are whole numbers (right: train in floats, then quantise)", "expert_matmul_packed")
