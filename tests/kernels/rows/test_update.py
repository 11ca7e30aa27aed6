"""Rows changed by sums of their gradients: on any grid the same bits, those of one gradient after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import chips, packed, run, values
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.kernels import KERNELS
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.rows.tape import parse
from mtia_emu.kernels.rows.update import RowTables, tile_rows

from mtia_emu.engine.timing import timeline
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Opcode, Operand
from mtia_emu.types import FP16, FP32, INT32

Array = np.ndarray[Any, Any]
MOVE = (
    "4 -> t0, t4 | t0 = mul(x1, 0.5); t1 = mul(x0, x3); t2 = fold_sum(t1); t3 = mul(t2, x2); t4 = sub(t3, x2)"
)
CHANGED = "3 -> t1 | t0 = mul(x0, x2); t1 = sub(x1, t0)"


def words(indices: int, runs: int) -> list[Operand]:
    return [packed(INT32, (1, n), "sram", written=True) for n in (indices, runs + 1, runs)]


def summed(index: Array, gradients: Array, rows: int) -> dict[int, Array]:
    """Return the sum of each row's gradients, one after another."""
    out: dict[int, Array] = {}
    for row, g in zip((index % rows).tolist(), gradients.astype(np.float32), strict=True):
        out[row] = out[row] + g if row in out else np.zeros_like(g) + g
    return out


@given(chips(), st.integers(1, 9), st.integers(1, 40), st.booleans(), st.sampled_from([FP16, FP32]))
def test_rows_change_by_their_gradients_sum(
    chip: Chip, rows: int, count: int, placed: bool, kind: Any
) -> None:
    rng, cols = np.random.default_rng(rows * count), 5
    index = rng.integers(-rows, rows, (1, count))
    gradients = values(kind, (3 if placed else count, cols), count)
    at = rng.integers(-3, 3, (1, count)) if placed else np.arange(count)[None]
    rate = np.full((1, 1), 0.25, np.float32)
    given_ = [(INT32, index), (kind, gradients), *([(INT32, at)] if placed else []), (FP32, rate)]
    inputs = [packed(k, x.shape) for k, x in given_]
    table = packed(FP32, (rows, cols), "sram", written=True)
    block = KERNELS["update"].emit(
        chip, {"tape": CHANGED, "placed": placed}, inputs, [table, *words(count, min(count, rows))]
    )
    found, *_ = run(block, chip, [x.astype(k.numpy) for k, x in given_]).outputs
    expected = np.ones((rows, cols), np.float32)  # what an output holds before
    for row, total in summed(index[0], gradients[at[0]], rows).items():
        expected[row] -= total * np.float32(0.25)
    np.testing.assert_array_equal(found, expected)


@given(chips(), st.integers(1, 30))
def test_states_of_one_element_a_row_meet_whole_rows(chip: Chip, count: int) -> None:
    rows, cols = 7, 4
    index = np.random.default_rng(count).integers(0, rows, (1, count)).astype(np.int32)
    gradients = values(FP32, (count, cols), count)
    inputs = [packed(INT32, (1, count)), packed(FP32, (count, cols)), packed(FP32, (1, 1))]
    tables = [packed(FP32, (rows, n), "sram", written=True) for n in (cols, 1)]
    block = KERNELS["update"].emit(
        chip, {"tape": MOVE, "placed": False}, inputs, [*tables, *words(count, min(count, rows))]
    )
    wide, narrow, *_ = run(block, chip, [index, gradients, np.full((1, 1), 2, np.float32)]).outputs
    totals = summed(index[0], gradients, rows)
    for row in range(rows):
        assert (wide[row] == (0.5 if row in totals else 1)).all()
        if row in totals:
            total = np.add.reduce(totals[row] * np.float32(2))
            assert narrow[row, 0] == pytest.approx(total - 1, rel=1e-6, abs=1e-6)


