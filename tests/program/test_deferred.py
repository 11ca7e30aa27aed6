"""Blocks whose commands are made when they are read: the same block, made as often as needed."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest

from mtia_emu import api
from mtia_emu.program.census import census
from mtia_emu.program.deferred import Deferred, Shelf, content, known
from mtia_emu.program.isa import Block

BLOCKS = list(api.compile_model("zoo:llama-tiny", "tiny", dims={"batch": 1, "seq": 24}).blocks)
ONE, OTHER = BLOCKS[:2]


class Maker:
    """Makes a block, and counts how often."""

    def __init__(self, block: Block) -> None:
        self.block, self.made = block, 0

    def __call__(self) -> Block:
        self.made += 1
        return replace(self.block)


def deferred(block: Block, shelf: Shelf | None = None) -> tuple[Deferred, Maker]:
    maker = Maker(block)
    return Deferred.of(known(block), maker, shelf or Shelf()), maker


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.kernel)
def test_all_but_the_commands_is_had_without_making_them(block: Block) -> None:
    late, maker = deferred(block)
    for f in fields(Block):
        if f.name != "commands":
            assert getattr(late, f.name) == getattr(block, f.name), f.name
    assert late.size == len(block.commands) and census(late) == census(block)
    assert (late.local_bytes, late.accumulator_bytes) == (block.local_bytes, block.accumulator_bytes)
    assert maker.made == 0
    np.testing.assert_array_equal(late.commands, block.commands)
    np.testing.assert_array_equal(late.commands, block.commands)
    assert maker.made == 1


def test_what_was_read_last_is_held_and_the_rest_is_made_again() -> None:
    shelf = Shelf(max(ONE.commands.nbytes, OTHER.commands.nbytes))
    (one, made), (other, also) = deferred(ONE, shelf), deferred(OTHER, shelf)
    for late, maker, times in (
        (one, made, 1),
        (one, made, 1),
        (other, also, 1),
        (one, made, 2),
        (one, made, 2),
    ):
        np.testing.assert_array_equal(late.commands, late.whole.commands)
        assert maker.made == times
    roomy = Shelf()
    (one, made), (other, also) = deferred(ONE, roomy), deferred(OTHER, roomy)
    for _ in range(3):
        assert len(one.commands) and len(other.commands)
    assert (made.made, also.made) == (1, 1)


def test_a_copy_is_a_plain_block() -> None:
    late, _ = deferred(ONE)
    for twin in (replace(late, mapping="as is"), copy.deepcopy(late), pickle.loads(pickle.dumps(late))):
        assert type(twin) is Block
        np.testing.assert_array_equal(twin.commands, ONE.commands)
        assert twin.operands == ONE.operands and census(twin) == census(ONE)


def test_blocks_are_told_apart_by_all_that_they_hold() -> None:
    changed = ONE.commands.copy()
    changed["rows"][-1] += 1
    others = (
        replace(ONE, commands=changed),
        replace(ONE, scratch_bytes=ONE.scratch_bytes + 64),
        replace(ONE, mapping=ONE.mapping + "x"),
        replace(ONE, operands=(*ONE.operands, ONE.operands[0])),
    )
    digests = {known(block).digest for block in (ONE, *others)}
    assert len(digests) == 1 + len(others)
    assert known(replace(ONE)).digest == known(ONE).digest
    assert content(ONE) != content(others[0]) and content(ONE) == content(others[1])
