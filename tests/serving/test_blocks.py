"""The pool of blocks: what is free, what the free ones still hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.serving.blocks import BlockPool, OwnBlocks, SharedBlocks


def test_the_longest_free_are_taken_first_and_the_end_of_a_sequence_before_its_beginning() -> None:
    pool = BlockPool(10)
    pool.take(8)
    pool.give(4, OwnBlocks(1))
    pool.give(2)
    pool.take(2)  # the two that were never used
    assert pool.found(OwnBlocks(1)) == 4
    pool.take(1)
    assert pool.found(OwnBlocks(1)) == 3
    pool.give(3)
    pool.take(3)
    assert pool.found(OwnBlocks(1)) == 0


def test_a_beginning_is_found_again() -> None:
    pool = BlockPool(10)
    pool.take(10)
    pool.give(6, OwnBlocks(1))
    assert pool.reclaim(OwnBlocks(1), 4) == 4
    assert (pool.used, pool.free, pool.found(OwnBlocks(1))) == (8, 2, 0)


def test_shared_blocks_are_free_when_the_last_lets_go_and_lost_whole() -> None:
    pool, name = BlockPool(8), SharedBlocks(7)
    pool.take(4)
    pool.share(name)
    pool.share(name)
    pool.unshare(name, 4)
    assert pool.in_use(name) and pool.free == 4
    pool.unshare(name, 4)
    assert not pool.in_use(name) and pool.found(name) == 4 and pool.free == 8
    pool.share(name)
    assert pool.free == 4
    pool.unshare(name, 4)
    pool.take(5)  # four that were never used, and one of the shared
    assert pool.found(name) == 0 and pool.free == 3


def test_names_of_different_kinds_are_different() -> None:
    assert OwnBlocks(1) != SharedBlocks(1)


def test_more_than_is_free_is_a_fault() -> None:
    with pytest.raises(ValueError, match="3 blocks taken of 2 free"):
        BlockPool(2).take(3)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=60))
def test_blocks_are_never_lost_or_doubled(acts: list[tuple[int, int]]) -> None:
    pool, held = BlockPool(12), dict.fromkeys(range(4), 0)
    for sequence, blocks in acts:
        if held[sequence] or blocks > pool.free:
            pool.give(held[sequence], OwnBlocks(sequence) if blocks % 2 else None)
            held[sequence] = 0
        else:
            known = pool.reclaim(OwnBlocks(sequence), blocks)
            pool.take(blocks - known)
            held[sequence] = blocks
        assert pool.used == sum(held.values())
