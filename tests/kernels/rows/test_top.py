"""The first elements of rows: values and places on random chips, whatever their order and ties."""

from __future__ import annotations

import numpy as np
from harness import checking, chips, packed, run
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.kernels.rows.top import TopKernel

from mtia_emu.machine.chip import Chip
from mtia_emu.types import FP16, FP32, INT32, INT64


@given(chips(), st.data())
def test_rows_give_their_first_elements(chip: Chip, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([FP32, FP16, INT32]))
    rows, cols = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 30))
    k, largest, low = data.draw(st.integers(1, cols)), data.draw(st.booleans()), data.draw(st.booleans())
    x = np.random.default_rng(rows * cols).integers(-3, 4, (rows, cols)).astype(kind.numpy)
    if kind.is_float and cols > 2:
        x[:, 1] = np.nan
    outputs = [packed(kind, (rows, k), written=True), packed(INT64, (rows, k), "sram", written=True)]
    assert TopKernel.fits(chip, cols, k, kind.bytes)
    block = TopKernel().emit(
        chip, {"largest": largest, "nan_least": low}, [packed(kind, (rows, cols))], outputs
    )
    with checking():
        values, places = run(block, chip, [x]).outputs
    for row, found, at in zip(x, values, places, strict=True):
        sign, nan_last = (-1 if largest else 1), low == largest
        rank = [
            (np.isnan(v) == nan_last, 0.0 if np.isnan(v) else sign * float(v), i) for i, v in enumerate(row)
        ]
        assert at.tolist() == [i for _, _, i in sorted(rank)[:k]]
        np.testing.assert_array_equal(found, row[at])
