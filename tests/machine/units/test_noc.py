"""The network on chip: over how many links loads go, and what a link takes; worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mtia_emu.machine.units.noc import Cast, Grid, Noc

GRID = Grid(rows=3, cols=4)  # PE 7 is in row 1, column 3
BANDS = np.array([[0, 1], [1, 3], [1, 3]])  # row 0, and rows 1 and 2


@pytest.mark.parametrize(
    ("pe", "cast", "whole", "banded"),
    [
        (0, Cast.NONE, 1, 1),
        (7, Cast.NONE, 4, 4),  # column 3 is the fourth from the west edge
        (7, Cast.ROW, 4, 4),
        (7, Cast.COL, 3, 3),  # the last row of the band is the third from the north edge
        (2, Cast.COL, 3, 1),
        (7, Cast.ALL, 7, 6),  # 3 rows, or the band's 2, and 4 columns
        (2, Cast.ALL, 7, 5),
    ],
)
def test_links_to_the_furthest_pe(pe: int, cast: Cast, whole: int, banded: int) -> None:
    assert GRID.hops(pe, cast) == whole
    assert GRID.hops(np.array([pe]), np.array([cast]), BANDS).tolist() == [banded]


def test_a_link_of_a_row_and_one_of_a_column() -> None:
    noc = Noc(row_bytes_per_cycle=32, col_bytes_per_cycle=8, hop_cycles=3, broadcast=True)
    taken, late = noc.cost(np.array([64.0, 64.0]), np.array([False, True]), np.array([2, 4]))
    assert taken.tolist() == [2, 8] and late.tolist() == [6, 12]


def test_work_is_handed_out_down_the_columns_nearest_memory_first() -> None:
    grid = Grid(rows=3, cols=2)
    assert grid.near(np.arange(8)).tolist() == [0, 2, 4, 1, 3, 5, 0, 2]
