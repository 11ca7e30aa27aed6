"""The memories in which operands lie."""

from __future__ import annotations

import pytest

from mtia_emu.errors import UserError
from mtia_emu.machine.memories import FASTEST_FIRST, Memory, memory_named


def test_what_a_memory_is() -> None:
    assert [m.value for m in Memory] == ["dram", "sram", "scratch"]
    assert [m for m in Memory if m.off_chip] == [Memory.DRAM]
    assert [m for m in Memory if m.of_block] == [Memory.SCRATCH]


def test_those_that_keep_what_lies_there_are_all_but_a_blocks_own() -> None:
    assert set(FASTEST_FIRST) == {m for m in Memory if not m.of_block}
    assert not FASTEST_FIRST[0].off_chip


def test_a_memory_by_its_name() -> None:
    assert memory_named("sram") is Memory.SRAM is memory_named(Memory.SRAM)
    with pytest.raises(UserError, match=r"no memory 'flash' \(right: dram, sram, scratch\)"):
        memory_named("flash")
