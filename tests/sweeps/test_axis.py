"""Values of one parameter: lists and ranges."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.sweeps.axis import axis


@pytest.mark.parametrize(
    "given_, values",
    [
        ([16, 32], (16, 32)),
        (5, (5,)),
        ("ws", ("ws",)),
        (["ws", "os"], ("ws", "os")),
        ("16..128 step x2", (16, 32, 64, 128)),
        ("16..100 step x2", (16, 32, 64)),
        ("8..32 step 8", (8, 16, 24, 32)),
        ("0.1..0.3 step 0.1", (0.1, 0.2, 0.3)),
        ("1e9..4e9 step x2", (1e9, 2e9, 4e9)),
        ("-4..4 step 4", (-4, 0, 4)),
        ("7..7", (7,)),
    ],
)
def test_values(given_: Any, values: tuple[Any, ...]) -> None:
    found = axis("k", given_).values
    assert found == values and [type(v) for v in found] == [type(v) for v in values]


@pytest.mark.parametrize(
    "given_, words",
    [
        ([], "has no values"),
        ("8..4 step 2", "is empty: 8 is above 4"),
        ("4..8 step 0", "does not lead from 4 to 8"),
        ("4..8 step x1", "does not lead"),
        ("0..8 step x2", "does not lead"),
        ("4..8 step -1", "does not lead"),
        ("nan..8", "not a number that a chip can have"),
        ("1..inf", "not a number that a chip can have"),
        ("1..two", "'two' in '1..two' is not a number"),
        ([float("nan")], "not a number that a chip can have"),
        ([1, 2, 1], "has a value twice"),
        ([{}], "is not a value"),
        ("0..8 log", "starts above 0"),
        (f"1..{'9' * 400} step 7", "a number of 400 characters .right: at most 40."),
        (f"1..{'9' * 400} log", "a number of 400 characters"),
        ("1..1e9 step 1", "has 1e.09 values, at most"),
    ],
)
def test_what_is_wrong_is_said(given_: Any, words: str) -> None:
    with pytest.raises(UserError, match=f"parameter 'k'.*{words}"):
        axis("k", given_)


@given(st.integers(-50, 50), st.integers(0, 50), st.floats(0, 1, exclude_max=True))
def test_a_whole_range_gives_whole_numbers_in_it(low: int, width: int, share: float) -> None:
    value = axis("k", f"{low}..{low + width}").at(share)
    assert isinstance(value, int) and low <= value <= low + width


@given(st.floats(1e-3, 1e3), st.floats(1.1, 1e3), st.floats(0, 1, exclude_max=True), st.booleans())
def test_a_range_of_fractions_keeps_to_its_ends(low: float, times: float, share: float, log: bool) -> None:
    low, high = float(f"{low:.6g}"), float(f"{low * times:.6g}")
    found = axis("k", f"{low!r}..{high!r}{' log' if log else ''}")
    assert not found.values and low * (1 - 1e-9) <= found.at(share) <= high * (1 + 1e-9)


def test_both_ends_of_a_whole_range_are_reached_and_all_between_are_equal_in_share() -> None:
    found = axis("k", "1..4")
    assert [found.at(i / 8) for i in range(8)] == [1, 1, 2, 2, 3, 3, 4, 4]
