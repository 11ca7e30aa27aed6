"""Data types and tensor types."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import ml_dtypes
import numpy as np

from ..errors import UserError, refuse_unknown


@dataclass(frozen=True)
class DType:
    """An element type: its name in our texts, its NumPy type, and its width in bits."""

    name: str
    numpy: np.dtype
    bits: int

    @property
    def bytes(self) -> int:
        """Return the bytes one element takes in memory."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        """Return whether values are floating point."""
        return self.name.startswith(("fp", "bf"))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


DIGITS = 18  # of a dimension: fewer than 2^62

DTYPES: dict[str, DType] = {}
_BY_NUMPY: dict[np.dtype, DType] = {}


def declare_dtype(name: str, numpy: object, bits: int) -> DType:
    """Return a new dtype, which `dtype` then finds by its name and `dtype_of` by its NumPy type."""
    kind = DType(name, np.dtype(numpy), bits)  # type: ignore[call-overload]
    DTYPES[name] = _BY_NUMPY[kind.numpy] = kind
    return kind


FP64 = declare_dtype("fp64", np.float64, 64)
FP32 = declare_dtype("fp32", np.float32, 32)
FP16 = declare_dtype("fp16", np.float16, 16)
BF16 = declare_dtype("bf16", ml_dtypes.bfloat16, 16)
FP8_E4M3 = declare_dtype("fp8_e4m3", ml_dtypes.float8_e4m3fn, 8)
FP8_E5M2 = declare_dtype("fp8_e5m2", ml_dtypes.float8_e5m2, 8)
NARROW_FLOATS = (FP8_E4M3, FP8_E5M2)
"""Floats of 8 bits that products are computed in: weights and activations are quantised to them."""
INT64 = declare_dtype("int64", np.int64, 64)
INT32 = declare_dtype("int32", np.int32, 32)
INT16 = declare_dtype("int16", np.int16, 16)
INT8 = declare_dtype("int8", np.int8, 8)
UINT64 = declare_dtype("uint64", np.uint64, 64)
UINT32 = declare_dtype("uint32", np.uint32, 32)
UINT16 = declare_dtype("uint16", np.uint16, 16)
UINT8 = declare_dtype("uint8", np.uint8, 8)
BOOL = declare_dtype("bool", np.bool_, 8)
# Formats that a model may store and convert; in memory each element takes a byte.
FP8_E4M3FNUZ = declare_dtype("fp8_e4m3fnuz", ml_dtypes.float8_e4m3fnuz, 8)
FP8_E5M2FNUZ = declare_dtype("fp8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz, 8)
FP8_E8M0 = declare_dtype("fp8_e8m0", ml_dtypes.float8_e8m0fnu, 8)
FP4_E2M1 = declare_dtype("fp4_e2m1", ml_dtypes.float4_e2m1fn, 4)
INT4 = declare_dtype("int4", ml_dtypes.int4, 4)
UINT4 = declare_dtype("uint4", ml_dtypes.uint4, 4)
INT2 = declare_dtype("int2", ml_dtypes.int2, 2)
UINT2 = declare_dtype("uint2", ml_dtypes.uint2, 2)
STORED = (FP8_E4M3FNUZ, FP8_E5M2FNUZ, FP8_E8M0, FP4_E2M1, INT4, UINT4, INT2, UINT2)


def dtype(name: str) -> DType:
    """Return the dtype of that name; raise `UserError` naming the nearest one."""
    if name not in DTYPES:
        raise refuse_unknown("dtype", name, DTYPES)
    return DTYPES[name]


def dtype_of(array: np.ndarray) -> DType:
    """Return the dtype of a NumPy array of any shape; raise `UserError` for a type that we do not have."""
    if array.dtype not in _BY_NUMPY:
        raise UserError(f"arrays of {array.dtype} are not supported (known: {', '.join(DTYPES)})")
    return _BY_NUMPY[array.dtype]


@dataclass(frozen=True)
class TensorType:
    """The type of a tensor: element type and static shape. Printed as `fp16[8,64]`."""

    dtype: DType
    shape: tuple[int, ...]

    @cached_property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Return the bytes of the tensor, packed."""
        return self.size * self.dtype.bytes

    @property
    def rank(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def parse_type(text: str) -> TensorType:
    """Return the type that `str` printed; raise `UserError` for other text."""
    name, bracket, rest = text.strip().partition("[")
    if not bracket or not rest.endswith("]"):
        raise UserError(f"not a tensor type: {text[:80]!r} (right: fp16[8,64])")
    dims = rest[:-1].split(",") if rest != "]" else []
    if not all(_is_size(d.strip()) for d in dims):
        raise UserError(f"not a tensor type: {text[:80]!r} (dimensions are integers, as in fp16[8,64])")
    return TensorType(dtype(name), tuple(int(d) for d in dims))


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= DIGITS
