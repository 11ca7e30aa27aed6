"""Random bits by counter: known answers, laws of their use, and rounding that is right in the mean."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.machine.units.random_bits import philox, philox4x32, round_random

PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)
ANSWERS = [  # Salmon et al.'s Random123, kat_vectors, philox4x32 10
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (*PI, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize(("counter", "key", "right"), ANSWERS)
def test_words_are_those_of_the_reference(counter: tuple, key: tuple, right: tuple[int, ...]) -> None:
    got = philox4x32(tuple(map(np.uint64, counter)), tuple(map(np.uint64, key)))
    assert tuple(int(x) for x in got) == right


def test_four_columns_share_a_counter_and_rows_and_draws_do_not() -> None:
    place = np.arange(4, dtype=np.uint32)
    assert philox(np.uint32(0), place, np.uint32(0)).tolist() == list(ANSWERS[0][2])
    words = philox(
        np.arange(64, dtype=np.uint32)[:, None, None], np.arange(64, dtype=np.uint32), np.uint32([[1], [2]])
    )
    assert words.shape == (64, 2, 64) and len(np.unique(words)) > words.size - 3, (
        "about one pair in 2^32 is alike"
    )


@given(st.integers(0, 2**32 - 1))
def test_a_part_is_drawn_as_it_is_in_the_whole(draw: int) -> None:
    row, column = np.arange(6, dtype=np.uint32)[:, None], np.arange(10, dtype=np.uint32)
    whole = philox(row, column, np.uint32(draw))
    assert np.array_equal(philox(row[2:5], column[3:], np.uint32(draw)), whole[2:5, 3:])


def test_bits_are_even() -> None:
    words = philox(np.arange(256, dtype=np.uint32)[:, None], np.arange(256, dtype=np.uint32), np.uint32(7))
    ones = np.unpackbits(words.view(np.uint8).reshape(-1, 4), axis=1).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / 256, "five standard deviations of 65,536 coins"
    pairs = np.corrcoef(words[:, :-1].ravel() / 2**32, words[:, 1:].ravel() / 2**32)[0, 1]
    assert abs(pairs) < 5 / 256


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**126), max_value=2.0**126))
def test_rounding_at_random_is_right_in_the_mean_to_the_last_bit(value: float) -> None:
    """All 65,536 shares that tell apart: the mean of what they give is the value itself, exactly."""
    shares = (np.arange(1 << 16, dtype=np.float32)) / np.float32(1 << 16)
    got = round_random(np.float32(value), shares)
    assert np.array_equal(got, got.astype(ml_dtypes.bfloat16).astype(np.float32)), "bf16 holds them"
    assert len(np.unique(got)) <= 2
    assert got.astype(np.longdouble).mean() == np.longdouble(np.float32(value))


def test_what_is_not_finite_stays() -> None:
    got = round_random(np.float32([np.inf, -np.inf, np.nan]), np.float32([0.999, 0.999, 0.999]))
    assert got[:2].tolist() == [np.inf, -np.inf] and np.isnan(got[2])
