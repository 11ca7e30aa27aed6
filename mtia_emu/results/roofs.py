"""The peaks of a machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Roofs:
    """The peaks of a machine for arithmetic in `dtype`: what no layer can exceed."""

    dtype: str
    matrix_ops_per_s: float
    simd_ops_per_s: float
    dram_bytes_per_s: float
    sram_bytes_per_s: float
