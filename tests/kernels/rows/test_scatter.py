"""Rows changed where indices say: on any grid as one update after another changes them, bit for bit."""

from __future__ import annotations

import numpy as np
from harness import chips, packed, run
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.kernels import KERNELS

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.units.simd import SCATTERS
from mtia_emu.types import FP16, FP32, INT32, INT64


@given(chips(), st.data())
def test_updates_come_one_after_another(chip: Chip, data: st.DataObject) -> None:
    kind, reduction = (
        data.draw(st.sampled_from([FP32, FP16, INT32])),
        data.draw(st.sampled_from(list(SCATTERS))),
    )
    rows, cols, count = (data.draw(st.integers(1, n)) for n in (9, 6, 40))
    rng = np.random.default_rng(count)
    new = rng.integers(-9, 9, (count, cols)).astype(kind.numpy)
    index = rng.integers(-rows, rows, (1, count))
    operands = [packed(INT64, (1, count)), packed(kind, (count, cols))]
    block = KERNELS["scatter"].emit(
        chip, {"reduction": reduction}, operands, [packed(kind, (rows, cols), "sram", written=True)]
    )
    assert sorted(block.commands["rows"].tolist())[-1] * chip.pes >= count == block.commands["rows"].sum()
    (found,) = run(block, chip, [index, new]).outputs
    wide = np.ones((rows, cols), np.float32 if kind == FP16 else kind.numpy)  # what an output holds before
    for at, row in zip(index[0], new, strict=True):
        wide[at] = row if reduction == "none" else SCATTERS[reduction](wide[at], row)
    np.testing.assert_array_equal(found, wide.astype(kind.numpy))


@given(chips(), st.data())
def test_equal_indices_name_the_first_of_them(chip: Chip, data: st.DataObject) -> None:
    rows, count = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 40))
    kind = data.draw(st.sampled_from([INT32, INT64]))
    index = np.random.default_rng(count).integers(-rows, rows, (1, count)).astype(kind.numpy)
    out = [packed(INT64, (count, 1), "sram", written=True)]
    block = KERNELS["group"].emit(chip, {"rows": rows}, [packed(kind, (1, count))], out)
    (found,) = run(block, chip, [index]).outputs
    named = (index[0] % rows).tolist()
    assert found[:, 0].tolist() == [named.index(row) for row in named]
