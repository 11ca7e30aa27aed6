"""Numbers of few bits: the codes and scales that stand for weights, and the scales of activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from mtia_emu.types import INT8, UINT8, DType, dtype

Array = np.ndarray[Any, Any]
LEAST = 1e-12  # scale of zeros alone


@dataclass(frozen=True)
class Codes:
    """A format of weights: its name, the type of an element in memory, and the largest code."""

    name: str
    stored: DType
    largest: float


FORMATS = {
    "int4": Codes("int4", UINT8, 7.0),
    "int8": Codes("int8", INT8, 127.0),
    "fp8_e4m3": Codes("fp8_e4m3", dtype("fp8_e4m3"), 448.0),
    "fp8_e5m2": Codes("fp8_e5m2", dtype("fp8_e5m2"), 57344.0),
}


def largest(kind: DType) -> float:
    """Return the largest number of a type of activations; of int8 127: -128 is not used."""
    return float(ml_dtypes.finfo(kind.numpy).max) if kind.is_float else float(np.iinfo(kind.numpy).max)


def block_scales(weights: Array, block: int, form: Codes) -> Array:
    """Return the fp32 scale of each block and column: its largest magnitude becomes the top code."""
    tops = np.maximum.reduceat(np.abs(weights.astype(np.float32)), _starts(len(weights), block), axis=0)
    return np.maximum(tops, np.float32(LEAST)) / np.float32(form.largest)


def encode(weights: Array, scales: Array, block: int, form: Codes) -> Array:
    """Return the nearest codes of weights [k, n] under scales [blocks, n]: floats, whole where codes are."""
    levels = weights.astype(np.float32) / scales[np.arange(len(weights)) // block]
    if form.stored.is_float:
        return np.clip(levels, -form.largest, form.largest).astype(form.stored.numpy)
    return np.clip(np.round(levels), -form.largest, form.largest).astype(np.int8)


def block_ranges(weights: Array, block: int) -> tuple[Array, Array]:
    """Return the fp32 scale and the zero point, -8 to 7, of each block: codes of 4 bits span its range."""
    wide, starts = weights.astype(np.float32), _starts(len(weights), block)
    low = np.minimum(np.minimum.reduceat(wide, starts, axis=0), 0)
    high = np.maximum(np.maximum.reduceat(wide, starts, axis=0), 0)
    scales = np.maximum(high - low, np.float32(LEAST)) / np.float32(15)
    return scales, np.clip(np.round(-8 - low / scales), -8, 7).astype(np.int8)


def encode_range(weights: Array, scales: Array, zeros: Array, block: int) -> Array:
    """Return the nearest codes of weights, from -8 to 7, under scales and zero points of blocks."""
    at = np.arange(len(weights)) // block
    levels = weights.astype(np.float32) / scales[at] + zeros[at]
    return np.clip(np.round(levels), -8, 7).astype(np.int8)


def _starts(rows: int, block: int) -> Array:
    return np.arange(0, rows, block)
