"""Codes and scales: what they stand for is as near to the weights as the format allows."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.compiler import codes
from mtia_emu.compiler.codes import FORMATS, SHRUNK, block_ranges, block_scales, encode, encode_range, largest

from mtia_emu.errors import UserError
from mtia_emu.types import FP8_E4M3, INT8


def random(seed: int, k: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((k, n)).astype(np.float32)


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 5), st.integers(1, 40))
def test_whole_codes_are_within_half_a_step(seed: int, k: int, n: int, block: int) -> None:
    weights = random(seed, k, n)
    scales = block_scales(weights, block, FORMATS["int8"])
    steps = scales[np.arange(k) // block]
    found = encode(weights, scales, block, FORMATS["int8"]) * steps
    assert (np.abs(found - weights) <= steps * 0.5001).all()


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 5), st.integers(1, 40))
def test_codes_of_four_bits_err_less_than_steps_that_hold_every_weight(
    seed: int, k: int, n: int, block: int
) -> None:
    weights, form = random(seed, k, n), FORMATS["int4"]
    at = np.arange(k) // block
    plain = np.stack([np.abs(weights[at == b]).max(axis=0) / 7 for b in range(at[-1] + 1)])
    errors = []
    for scales in (block_scales(weights, block, form), plain):
        codes = encode(weights, scales, block, form)
        assert codes.min() >= -8 and codes.max() <= 7
        errors.append(((codes * scales[at] - weights) ** 2).sum())
    assert errors[0] <= errors[1] * 1.001


def test_chunks_do_not_change_what_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random(1, 50, 3)
    whole = block_scales(weights, 8, FORMATS["int4"]), *block_ranges(weights, 8)
    monkeypatch.setattr(codes, "CHUNK", 30)
    parts = block_scales(weights, 8, FORMATS["int4"]), *block_ranges(weights, 8)
    assert all((a == b).all() for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_are_not_finite_are_refused(name: str) -> None:
    weights = np.full((4, 2), np.nan, np.float32)
    with pytest.raises(UserError, match="hold NaN or infinity"):
        block_scales(weights, 2, FORMATS[name])


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 5), st.integers(1, 40))
def test_ranges_hold_zero_and_nearly_every_weight(seed: int, k: int, n: int, block: int) -> None:
    weights = random(seed, k, n) + 1
    scales, zeros = block_ranges(weights, block)
    at = np.arange(k) // block
    codes = encode_range(weights, scales, zeros, block)
    assert codes.min() >= -8 and codes.max() <= 7
    spans = np.stack([np.ptp(np.append(weights[at == b], np.zeros((1, n)), 0), 0) for b in range(at[-1] + 1)])
    assert (scales >= spans / 15 * min(SHRUNK) * 0.999).all() and (scales <= spans / 15 * 1.001).all()
    assert (np.abs((codes - zeros[at]) * scales[at] - weights) <= spans[at] * 0.3).all()


@pytest.mark.parametrize(("name", "relative"), [("fp8_e4m3", 2**-4), ("fp8_e5m2", 2**-3)])
def test_floats_of_eight_bits_are_within_half_a_step_of_the_mantissa(name: str, relative: float) -> None:
    weights = random(0, 64, 8)
    scales = block_scales(weights, 64, FORMATS[name])
    found = encode(weights, scales, 64, FORMATS[name]).astype(np.float32) * scales
    step = float(ml_dtypes.finfo(FORMATS[name].stored.numpy).smallest_subnormal)
    near_zero = scales * step / 2 * 1.001  # subnormal codes have a fixed step
    assert (np.abs(found - weights) <= np.maximum(np.abs(weights) * relative * 1.001, near_zero)).all()


def test_zeros_have_a_scale() -> None:
    weights = np.zeros((4, 2), np.float32)
    assert (encode(weights, block_scales(weights, 2, FORMATS["int8"]), 2, FORMATS["int8"]) == 0).all()
    assert (largest(INT8), largest(FP8_E4M3)) == (127.0, 448.0)
