"""Numbers of few bits: the codes and scales that stand for weights, and the scales of activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.types import INT8, NARROW_FLOATS, UINT8, DType

Array = np.ndarray[Any, Any]
LEAST = 1e-12  # scale of zeros alone
LOWEST, TOP = -8, 7  # codes of 4 bits
ENDS = (-8.0, -7.5, -7.0, -8.5, -9.0, -9.5, -10.0)  # codes for a block's largest weight that are tried
SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8)  # shares of a block's range that are tried
CHUNK = 1 << 20  # weights that are fitted at once


@dataclass(frozen=True)
class Codes:
    """A format of weights: its name, the type of an element in memory, the largest and the least code."""

    name: str
    stored: DType
    largest: float
    lowest: float


def largest(kind: DType) -> float:
    """Return the largest number of a type of activations; of int8 127: -128 is not used."""
    return float(ml_dtypes.finfo(kind.numpy).max) if kind.is_float else float(np.iinfo(kind.numpy).max)


FORMATS = {
    "int8": Codes("int8", INT8, 127.0, -127.0),
    "int4": Codes("int4", UINT8, TOP, LOWEST),
    **{kind.name: Codes(kind.name, kind, largest(kind), -largest(kind)) for kind in NARROW_FLOATS},
}


def block_scales(weights: Array, block: int, form: Codes) -> Array:
    """Return fp32 scales [blocks,n] of weights[k,n]: the largest magnitude becomes the top code.

    Of 4 bits, where steps are wide, it becomes the lowest code or one near it or beyond, so that the squared
    error is least; scales may be negative. Raises `UserError` for weights that are not finite.
    """
    if form.stored == UINT8:
        (scales,) = _fitted(weights, block, _symmetric)
        return scales
    _refuse_infinite(weights)
    tops = np.maximum.reduceat(np.abs(weights.astype(np.float32)), _starts(len(weights), block), axis=0)
    return np.maximum(tops, np.float32(LEAST)) / np.float32(form.largest)


def encode(weights: Array, scales: Array, block: int, form: Codes) -> Array:
    """Return the nearest codes of weights [k, n] under scales [blocks, n]: floats, whole where codes are."""
    levels = weights.astype(np.float32) / scales[np.arange(len(weights)) // block]
    if form.stored.is_float:
        return np.clip(levels, form.lowest, form.largest).astype(form.stored.numpy)
    return np.clip(np.round(levels), form.lowest, form.largest).astype(np.int8)


def block_ranges(weights: Array, block: int) -> tuple[Array, Array]:
    """Return the fp32 scales and the zero points, -8 to 7, each [blocks,n], of weights[k,n].

    Codes of 4 bits span its range, or that share of it which makes the squared error least. Raises
    `UserError` for weights that are not finite.
    """
    scales, zeros = _fitted(weights, block, _ranged)
    return scales, zeros.astype(np.int8)


def encode_range(weights: Array, scales: Array, zeros: Array, block: int) -> Array:
    """Return the nearest codes [k,n] of weights[k,n], -8 to 7, under scales and zero points [blocks,n]."""
    at = np.arange(len(weights)) // block
    levels = weights.astype(np.float32) / scales[at] + zeros[at]
    return np.clip(np.round(levels), -8, 7).astype(np.int8)


def _starts(rows: int, block: int) -> Array:
    return np.arange(0, rows, block)


def _refuse_infinite(weights: Array) -> None:
    if not np.isfinite(weights.astype(np.float32)).all():
        raise UserError("weights to be quantised hold NaN or infinity (right: finite numbers)")


def _fitted(weights: Array, block: int, fit: Callable[[Array], tuple[Array, ...]]) -> tuple[Array, ...]:
    """Return what `fit` gives for weights [k, n] as blocks [blocks, block, n], some at a time."""
    _refuse_infinite(weights)
    k, n = weights.shape
    rows, chunks = block * max(1, CHUNK // (block * n)), []
    for start in range(0, k, rows):
        part = weights[start : start + rows].astype(np.float32)
        whole = np.pad(part, ((0, -len(part) % block), (0, 0)))
        chunks.append(fit(whole.reshape(-1, block, n)))
    return tuple(np.concatenate(parts) for parts in zip(*chunks, strict=True))


def _symmetric(blocks: Array) -> tuple[Array, ...]:
    """Return the scales [blocks,n] of blocks[blocks,block,n] of the least error; the first of equals."""
    at = np.abs(blocks).argmax(axis=1)[:, None]
    top = np.take_along_axis(blocks, at, axis=1)[:, 0]
    top = np.where(np.abs(top) < LEAST, np.float32(LEAST), top)
    return (_nearest(blocks, ((top / np.float32(end), np.zeros_like(top)) for end in ENDS))[0],)


def _ranged(blocks: Array) -> tuple[Array, ...]:
    """Return the scales and zero points [blocks,n] of blocks[blocks,block,n] that give the least error.

    Of equals the first."""
    low, high = np.minimum(blocks.min(axis=1), 0), np.maximum(blocks.max(axis=1), 0)

    def candidates() -> Iterable[tuple[Array, Array]]:
        for share in map(np.float32, SHRUNK):
            scales = np.maximum((high - low) * share, np.float32(LEAST)) / np.float32(TOP - LOWEST)
            yield scales, np.clip(np.round(LOWEST - low * share / scales), LOWEST, TOP)

    return _nearest(blocks, candidates())


def _nearest(blocks: Array, candidates: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the scales and zero points [blocks,n], of those given, that err least in square."""
    least, fit = np.full(0, np.inf), (np.empty(0), np.empty(0))
    for scales, zeros in candidates:
        steps, points = scales[:, None], zeros[:, None]
        codes = np.clip(np.round(blocks / steps + points), LOWEST, TOP)
        error = (((codes - points) * steps - blocks) ** 2).sum(axis=1)
        if not least.size:
            least, fit = error, (scales, zeros)
            continue
        better = error < least
        least = np.where(better, error, least)
        fit = np.where(better, scales, fit[0]), np.where(better, zeros, fit[1])
    return fit
