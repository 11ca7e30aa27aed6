"""Values that checkpoints pack in blocks: a few bits an element, and scales of a block.

Layouts: ggml-common.h of github.com/ggml-org/ggml; of MXFP4 the OCP Microscaling Formats specification 1.0.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np

Array = np.ndarray
BLOCKS = {
    "F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24),
    "Q8_0": (32, 34), "Q8_1": (32, 40), "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144),
    "Q5_K": (256, 176), "Q6_K": (256, 210), "Q8_K": (256, 292), "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74),
    "IQ3_XXS": (256, 98), "IQ1_S": (256, 50), "IQ4_NL": (32, 18), "IQ3_S": (256, 110), "IQ2_S": (256, 82),
    "IQ4_XS": (256, 136), "I8": (1, 1), "I16": (1, 2), "I32": (1, 4), "I64": (1, 8), "F64": (1, 8),
    "IQ1_M": (256, 56), "BF16": (1, 2), "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17),
}  # fmt: skip
"""Elements of a block and its bytes, by kind."""
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
PLAIN = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
LOWEST = 127  # the exponent's bias of an 8-bit scale of MX formats


def unpacked(data: Array, kind: str) -> Array | None:
    """Return the values of whole blocks, uint8[bytes], as [elements]; None for kinds that are not read.

    Plain floats stay what they are, all others come as fp32.
    """
    if kind in PLAIN:
        return data.view(PLAIN[kind])
    if kind not in READ:
        return None
    with np.errstate(invalid="ignore", over="ignore"):  # a scale may be none: who uses values looks at them
        return READ[kind](data.reshape(-1, BLOCKS[kind][1])).reshape(-1)


def mxfp4(codes: Array, scales: Array) -> Array:
    """Return fp32[.., blocks, elements] of codes [.., blocks, elements] and exponents uint8[.., blocks]."""
    return np.ldexp(FP4[codes], scales[..., None].astype(np.int32) - LOWEST)


def _half(block: Array, at: int) -> Array:
    """Return the fp16 at a byte of each block: fp32[blocks, 1]."""
    return np.ascontiguousarray(block[:, at : at + 2]).view(np.float16).astype(np.float32)


def _halves(codes: Array) -> Array:
    """Return 4-bit codes of bytes [.., n] as [.., 2 n]: all low ones, then all high ones."""
    return np.concatenate([codes & 15, codes >> 4], axis=-1)


def _bits(packed: Array) -> Array:
    """Return the bits of bytes [.., n], the lowest first: [.., 8 n]."""
    return np.unpackbits(packed, axis=-1, bitorder="little")


def _q4_0(block: Array) -> Array:
    return _half(block, 0) * (_halves(block[:, 2:]).astype(np.float32) - 8)


def _q4_1(block: Array) -> Array:
    return _half(block, 0) * _halves(block[:, 4:]) + _half(block, 2)


def _q5_0(block: Array) -> Array:
    codes = _halves(block[:, 6:]) | _bits(block[:, 2:6]) << 4
    return _half(block, 0) * (codes.astype(np.float32) - 16)


def _q5_1(block: Array) -> Array:
    codes = _halves(block[:, 8:]) | _bits(block[:, 4:8]) << 4
    return _half(block, 0) * codes + _half(block, 2)


def _q8_0(block: Array) -> Array:
    return _half(block, 0) * block[:, 2:].view(np.int8).astype(np.float32)


def _six_bit(packed: Array) -> tuple[Array, Array]:
    """Return the eight 6-bit scales and the eight 6-bit offsets of 12 bytes: [blocks, 8, 1] each."""
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, rest & 15 | first >> 6 << 4], axis=1)
    offsets = np.concatenate([second & 63, rest >> 4 | second >> 6 << 4], axis=1)
    return scales.astype(np.float32)[..., None], offsets.astype(np.float32)[..., None]


def _by_parts(block: Array, codes: Array) -> Array:
    """Return values of eight parts [blocks, 8, 32], each with a scale and an offset of its own."""
    scales, offsets = _six_bit(block[:, 4:16])
    return _half(block, 0)[..., None] * scales * codes - _half(block, 2)[..., None] * offsets


def _q4_k(block: Array) -> Array:
    codes = _halves(block[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return _by_parts(block, codes)


def _q5_k(block: Array) -> Array:
    codes = _halves(block[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    fifth = _bits(block[:, 16:48]).reshape(-1, 32, 8).transpose(0, 2, 1)
    return _by_parts(block, codes | fifth << 4)


def _q6_k(block: Array) -> Array:
    low = _halves(block[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    both = block[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    codes = (low | both << 4).astype(np.float32).reshape(-1, 16, 16) - 32
    scales = block[:, 192:208].view(np.int8).astype(np.float32)[..., None]
    return _half(block, 208)[..., None] * scales * codes


def _mxfp4(block: Array) -> Array:
    return mxfp4(_halves(block[:, 1:]), block[:, 0])


READ: dict[str, Callable[[Array], Array]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q4_K": _q4_k, "Q5_K": _q5_k,
    "Q6_K": _q6_k, "MXFP4": _mxfp4,
}  # fmt: skip
