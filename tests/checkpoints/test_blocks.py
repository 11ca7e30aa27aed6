"""Packed blocks come to the values that the library `gguf` unpacks of them, bit for bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from packed import STORED

from mtia_emu.checkpoints.blocks import BLOCKS, READ, mxfp4, unpacked


@pytest.mark.parametrize("kind", READ)
def test_blocks_are_unpacked_as_gguf_does(kind: str) -> None:
    raw, right = STORED[f"blocks/{kind}"], STORED[f"values/{kind}"]
    assert raw.shape[1] == BLOCKS[kind][1] and right.shape[1] == BLOCKS[kind][0]
    found = unpacked(raw.reshape(-1), kind)
    assert found is not None
    np.testing.assert_array_equal(found.reshape(right.shape), right)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_plain_floats_stay_as_they_are(dtype: type) -> None:
    name = {np.float32: "F32", np.float16: "F16"}.get(dtype, "BF16")
    value = np.array([1.5, -2, 0.25], dtype)
    found = unpacked(value.view(np.uint8), name)
    assert found is not None and found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)
    assert unpacked(np.zeros(256, np.uint8), "IQ1_S") is None


def test_mxfp4_is_as_its_specification_has_it() -> None:
    """An exponent of 127 is 1; codes are sign, two bits of exponent of bias 1, one of mantissa."""
    codes = np.arange(16, dtype=np.uint8)[None, None]
    for exponent, scale in ((127, 1.0), (128, 2.0), (120, 2.0**-7)):
        found = mxfp4(codes, np.array([[exponent]], np.uint8))[0, 0]
        for code, value in zip(range(16), found, strict=True):
            sign, power, half = (-1) ** (code >> 3), code >> 1 & 3, code & 1
            right = (1 + half / 2) * 2.0 ** (power - 1) if power else half / 2
            assert value == sign * right * scale
