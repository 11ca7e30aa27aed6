"""Gathers: any axis, indices from either end, indices that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from harness import chips, packed, run
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.bags.gather import emit_gather

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.types import FP16, FP32, INT8, INT32, INT64, DType

KINDS = st.sampled_from([FP16, FP32, INT8])
INDEX = st.sampled_from([INT32, INT64])


@settings(max_examples=120)
@given(
    chips(),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 70),
    st.integers(1, 50),
    KINDS,
    INDEX,
    st.integers(0, 9),
)
def test_gather(
    chip: Chip, outer: int, axis: int, inner: int, count: int, kind: DType, index: DType, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 9, (outer, axis, inner)).astype(kind.numpy)
    indices = rng.integers(-axis, axis, (1, count)).astype(index.numpy)
    out = packed(kind, (outer * count, inner), "sram", written=True)
    block = emit_gather(chip, packed(kind, x.shape), packed(index, indices.shape), out)
    (found,) = run(block, chip, [x, indices]).outputs
    np.testing.assert_array_equal(found, x[:, indices[0]].reshape(outer * count, inner))


def test_an_index_outside_the_axis_is_refused_by_position() -> None:
    chip = load_chip("tiny")
    block = emit_gather(
        chip, packed(FP32, (1, 4, 2)), packed(INT64, (1, 3)), packed(FP32, (3, 2), written=True)
    )
    with pytest.raises(UserError, match=r"layer \(gather\): index 4 at position 1 is outside 0 .. 3"):
        run(block, chip, [np.zeros((1, 4, 2), np.float32), np.array([[0, 4, 1]])])
