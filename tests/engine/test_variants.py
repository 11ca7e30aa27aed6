"""A block on many chips: to the bit what it costs on each by itself, and no more is done than has changed."""

from __future__ import annotations

from typing import Any

import pytest
from blocks import BLOCKS
from hypothesis import given, settings

import mtia_emu
from mtia_emu.engine import variants
from mtia_emu.engine.cost import cost
from mtia_emu.engine.events import events
from mtia_emu.engine.launches import part
from mtia_emu.engine.variants import Variants
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block
from mtia_emu.study.sensitivity import steps, varied


def others(chip: Chip) -> list[Chip]:
    """Return chips with one rate or price a tenth better, and the chip at a lower clock."""
    todo = [x for x in steps(chip, ["fp16"]) if x.kind != "recompiled"]
    return [*(varied(chip)(x.key, x.new) for x in todo), chip.at_clock(0.7 * chip.clock_hz), chip]


def assert_alike(block: Block, chip: Chip) -> None:
    found = Variants(block, chip, lambda c: events(block, c))
    for other in others(chip):
        alone = cost(block, other, events(block, other)).untimed()
        assert repr(found.cost(other)) == repr(alone)


@settings(max_examples=12)
@given(BLOCKS)
def test_costs_are_those_of_each_chip_alone(case: tuple[Chip, Block]) -> None:
    chip, block = case
    assert_alike(block, chip)


def test_layers_side_by_side_too() -> None:
    program, chip = mtia_emu.compile_model("zoo:llama-tiny", "mtia-2i", dims={"seq": 8}), load_chip("mtia-2i")
    joined = [block for block in program.blocks if block.bands]
    assert joined
    assert_alike(joined[0], part(program, chip))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Chip]:
    """Return the chips on which commands go through the recurrence from now on."""
    seen, whole = list[Chip](), variants.arranged

    def seen_too(block: Block, chip: Chip, *words: Any) -> Any:
        seen.append(chip)
        return whole(block, chip, *words)

    monkeypatch.setattr(variants, "arranged", seen_too)
    return seen


def test_what_changes_no_command_needs_no_recurrence(timed: list[Chip]) -> None:
    program = mtia_emu.compile_model("zoo:llama-tiny", "tiny", dims={"seq": 8})
    chip, block = part(program, load_chip("tiny")), program.blocks[0]
    found, change = Variants(block, chip, lambda c: events(block, c)), varied(chip)
    assert len(timed) == 1
    for key, value in {"energy.command_pj": 9.0, "tdp_w": 1e3, "launch.first_s": 1e-3}.items():
        found.cost(change(key, value))
    assert len(timed) == 1
    for number, (key, value) in enumerate({"pe.core.issue_cycles": 9, "dram.latency_s": 1e-3}.items()):
        found.cost(change(key, value))
        assert len(timed) == number + 2
    found.cost(chip)  # all as it was before
    assert len(timed) == 3


def test_a_chip_on_which_other_events_happen_is_counted_anew() -> None:
    program = mtia_emu.compile_model("zoo:llama-tiny", "tiny", dims={"seq": 8})
    chip, block = part(program, load_chip("tiny")), program.blocks[0]
    counted = list[Chip]()

    def count(there: Chip) -> Any:
        counted.append(there)
        return events(block, there)

    found = Variants(block, chip, count)
    coarse = varied(chip)("dram.burst_bytes", 4 * chip.dram.burst_bytes)
    assert repr(found.cost(coarse)) == repr(cost(block, coarse, events(block, coarse)).untimed())
    assert len(counted) == 2


def test_fewer_loads_on_their_way_take_longer_though_no_command_does() -> None:
    program = mtia_emu.compile_model("zoo:dlrm-small", "tiny", dims={"batch": 64})
    chip = part(program, load_chip("tiny"))
    one_by_one = varied(chip)("pe.dma.outstanding_transfers", 1)
    slower = 0
    for block in program.blocks:
        found = Variants(block, chip, lambda c, block=block: events(block, c))
        alone = cost(block, one_by_one, events(block, one_by_one)).untimed()
        assert repr(found.cost(one_by_one)) == repr(alone)
        slower += alone.cycles > found.cost(chip).cycles
    assert slower
