"""Where the time of a block went: the parts sum to it, and no peak of the chip is exceeded."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from blocks import BLOCKS
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import block
from worked import WORKED

from mtia_emu.engine.bounds import CycleSplit, roof_cycles, roofs, runner_up, split
from mtia_emu.engine.events import Events, events
from mtia_emu.engine.timing import Timeline, timeline
from mtia_emu.engine.totals import Totals
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block
from mtia_emu.results.bounds import BOUNDS
from mtia_emu.results.report import FILL, LATENCY
from mtia_emu.results.roofs import Roofs
from mtia_emu.types import FP16, FP32, FP64

Case = tuple[Chip, Block]


@settings(max_examples=150)
@given(BLOCKS)
def test_the_parts_sum_to_the_time(case: Case) -> None:
    chip, block = case
    ev, time = events(block, chip), timeline(block, chip)
    parts = split(Totals(ev), time, math.ceil(time.cycles))
    assert sum(parts.parts.values()) == pytest.approx(math.ceil(time.cycles))
    assert min(parts.parts.values()) >= 0
    assert parts.bound_by in BOUNDS and set(time.busy) <= set(BOUNDS)
    assert parts.busy == max(time.busy.values())


@settings(max_examples=150)
@given(BLOCKS)
def test_no_block_is_faster_than_its_roof(case: Case) -> None:
    chip, block = case
    time = timeline(block, chip)
    assert 0 <= roof_cycles(Totals(events(block, chip)), chip) <= time.cycles * (1 + 1e-9)


@settings(max_examples=30)
@given(BLOCKS)
def test_counts_may_be_counted_before(case: Case) -> None:
    chip, block = case
    np.testing.assert_array_equal(
        timeline(block, chip, counts=events(block, chip)).end, timeline(block, chip).end
    )


def loads(starts: list[float], ends: list[float], busy: float) -> tuple[Events, Timeline]:
    """Return commands that each read DRAM, and then one that does not."""
    ev = Events.zeros(len(starts))
    ev.dram_read_bytes[:-1] = 64
    start, end = np.array(starts), np.array(ends)
    return ev, Timeline(
        start, end, np.zeros(len(starts), np.int64), float(end.max()), {"dram": busy, "array": 1.0}
    )


def test_idling_is_told_apart_by_when_it_was() -> None:
    ev, time = loads([10, 60, 80], [30, 70, 100], 30.0)
    assert split(Totals(ev), time, 100) == CycleSplit(
        "dram", 30.0, 40.0, 30.0
    )  # 10 before, 30 after; 30 in between
    assert split(Totals(ev), time, 100).bound_by == FILL
    assert split(Totals(ev), time, 101).fill_and_drain == 41.0


@given(busy=st.floats(0, 100), fill=st.floats(0, 100))
def test_what_a_block_is_bound_by(busy: float, fill: float) -> None:
    parts = CycleSplit("dram", busy, min(fill, 100 - busy), max(0.0, 100 - busy - fill))
    half = busy >= parts.fill_and_drain + parts.waiting
    idle = FILL if parts.fill_and_drain > parts.waiting else LATENCY
    assert parts.bound_by == ("dram" if half else idle)


def test_a_resource_without_commands_of_its_own_waits() -> None:
    ev, time = loads([0, 5], [5, 10], 0.0)
    idle = replace(time, busy={"core": 0.0})
    assert split(Totals(ev), idle, 10) == CycleSplit("core", 0.0, 0.0, 10)


USERS = {  # a resource, a command of OPERANDS that needs it, and one that does not
    "array": ("matmul fp16", "load whole rows"),
    "reduce": ("reduce", "load whole rows"),
    "simd": ("fold rows", "matmul fp16"),
    "dma": ("store", "fold rows"),
    "local": ("load whole rows", "stage"),
    "noc": ("store", "matmul fp16"),
    "sram": ("store", "load parts of rows from DRAM"),
    "dram": ("stage", "load whole rows"),
}


@pytest.mark.parametrize("name", USERS)
def test_a_resource_idles_before_and_after_those_that_need_it(name: str) -> None:
    """One command needs the resource, busy for 1 of 1000 cycles; the rest is before, in or after it."""
    cases = [WORKED[x] for x in USERS[name]]
    both = block(*({n: x.block.commands[0][n] for n in x.block.commands.dtype.names} for x in cases))
    chip = load_chip("tiny")
    time = replace(timeline(both, chip), busy={name: 1.0})
    took = float(time.end[0] - time.start[0])
    assert split(Totals(events(both, chip)), time, 1000) == CycleSplit(
        name, 1.0, 1000 - took, pytest.approx(took - 1)
    )


def test_a_busier_resource_is_named() -> None:
    """Pooling keeps the port busy 203 of 269 cycles: 6 before it, 60 for the last answer."""
    x = WORKED["pool with weights"]
    found = split(Totals(events(x.block, x.chip)), timeline(x.block, x.chip), 269)
    assert (
        found == CycleSplit("dma", 203.0, 6.0, 60.0) and found.bound_by == "dma"
    )  # its answer is waited for


def test_roofs_of_tiny() -> None:
    """4 PEs: 4 x 8 lanes of fp16, 16 B of SIMD each; 4 fp32 multiply-adds, half as many fp64; 1 GHz."""
    chip = load_chip("tiny")
    assert roofs(chip, FP16) == Roofs("fp16", 256e9, 32e9, 16e9, 64e9)
    assert roofs(chip, FP32) == Roofs("fp32", 32e9, 16e9, 16e9, 64e9)
    assert roofs(chip, FP64) == Roofs("fp64", 16e9, 8e9, 16e9, 64e9)


AMOUNTS = {  # of one kind of event, and the cycles below which it cannot be brought
    "sram_read_bytes": 64,  # a cycle
    "sram_write_bytes": 64,
    "dram_read_bytes": 16,
    "dram_write_bytes": 16,
}


@pytest.mark.parametrize("name", AMOUNTS)
def test_no_schedule_beats_a_memory(name: str) -> None:
    ev = Events.zeros(2)
    getattr(ev, name)[:] = 320
    assert roof_cycles(Totals(ev), load_chip("tiny")) == 640 / AMOUNTS[name]


def test_no_schedule_beats_the_arithmetic() -> None:
    """2560 int8 at 256 a cycle and 1280 fp16 at 128: 10 and 10; SRAM's 640 B take 10 meanwhile."""
    ev = Events.zeros(2)
    ev.macs[:], ev.mac_dtype[:] = (2560, 1280), (9, 2)
    ev.sram_read_bytes[:] = 320
    assert roof_cycles(Totals(ev), load_chip("tiny")) == 20


def test_roofs_of_mtia_2i_are_the_published_peaks() -> None:
    chip = load_chip("mtia-2i")
    found = roofs(chip, FP16)
    assert found.matrix_ops_per_s == pytest.approx(177e12, rel=1e-3)  # ISCA 2025, table 2
    assert found.simd_ops_per_s == pytest.approx(5.5e12 / 2, rel=0.01)  # 64 lanes of 8 bits a PE, half at 16
    assert roofs(chip, FP32).matrix_ops_per_s < found.matrix_ops_per_s / 50
    assert (found.dram_bytes_per_s, found.sram_bytes_per_s) == (204.8e9, 2.7e12)


def test_the_second_bottleneck_is_the_busiest_of_the_others() -> None:
    busy = {"dma": 3.0, "dram": 8.0, "sram": 5.0}
    assert runner_up(busy, "dram") == ("sram", 5.0)
    assert runner_up(busy, FILL) == runner_up(busy, LATENCY) == ("dram", 8.0)
    assert runner_up({"dram": 8.0}, "dram") == ("", 0.0)
