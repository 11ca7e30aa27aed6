"""The recurrence held to the event queue: the same rules, shared resources served strictly by time."""

from __future__ import annotations

import numpy as np
import pytest
from blocks import BLOCKS
from hypothesis import given, settings

from mtia_emu import api
from mtia_emu.engine.recurrence import WINDOW
from mtia_emu.engine.timing import timeline
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block
from mtia_emu.zoo.operators import Gemm


@settings(max_examples=150)
@given(BLOCKS)
def test_any_block_takes_about_as_long(case: tuple[Chip, Block]) -> None:
    chip, block = case
    fast, slow = timeline(block, chip), timeline(block, chip, ordered=True)
    assert fast.cycles == pytest.approx(slow.cycles, rel=0.3, abs=64)


@settings(max_examples=30)
@given(BLOCKS)
def test_without_contention_both_nearly_agree(case: tuple[Chip, Block]) -> None:
    chip, block = case
    free = {"row_bytes_per_cycle": 1e9, "col_bytes_per_cycle": 1e9}
    local = {"bytes_per_cycle": 1e9}
    wide = chip.model_copy(
        update={
            "noc": chip.noc.model_copy(update=free),
            "pe": chip.pe.model_copy(
                update={
                    "local": chip.pe.local.model_copy(update=local),
                    "dma": chip.pe.dma.model_copy(update={"outstanding_transfers": 256}),
                }
            ),
            "sram": chip.sram.model_copy(update={"bytes_per_s": 1e19}),
            "dram": chip.dram.model_copy(update={"channel_bytes_per_s": 1e19}),
        }
    )
    fast, slow = timeline(block, wide), timeline(block, wide, ordered=True)
    assert fast.cycles == pytest.approx(slow.cycles, rel=0.1, abs=2 * WINDOW)


@pytest.mark.parametrize(("name", "sizes"), [("mtia-1", (128, 512, 512)), ("mtia-2i", (64, 512, 1024))])
def test_a_product_on_a_whole_chip(name: str, sizes: tuple[int, int, int]) -> None:
    chip = load_chip(name)
    with api.operator_source(Gemm(*sizes, "int8"), None) as source:
        (block,) = api.compile_stages(source, chip, place="sram").program.blocks
    fast, slow = timeline(block, chip), timeline(block, chip, ordered=True)
    assert fast.cycles == pytest.approx(slow.cycles, rel=0.03)
    assert np.median(np.abs(fast.end - slow.end)) < 64
