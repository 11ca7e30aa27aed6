"""Weights of a few bits, in blocks that share a scale: expanded to the activations' type when read."""

from __future__ import annotations

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import TensorType

from ..graph import Const
from .matmul import multiply
from .spelling import Call, Unsupported, onnx


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """Return the codes in bytes along the last axis, lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], packed.shape[-1] * len(shifts))


def _expand(
    packed: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, bits: int, shape: tuple[int, int]
) -> np.ndarray:
    """Return (code - zero) * scale as [k, n] from codes [n, blocks, bytes]."""
    k, n = shape
    codes = unpack(packed.reshape(n, packed.size // n), bits).reshape(n, scales.size // n, -1)
    zero: np.ndarray
    if zeros is None:
        zero = np.asarray(1 << (bits - 1), np.float32)
    elif zeros.dtype == np.uint8:
        zero = unpack(zeros.reshape(n, -1), bits)[:, : codes.shape[1], None].astype(np.float32)
    else:
        zero = zeros.reshape(n, -1, 1).astype(np.float32)
    values = (codes.astype(np.float32) - zero) * scales.reshape(n, -1, 1).astype(np.float32)
    return np.ascontiguousarray(values.reshape(n, -1)[:, :k].T)


@onnx("com.microsoft::MatMulNBits")
def _matmul_nbits(c: Call) -> str:
    k, n, bits, block = (
        c.attr(name, default) for name, default in (("K", 0), ("N", 0), ("bits", 4), ("block_size", 32))
    )
    if c.has(4) or bits not in (2, 4, 8):
        raise Unsupported(
            f"it has {bits}-bit weights" + (", in an order of its own (g_idx)" if c.has(4) else "")
        )
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
    kind = TensorType(c.type(0).dtype, (k, n))

    def load() -> np.ndarray:
        zero = None if zeros is None else zeros.array()
        return _expand(packed.array(), scales.array(), zero, bits, (k, n)).astype(kind.dtype.numpy)

    present = all(const.present for const in consts if const is not None)
    name = c.builder.put(c.builder.fresh(f"{c[1]}.expanded"), Const(kind, load if present else None))
    return multiply(c, c[0], name, c.optional(5)) if c.has(5) else multiply(c, c[0], name)
