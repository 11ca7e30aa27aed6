"""The cache against a plain one written with dictionaries, and against stack distances."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mtia_emu.errors import UserError
from mtia_emu.machine.units.cache import Cache, CacheShape, lines_of, whole_sets

LINE = 64


def cache(sets: int, ways: int) -> Cache:
    """Return an empty cache."""
    return Cache(CacheShape(bytes=sets * ways * LINE, line_bytes=LINE, ways=ways))


def plain(sets: int, ways: int, lines: list[int], write: list[bool]) -> tuple[list[bool], int]:
    """Return hits and write-backs, end of the run not included, of a cache made of ordered dictionaries."""
    held: list[OrderedDict[int, bool]] = [OrderedDict() for _ in range(sets)]
    hits, write_backs = [], 0
    for line, dirty in zip(lines, write, strict=True):
        mine = held[line % sets]
        hits.append(line in mine)
        if line in mine:
            dirty |= mine.pop(line)
        elif len(mine) == ways:
            write_backs += mine.popitem(last=False)[1]
        mine[line] = dirty
    return hits, write_backs


def stack_distances(lines: list[int]) -> list[float]:
    """Return how many other lines were used since each line was used before; infinite at its first use."""
    out = []
    for n, line in enumerate(lines):
        before = lines[:n]
        last = n - 1 - before[::-1].index(line) if line in before else None
        out.append(float("inf") if last is None else len(set(lines[last + 1 : n])))
    return out


ACCESSES = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=150)


@settings(max_examples=60)
@given(accesses=ACCESSES, sets=st.integers(1, 6), ways=st.integers(1, 5), cut=st.integers(0, 150))
def test_it_does_what_a_plain_one_does_however_calls_are_cut(
    accesses: list[tuple[int, bool]], sets: int, ways: int, cut: int
) -> None:
    lines, write = [a[0] for a in accesses], [a[1] for a in accesses]
    ours = cache(sets, ways)
    hits = [
        *ours.access(np.array(lines[:cut], int), np.array(write[:cut], bool)),
        *ours.access(np.array(lines[cut:], int), np.array(write[cut:], bool)),
    ]
    assert (hits, ours.write_backs) == plain(sets, ways, lines, write)
    left = ours.flush()
    assert ours.write_backs == plain(sets, ways, lines, write)[1] + left
    assert not ours.access(np.array(lines[:1], int)).any()


@settings(max_examples=40)
@given(lines=st.lists(st.integers(0, 30), max_size=120), ways=st.integers(1, 20))
def test_one_set_hits_where_the_stack_distance_is_below_its_ways(lines: list[int], ways: int) -> None:
    assert list(cache(1, ways).access(np.array(lines, int))) == [d < ways for d in stack_distances(lines)]


@settings(max_examples=30)
@given(lines=st.lists(st.integers(0, 60), max_size=150), ways=st.integers(1, 8), sets=st.integers(1, 8))
def test_more_ways_never_hit_less(lines: list[int], ways: int, sets: int) -> None:
    asked = np.array(lines, int)
    fewer, more = cache(sets, ways).access(asked), cache(sets, ways + 1).access(asked)
    assert (more >= fewer).all()


def test_what_fits_hits_at_its_second_use_in_any_shape() -> None:
    asked = np.arange(64).reshape(8, 8)
    ours = cache(16, 4)
    assert not ours.access(asked).any() and ours.access(asked[::-1]).all()
    assert ours.access(asked).shape == (8, 8)


def test_a_cyclic_walk_over_one_line_too_many_never_hits() -> None:
    assert not cache(1, 4).access(np.tile(np.arange(5), 10)).any()


def test_a_cache_is_cut_to_whole_sets_or_refused() -> None:
    assert whole_sets(1000, 64, 4).bytes == 768
    for bytes_, words in ((1 << 44, "a cache of 17592186044416 B in lines of 64 B"), (100, "greater than 0")):
        with pytest.raises(UserError, match=words):
            whole_sets(bytes_, 64, 4)


def test_lines_of_an_object_that_straddles_them() -> None:
    assert list(lines_of(np.array([0, 60, 128]), 64, 64)) == [0, 0, 1, 2]
    assert list(lines_of(np.array([100]), 200, 64)) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"bytes": 1000, "line_bytes": 64, "ways": 4}, "not whole sets of 4 lines of 64 B"),
        ({"bytes": 1 << 40, "line_bytes": 64, "ways": 16}, "at most 33554432 are modelled"),
        ({"bytes": 1 << 20, "line_bytes": 64, "ways": 0}, "greater than 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, int], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        CacheShape(**sizes)
