"""Weights of a few bits, in blocks that share a scale: expanded to the activations' type when read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import INT8, UINT8, TensorType

from ..graph import Const
from .dequantise import PackedShape, store, weights
from .matmul import multiply
from .spelling import Call, Unsupported, counted, onnx


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """Return the codes [..,n * 8 / bits] in packed[..,n] bytes, lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], packed.shape[-1] * len(shifts))


def _expand(
    packed: np.ndarray,
    scales: np.ndarray,
    zeros: np.ndarray | None,
    bits: int,
    shape: tuple[int, int],
    order: np.ndarray,
) -> np.ndarray:
    """Return (code - zero) * scale as [k, n] from codes [n, blocks, bytes]; `order` is each k's block."""
    k, n = shape
    codes = unpack(packed.reshape(n, packed.size // n), bits)[:, :k]
    zero: np.ndarray
    if zeros is None:
        zero = np.asarray(1 << (bits - 1), np.float32)
    elif zeros.dtype == np.uint8:
        zero = unpack(zeros.reshape(n, -1), bits)[:, order].astype(np.float32)
    else:
        zero = zeros.reshape(n, -1)[:, order].astype(np.float32)
    values = (codes.astype(np.float32) - zero) * scales.reshape(n, -1)[:, order].astype(np.float32)
    return np.ascontiguousarray(values.T)


def _order(c: Call, k: int, block: int) -> np.ndarray:
    """Return the block of each row, [k]: the node's own order (g_idx), or one block after another."""
    plain = counted(k) // max(block, 1)
    if not c.has(4):
        return plain
    order = c.known(4, "g_idx").reshape(-1)[:k]
    if len(order) != k or order.min(initial=0) < 0 or order.max(initial=0) > plain[-1]:
        raise UserError(f"{c.op}: g_idx does not name a block for each of {k} rows")
    return order


@onnx("com.microsoft::MatMulNBits")
def _matmul_nbits(c: Call) -> str:
    k, n, bits, block = (
        c.attr(name, default) for name, default in (("K", 0), ("N", 0), ("bits", 4), ("block_size", 32))
    )
    if bits not in (2, 4, 8):
        raise Unsupported(f"it has {bits}-bit weights")
    order = _order(c, k, block)
    consts = [c.builder.const_of(c[i]) if c.has(i) else None for i in (1, 2, 3)]
    if any(c.has(i) and const is None for i, const in zip((1, 2, 3), consts, strict=True)):
        raise Unsupported("its weights are not constants")
    blocks = -(-k // max(block, 1))
    packed, scales, zeros = consts
    if (
        packed is None
        or scales is None
        or packed.type.size * 8 != n * blocks * block * bits
        or scales.type.size != n * blocks
    ):
        raise UserError(
            f"{c.op}: {c.type(1)} and {c.type(2)} are not {k}x{n} weights of {bits} bits by blocks of {block}"
        )
    if (
        bits > 2
        and not c.has(4)
        and (zeros is None or zeros.type.dtype == UINT8)
        and c.type(0).dtype.is_float
    ):
        name = _packed(c, packed, scales, zeros, Form(k, n, bits, block))
        return multiply(c, c[0], name, c.optional(5)) if c.has(5) else multiply(c, c[0], name)
    kind = TensorType(c.type(0).dtype, (k, n))

    def load() -> np.ndarray:
        zero = None if zeros is None else zeros.array()
        return _expand(packed.array(), scales.array(), zero, bits, (k, n), order).astype(kind.dtype.numpy)

    present = all(const.present for const in consts if const is not None)
    name = c.builder.put(c.builder.fresh(f"{c[1]}.expanded"), Const(kind, load if present else None))
    return multiply(c, c[0], name, c.optional(5)) if c.has(5) else multiply(c, c[0], name)


@dataclass(frozen=True)
class Form:
    """A node's weights: k rows, n columns, bits a code, rows a scale."""

    k: int
    n: int
    bits: int
    block: int

    @property
    def blocks(self) -> int:
        """Return the blocks along k."""
        return -(-self.k // self.block)


def _packed(c: Call, packed: Const, scales: Const, zeros: Const | None, form: Form) -> str:
    """Return the weights as a `dequantise` of codes in our own order, made when they are read."""

    def codes() -> np.ndarray:
        unpacked = unpack(packed.array().reshape(form.n, -1), form.bits)[:, : form.k]
        return store(signed(unpacked, form.bits).T, form.bits, form.block)

    def points() -> np.ndarray:
        assert zeros is not None
        unpacked = unpack(zeros.array().reshape(form.n, -1), form.bits)[:, : form.blocks]
        return store(signed(unpacked, form.bits).T, form.bits, 1)

    def rows() -> np.ndarray:
        return np.ascontiguousarray(scales.array().reshape(form.n, form.blocks).T.astype(to.numpy))

    to = c.type(0).dtype
    present = all(const.present for const in (packed, scales, zeros) if const is not None)
    shape = PackedShape(form.k, form.n, form.block, UINT8 if form.bits == 4 else INT8)
    return weights(c.builder, c[1], shape, to, (codes, rows, points if zeros else None), present)


def signed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Return codes of any shape less the middle of their range, as int8."""
    return (codes.astype(np.int16) - (1 << (bits - 1))).astype(np.int8)


@onnx("com.microsoft::GatherBlockQuantized")
def _gather_quantised(c: Call) -> str:
    """Return rows of a table of codes, whose blocks along one axis share a scale."""
    if c.attr("gather_axis", 0) != 0 or c.attr("bits", 4) not in (4, 8):
        raise Unsupported("it gathers along another axis than the first, or has other than 4 or 8 bits")
    consts = [c.builder.const_of(c[i]) if c.has(i) else None for i in (0, 2, 3)]
    table, scales, zeros = consts
    if table is None or scales is None or (c.has(3) and zeros is None):
        raise Unsupported("its table is not a constant")
    codes_kind, bits = c.type(0), c.attr("bits", 4)
    packs = 8 // bits if codes_kind.dtype.name == "uint8" else 1
    shape = (*codes_kind.shape[:-1], codes_kind.shape[-1] * packs)
    axis, block = c.wrap(c.attr("quantize_axis", 1), len(shape)), c.attr("block_size", 128)
    scale_shape = tuple(-(-s // block) if i == axis else s for i, s in enumerate(shape))
    if scales.type.shape != scale_shape:
        raise UserError(
            f"{c.op}: scales {scales.type} are not one for each block of {block} of {list(shape)}"
        )
    kind, spread = TensorType(scales.type.dtype, shape), counted(shape[axis]) // block

    def load() -> np.ndarray:
        codes = _codes(table.array(), bits, packs)
        default = np.asarray(
            1 << (bits - 1) if packs > 1 or codes_kind.dtype.name == "uint8" else 0, np.float32
        )
        zero = default if zeros is None else np.take(_codes(zeros.array(), bits, packs), spread, axis)
        values = (codes - zero) * np.take(scales.array().astype(np.float32), spread, axis)
        return np.ascontiguousarray(values.astype(kind.dtype.numpy))

    present = all(const.present for const in consts if const is not None)
    name = c.builder.put(c.builder.fresh(f"{c[0]}.expanded"), Const(kind, load if present else None))
    return c.add("gather", name, c[1], axis=0)


def _codes(packed: np.ndarray, bits: int, packs: int) -> np.ndarray:
    """Return codes [..,n] as fp32, unpacked to [..,n * packs] where several stand in a byte."""
    return (unpack(packed, bits) if packs > 1 else packed).astype(np.float32)
