"""The element types of ONNX, by number."""

from __future__ import annotations

from mtia_emu.types import (
    BF16,
    BOOL,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FP32,
    FP64,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    DType,
)

DTYPE_OF_ONNX: dict[int, DType] = {
    1: FP32,
    2: UINT8,
    3: INT8,
    4: UINT16,
    5: INT16,
    6: INT32,
    7: INT64,
    9: BOOL,
    10: FP16,
    11: FP64,
    12: UINT32,
    13: UINT64,
    16: BF16,
    17: FP8_E4M3,
    19: FP8_E5M2,
}
