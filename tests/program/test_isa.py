"""The program's parts: what operands and blocks span, and that records keep their layout."""

from __future__ import annotations

import numpy as np

from mtia_emu.program.isa import (
    COMMAND,
    Block,
    Operand,
    Shape,
    Slot,
    join,
    select,
    source_shape,
)
from mtia_emu.types import FP16, FP32


def test_a_record_is_whole_words() -> None:
    assert COMMAND.itemsize == 56
    assert sum(COMMAND[name].itemsize for name in COMMAND.names or ()) == 56


def test_an_operand_is_seen_as_a_matrix() -> None:
    x = Operand(FP16, (2, 3, 4), (24, 8, 2), "dram")
    assert (x.rows, x.cols) == (6, 4)
    assert x.extent_bytes == (24 + 16 + 6 + 1) * 2
    assert x.distinct_bytes == 48
    assert str(x) == "fp16[2,3,4]:(24,8,2) dram"


def test_broadcast_dimensions_take_no_room() -> None:
    x = Operand(FP32, (5, 4), (0, 1), "sram", True, True)
    assert (x.extent_bytes, x.distinct_bytes) == (16, 16)
    assert str(x) == "fp32[5,4]:(0,1) sram out by column"
    assert Operand(FP32, (0, 4), (4, 1), "dram").extent_bytes == 0


def test_a_block_takes_what_its_last_slots_end_at() -> None:
    slots = (Slot(FP16, 64, 32), Slot(FP32, 0, 128, True), Slot(FP16, 0, 64))
    block = Block("test", (), slots, np.zeros(0, COMMAND))
    assert (block.local_bytes, block.accumulator_bytes) == (96, 128)
    assert Block("test", (), (), np.zeros(0, COMMAND)).local_bytes == 0


def test_sources_have_two_bits_each() -> None:
    flags = np.array([Shape.COL << 2 | Shape.ONE << 4])
    assert [int(source_shape(flags, i)[0]) for i in range(3)] == [Shape.FULL, Shape.COL, Shape.ONE]


def test_commands_are_joined_and_selected_whole() -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 127, (6, COMMAND.itemsize)).astype(np.uint8).view(COMMAND).reshape(-1)
    both = join([raw[:2], raw[2:]])
    np.testing.assert_array_equal(both, raw)
    np.testing.assert_array_equal(select(both, np.array([5, 0])), raw[[5, 0]])
    np.testing.assert_array_equal(select(both[::2], np.array([1])), raw[[2]])
    assert len(join([])) == 0