@given(chips(), st.integers(1, 3), st.integers(12, 60))
def test_sums_in_part_are_of_as_many_indices_at_most(chip: Chip, rows: int, count: int) -> None:
    index = np.random.default_rng(count).integers(-rows, rows, (1, count)).astype(np.int32)
    gradients, most = values(FP32, (count, 3), count), 4
    runs = min(count, rows + count // most)
    inputs = [packed(INT32, (1, count)), packed(FP32, (count, 3))]
    sums = packed(FP32, (runs, 3), "sram", written=True)
    block = KERNELS["partial_sums"].emit(
        chip, {"rows": rows, "most": most}, inputs, [sums, *words(count, runs)]
    )
    found, _, starts, named = run(block, chip, [index, gradients]).outputs
    assert np.diff(starts[0]).max() <= most and starts[0, -1] == count
    expected = []
    for row in sorted(set((index[0] % rows).tolist())):
        mine = gradients[index[0] % rows == row]
        for low in range(0, len(mine), most):
            total = np.zeros(3, np.float32)
            for g in mine[low : low + most]:
                total += g
            expected.append((row, total))
    assert named[0, : len(expected)].tolist() == [row for row, _ in expected]
    assert (named[0, len(expected) :] == -1).all()
    np.testing.assert_array_equal(found[: len(expected)], [total for _, total in expected])


def test_an_index_below_0_names_nothing_where_that_is_said() -> None:
    chip, index = load_chip("tiny"), np.array([[2, -1, 0, 2, -1]], np.int32)
    inputs = [packed(INT32, (1, 5)), packed(FP32, (5, 2)), packed(FP32, (1, 1))]
    table = packed(FP32, (3, 2), "sram", written=True)
    attrs = {"tape": CHANGED, "placed": False, "below": True}
    block = KERNELS["update"].emit(chip, attrs, inputs, [table, *words(5, 3)])
    arrays = [index, np.ones((5, 2), np.float32), np.ones((1, 1), np.float32)]
    found, *_ = run(block, chip, arrays).outputs
    assert found.tolist() == [[0, 0], [1, 1], [-1, -1]]


@pytest.mark.parametrize("wrong", [7, -4])
def test_indices_outside_the_table_are_refused(wrong: int) -> None:
    chip = load_chip("tiny")
    inputs = [packed(INT32, (1, 2)), packed(FP32, (2, 2)), packed(FP32, (1, 1))]
    table = packed(FP32, (3, 2), "sram", written=True)
    block = KERNELS["update"].emit(chip, {"tape": CHANGED, "placed": False}, inputs, [table, *words(2, 2)])
    arrays = [np.array([[0, wrong]], np.int32), np.ones((2, 2), np.float32), np.ones((1, 1), np.float32)]
    with pytest.raises(UserError, match=f"index {wrong}"):
        run(block, chip, arrays)


def test_a_row_that_does_not_fit_is_refused() -> None:
    chip = load_chip("tiny")
    inputs = [packed(INT32, (1, 2)), packed(FP32, (2, 1 << 16)), packed(FP32, (1, 1))]
    out = [packed(FP32, (3, 1 << 16), written=True), *words(2, 2)]
    with pytest.raises(NoRoom, match="65536 elements does not fit"):
        KERNELS["update"].emit(chip, {"tape": CHANGED, "placed": False}, inputs, out)
    work = RowTables(parse(CHANGED), inputs[1], (out[0],))
    assert work.most_rows(chip) == 0 and work.read == (0,)


@given(chips(), st.integers(1, 5000), st.integers(1, 50))
def test_tiles_are_of_equal_size(chip: Chip, groups: int, most: int) -> None:
    rows = tile_rows(groups, most, chip)
    share = -(-groups // chip.pes)
    tiles = -(-share // rows)
    assert 1 <= rows <= most and (tiles - 1) * rows < share and -(-share // tiles) == rows


def test_adding_takes_time() -> None:
    """A PE adds up 64 rows of 64 elements: 256 B each pass the lanes a byte a cycle."""
    chip = load_chip("tiny", {"grid.rows": 1, "grid.cols": 1, "pe.simd.bytes_per_cycle": 1})
    inputs = [packed(INT32, (1, 64), "sram"), packed(FP32, (64, 64), "sram")]
    sums = packed(FP32, (2, 64), "sram", written=True)
    block = KERNELS["partial_sums"].emit(chip, {"rows": 1, "most": 64}, inputs, [sums, *words(64, 2)])
    assert timeline(block, chip).cycles > 64 * 256


def test_only_tables_whose_old_rows_the_tape_reads_are_fetched() -> None:
    chip, index = load_chip("tiny"), np.array([[2, 0]], np.int32)
    inputs = [packed(INT32, (1, 2)), packed(FP32, (2, 2))]
    tables = [packed(FP32, (3, 2), "sram", written=True) for _ in range(2)]
    tape = "3 -> t0, t1 | t0 = neg(x0); t1 = add(x2, x0)"
    block = KERNELS["update"].emit(chip, {"tape": tape, "placed": False}, inputs, [*tables, *words(2, 2)])
    fetched = block.commands["operand"][block.commands["op"] == Opcode.FETCH]
    assert set(fetched.tolist()) == {3}
    first, second, *_ = run(block, chip, [index, np.full((2, 2), 5, np.float32)]).outputs
    assert first.tolist() == [[-5, -5], [1, 1], [-5, -5]] and second.tolist() == [[6, 6], [1, 1], [6, 6]]


@pytest.mark.parametrize("width", [16, 48, 256])
def test_tiles_that_are_as_large_as_fits_do_fit(width: int) -> None:
    chip, count = load_chip("tiny", {"pe.local.bytes": 16384}), 4000
    kinds = [(INT32, (1, count)), (FP32, (count, width)), (FP32, (1, 1))]
    table = packed(FP32, (10 * count, width), written=True)
    inputs = [packed(kind, shape) for kind, shape in kinds]
    block = KERNELS["update"].emit(
        chip, {"tape": CHANGED, "placed": False}, inputs, [table, *words(count, count)]
    )
    assert chip.pe.local.bytes / 2 < block.local_bytes <= chip.pe.local.bytes
