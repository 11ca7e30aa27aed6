"""No resource serves more than its bandwidth in any window of a timeline."""

from __future__ import annotations

import numpy as np
import pytest
from blocks import BLOCKS
from conservation import beyond, since_start, worst
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler.pipeline import compile_graph

from mtia_emu import api
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block, Program
from mtia_emu.testing.fuzz import numbered_graph

ROUNDING = 1e-3  # cycles
SCARCE = (
    "pe.local.bytes_per_cycle",
    "noc.row_bytes_per_cycle",
    "sram.bytes_per_s",
    "dram.channel_bytes_per_s",
)


def held(program: Program, chip: Chip) -> None:
    """Hold every block of a program to every resource."""
    for block in program.blocks:
        if len(block.commands):
            over = {name: cycles for name, cycles in worst(block, chip).items() if cycles > ROUNDING}
            assert not over, f"{block.kernel} {block.mapping}: cycles beyond a window {over}"


def test_work_beyond_a_window_is_seen() -> None:
    """Three commands of 120 cycles between 0 and 256; the same spread over 512 fit."""
    begin, cycles = np.zeros(3), np.full(3, 120.0)
    assert beyond(begin, np.full(3, 256.0), cycles) == 360 - 256
    assert beyond(begin, np.array([256.0, 256.0, 512.0]), cycles) <= 0
    assert beyond(begin + 4992, np.full(3, 5248.0), cycles) == 360 - 256
    assert since_start(np.array([256.0, 80.0, 360.0]), cycles) == 120 - 80


@settings(max_examples=60)
@given(BLOCKS, st.sampled_from(SCARCE), st.sampled_from([4, 32]))
def test_random_blocks_on_chips_that_lack_something(case: tuple[Chip, Block], scarce: str, part: int) -> None:
    chip, block = case
    *path, last = scarce.split(".")
    values = chip.model_dump()
    table = values
    for name in path:
        table = table[name]
    table[last] /= part
    slow = Chip.model_validate(values)
    over = {name: cycles for name, cycles in worst(block, slow).items() if cycles > ROUNDING}
    assert not over, f"{block.kernel} {block.mapping}: cycles beyond a window {over}"


@pytest.mark.parametrize("chip", ["mtia-1", "mtia-2i", "tiny"])
@pytest.mark.parametrize("model", ["zoo:llama-tiny", "zoo:dlrm-small"])
def test_models_of_the_zoo(model: str, chip: str) -> None:
    machine = load_chip(chip)
    with api.open_model(model, {}) as source:
        held(api.compile_stages(source, machine).program, machine)


@pytest.mark.parametrize("number", range(12))
def test_random_graphs(number: int) -> None:
    machine = load_chip("mtia-2i")
    graph = numbered_graph(0, number)
    held(compile_graph(graph, machine).program, machine)


@pytest.mark.parametrize("model", ["zoo:llama-tiny", "zoo:dlrm-small"])
def test_layers_that_overlap_share_dram_and_sram(model: str) -> None:
    """Weights are prefetched beside layers before: what layers move finds room where they begin and end."""
    machine = load_chip("mtia-2i")
    layers = api.run(model, machine, gpu=None).report.layers
    begin, end = (np.array([getattr(x, at) for x in layers], float) for at in ("start_cycle", "end_cycle"))
    rates = {"dram_bytes": machine.dram_bytes_per_cycle, "sram_bytes": machine.sram_bytes_per_cycle}
    for what, rate in rates.items():
        cycles = np.array([getattr(x, what) for x in layers]) / rate
        assert beyond(begin, end, cycles) <= ROUNDING and since_start(end, cycles) <= ROUNDING, what
