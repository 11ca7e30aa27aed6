"""How matrices of few bits lie: planes, blocks, and what a remainder takes."""

from __future__ import annotations

import pytest
from mtia_emu.kernels.matmul.packing import Packing, packing_of

from mtia_emu.types import INT8, UINT8


@pytest.mark.parametrize(
    ("form", "plane_rows", "blocks", "plane_blocks"),
    [
        (Packing(64, 16, 2), 32, 4, 2),  # two blocks in each half of a byte
        (Packing(80, 32, 2), 64, 3, 2),  # blocks are not cut: the second plane has one, of 16 rows
        (Packing(100, 32, 1), 100, 4, 4),  # the only plane ends where the matrix does
        (Packing(8, 8, 2), 8, 1, 1),  # one block: all rows in the low halves
    ],
)
def test_rows_of_a_plane_are_whole_blocks(
    form: Packing, plane_rows: int, blocks: int, plane_blocks: int
) -> None:
    assert (form.plane_rows, form.blocks, form.plane_blocks) == (plane_rows, blocks, plane_blocks)


def test_bytes_hold_two_codes_and_blocks_no_more_than_the_matrix() -> None:
    assert packing_of(64, 128, UINT8) == Packing(64, 64, 2)
    assert packing_of(64, 16, INT8) == Packing(64, 16, 1)
