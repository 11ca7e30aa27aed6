"""Mappings as text: what programs print is read back, and what is wrong is named."""

from __future__ import annotations

import pytest
from mtia_emu.kernels.matmul.kernel import mapping_of
from mtia_emu.kernels.matmul.plan import MatmulMapping
from mtia_emu.kernels.spelling import numbers, words_of

from mtia_emu.errors import UserError

FORM = {"rows": 0, "tile": 3, "staged": -1}


def test_words_are_found_by_name_and_numbers_by_their_signs() -> None:
    words = words_of("tile=8x16x32 staged rows=n2k4", FORM, "rows")
    assert words == {"tile": "8x16x32", "staged": "", "rows": "n2k4"}
    assert numbers(words, "tile", "") == [8, 16, 32] and numbers(words, "hold", "0x1") == [0, 1]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("tiles=8x8x8", "'tiles=8x8x8' is none of its words; did you mean 'tile'"),
        ("tile=8x8", r"'tile=8x8' is not right \(right: tile=8x8x8, say\)"),
        ("tile=0x8x8", "'tile=0x8x8' is not right"),
        ("tile=9999999x1x1", "is not right"),
        ("rows=", r"right: rows=m, say"),
        ("staged=1", r"right: staged, say"),
        ("rows=m rows=n", "rows is given twice"),
        ("staged", "it does not say rows"),
    ],
)
def test_what_is_no_mapping_is_refused_with_what_would_be_right(text: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        words_of(text, FORM, "rows")


def test_a_mapping_of_a_product_is_read_back_from_what_it_prints() -> None:
    plain = MatmulMapping("m", "n2k4", 64, 32, 16, "n")
    for mapping in (plain, MatmulMapping("k", "b2m4", 8, 16, 512, "m", True, 3, 2, 9, 4)):
        assert mapping_of(str(mapping)) == mapping
    with pytest.raises(UserError, match="outer=k is not right"):
        mapping_of("rows=m cols=n tile=8x8x8 outer=k")
