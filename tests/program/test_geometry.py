"""Which PEs a command writes, which links it takes, and how tiles lie in memory; grids counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtia_emu.machine.chip import load_chip
from mtia_emu.machine.units.noc import Cast
from mtia_emu.program.geometry import (
    distinct,
    in_line,
    links,
    links_in,
    links_out,
    reached,
    receivers,
    runs_of,
)
from mtia_emu.program.isa import COMMAND, Operand
from mtia_emu.types import FP16

CHIP = load_chip("tiny", {"grid.rows": 3, "grid.cols": 4})
ONE_BAND, TWO_BANDS = np.array([[0, 3]] * 3), np.array([[0, 1], [1, 3], [1, 3]])


@pytest.mark.parametrize(
    ("cast", "pes"),
    [
        (Cast.NONE, [6]),
        (Cast.ROW, [4, 5, 6, 7]),
        (Cast.COL, [6, 10]),
        (Cast.ALL, [4, 5, 6, 7, 8, 9, 10, 11]),
    ],
)
def test_a_load_feeds_pes_of_its_own_band(cast: Cast, pes: list[int]) -> None:
    assert list(range(*receivers.function(cast, 6, 1, 3, 4))) == pes


@pytest.mark.parametrize(("bands", "counts"), [(ONE_BAND, [1, 4, 3, 12]), (TWO_BANDS, [1, 4, 2, 8])])
def test_the_pes_that_a_load_feeds_are_counted(bands: np.ndarray[Any, Any], counts: list[int]) -> None:
    c = np.zeros(4, COMMAND)
    c["pe"], c["cast"] = 6, [Cast.NONE, Cast.ROW, Cast.COL, Cast.ALL]
    assert reached(c, bands, CHIP).tolist() == counts


def test_links_are_numbered_in_by_row_by_column_and_out_by_row() -> None:
    pe, cast = np.array([6, 6, 6]), np.array([Cast.NONE, Cast.COL, Cast.ROW])
    assert links_in(pe, cast, CHIP).tolist() == [1, 3 + 2, 1]
    assert links_out(np.array([0, 6, 11]), CHIP).tolist() == [7, 8, 9]
    assert links(CHIP) == 10


def lie(operand: Operand, rows: int, cols: int) -> tuple[float, float, bool]:
    """Return the bytes of a run, the runs and whether they are turned, of one tile."""
    length, count, turned = runs_of(operand, np.array([float(rows)]), np.array([float(cols)]))
    return float(length[0]), float(count[0]), turned


def test_a_tile_of_whole_rows_is_one_run() -> None:
    packed = Operand(FP16, (8, 16), (16, 1), "dram")
    assert lie(packed, 4, 16) == (128, 1, False)
    assert lie(packed, 4, 8) == (16, 4, False)
    assert lie(Operand(FP16, (8, 16), (16, 1), "dram", by_column=True), 4, 8) == (16, 4, True)
    assert lie(Operand(FP16, (8, 16), (1, 8), "dram"), 4, 8) == (8, 8, True)
    assert lie(Operand(FP16, (8, 16), (1, 8), "dram", by_column=True), 4, 8) == (8, 8, False)
    assert lie(Operand(FP16, (8, 16), (1, 8), "dram", by_column=True), 8, 4) == (64, 1, False)
    assert lie(Operand(FP16, (2, 8, 16), (128, 1, 8), "dram", by_column=True), 16, 4) == (64, 2, False)
    assert lie(Operand(FP16, (8, 16), (1, 24), "dram", by_column=True), 8, 4) == (16, 4, False)


def test_a_broadcast_row_is_moved_once() -> None:
    again = Operand(FP16, (4, 3, 16), (16, 0, 1), "dram")  # four rows, each three times
    row, rows = np.array([0, 2, 4]), np.array([12, 2, 1])
    assert distinct(again, row, rows).tolist() == [4, 2, 1]


def test_a_window_is_as_many_runs_as_its_rows_have_in_memory() -> None:
    # 3 x 3 windows of [8, 8, 16] with channels last: 6 x 6 places, three lines of 3 * 16 elements each
    shape, strides = (6, 6, 3, 48), (128, 16, 128, 1)
    windows = Operand(FP16, shape, strides, "sram", across=2)
    assert (windows.rows, windows.cols) == (36, 144)
    assert windows.extent_bytes == 2 * 8 * 8 * 16
    for cols, length, count in ((144, 96, 4 * 3), (48, 96, 4), (24, 48, 4)):
        run, runs, turned = runs_of(windows, np.array([4.0]), np.array([float(cols)]))
        assert (run.item(), runs.item(), turned) == (length, count, False)


def test_what_lies_in_line_ends_where_a_stride_leaps() -> None:
    assert in_line((3, 3, 16), (128, 16, 1)) == 48
    assert in_line((3, 3, 16), (48, 16, 1)) == 144
    assert in_line((3, 1, 16), (128, 7, 1)) == 16
    assert in_line((3, 4), (4, 2)) == 1
