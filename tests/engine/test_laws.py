"""Laws that every block obeys: what is conserved, what is bounded, and what may only get better."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from blocks import BLOCKS, matmuls, reads, rowwises, writes
from harness import packed
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.rows.rowwise import emit_rowwise
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.engine.energy import dynamic, traffic
from mtia_emu.engine.events import events
from mtia_emu.engine.timing import timeline
from mtia_emu.engine.totals import Totals
from mtia_emu.machine.chip import Chip, load_chip, validate
from mtia_emu.program.isa import Block, Opcode, Operand
from mtia_emu.results.bounds import BOUNDS
from mtia_emu.types import FP32

Case = tuple[Chip, Block]
SLACK = 1 + 1e-9  # rounding of sums in another order
ANOMALY = 1.05  # a command that is ready sooner may take a shared resource from one that mattered more

FASTER = (  # a parameter and a factor that can only help
    ("dram.channel_bytes_per_s", 2.0),
    ("sram.bytes_per_s", 3.0),
    ("noc.row_bytes_per_cycle", 2.0),
    ("noc.col_bytes_per_cycle", 1.5),
    ("pe.local.bytes_per_cycle", 2.0),
    ("pe.dma.bytes_per_cycle", 2.0),
    ("pe.dma.runs_per_cycle", 4.0),
    ("pe.layout.bytes_per_cycle", 2.0),
    ("pe.simd.bytes_per_cycle", 2.0),
    ("pe.simd.fp32_macs_per_cycle", 2.0),
    ("pe.reduce.bytes_per_cycle", 2.0),
    ("pe.dma.outstanding_rows", 2.0),
    ("pe.dma.outstanding_transfers", 2.0),
    ("pe.core.row_issue_cycles", 0.0),
    ("pe.simd.row_startup_cycles", 0.0),
    ("kernels.bags_in_flight", 2.0),
    ("dram.latency_s", 0.5),
    ("sram.latency_s", 0.0),
    ("noc.hop_cycles", 0.0),
    ("pe.dma.startup_cycles", 0.5),
    ("pe.simd.startup_cycles", 0.0),
    ("pe.core.issue_cycles", 0.5),
    ("pe.matrix.fill_cycles", 0.0),
)


def changed(chip: Chip, key: str, factor: float) -> Chip:
    """Return the chip with one number multiplied."""
    values = chip.model_dump()
    *path, last = key.split(".")
    table = values
    for part in path:
        table = table[part]
    table[last] = type(table[last])(table[last] * factor)
    return validate(values, "changed")


@settings(max_examples=150)
@given(BLOCKS)
def test_no_resource_is_busier_than_the_time(case: Case) -> None:
    chip, block = case
    time = timeline(block, chip)
    assert set(time.busy) <= set(BOUNDS)
    for name, busy in time.busy.items():
        assert 0 <= busy <= time.cycles * SLACK, name
    assert (time.start >= 0).all()
    assert (time.end >= time.start).all()


@pytest.mark.parametrize(("key", "factor"), FASTER, ids=[key for key, _ in FASTER])
@settings(max_examples=40)
@given(case=BLOCKS)
def test_a_better_chip_is_never_slower(key: str, factor: float, case: Case) -> None:
    chip, block = case
    slow, fast = timeline(block, chip), timeline(block, changed(chip, key, factor))
    assert fast.cycles <= slow.cycles * ANOMALY + 8


@settings(max_examples=60)
@given(BLOCKS, st.sampled_from([f for f in FASTER if "outstanding" not in f[0]]))
def test_joules_do_not_depend_on_speed(case: Case, faster: tuple[str, float]) -> None:
    chip, block = case
    joules = dynamic(Totals(events(block, chip)), chip)
    assert all(getattr(joules, f.name) >= 0 for f in fields(joules))
    other = changed(chip, *faster)
    assert dynamic(Totals(events(block, other)), other) == joules


@settings(max_examples=30)
@given(BLOCKS)
def test_equal_blocks_have_equal_counters(case: Case) -> None:
    chip, block = case
    first, second = timeline(block, chip), timeline(block, chip)
    np.testing.assert_array_equal(first.end, second.end)
    assert first.busy == second.busy
    assert traffic(Totals(events(block, chip))) == traffic(Totals(events(block, chip)))


@settings(max_examples=100)
@given(st.one_of(matmuls(), rowwises()))
def test_outputs_are_written_once_and_inputs_are_read(case: Case) -> None:
    _, block = case
    read, written = reads(block), writes(block)
    for i, x in enumerate(block.operands):
        if x.written and x.space != "scratch":
            assert (written[i] == 1).all()
        elif x.space != "scratch":
            assert not written[i].any()
            rows = slice(None) if any(x.strides[:-1]) else slice(1)
            cols = slice(None) if x.strides[-1] else slice(1)
            assert (read[i][rows, cols] >= 1).all()


@settings(max_examples=100)
@given(BLOCKS)
def test_no_less_is_moved_than_there_is(case: Case) -> None:
    chip, block = case
    moved = traffic(Totals(events(block, chip)))
    have = {"dram": moved.dram_read_bytes, "sram": moved.sram_read_bytes}
    put = {"dram": moved.dram_write_bytes, "sram": moved.sram_write_bytes}
    asked = np.isin(block.commands["op"], (Opcode.GATHER, Opcode.POOL))
    tables = set(block.commands["operand"][asked].tolist())  # only rows that are asked for are read
    for space, had in have.items():
        least = sum(
            x.distinct_bytes
            for i, x in enumerate(block.operands)
            if x.space == space and not x.written and i not in tables
        )
        assert had >= least
        assert put[space] >= sum(x.distinct_bytes for x in block.operands if x.space == space and x.written)


@settings(max_examples=100)
@given(BLOCKS)
def test_what_enters_the_network_was_read(case: Case) -> None:
    chip, block = case
    ev, op = events(block, chip), block.commands["op"]
    moves = np.isin(op, (Opcode.LOAD, Opcode.GATHER, Opcode.POOL))
    assert (ev.dram_read_bytes + ev.sram_read_bytes >= ev.noc_bytes)[moves].all()
    stores = op == Opcode.STORE
    assert (ev.dram_write_bytes + ev.sram_write_bytes >= ev.noc_bytes)[stores].all()
    assert (ev.local_read_bytes >= ev.noc_bytes)[stores].all()


def test_a_row_that_outer_dimensions_repeat_is_read_for_each_of_them() -> None:
    chip = load_chip("tiny")
    x = Operand(FP32, (4, 3, 16), (16, 0, 1), "dram")
    tape, out = parse("1 -> t0 | t0 = relu(x0)"), packed(FP32, (4, 3, 16), written=True)
    block = emit_rowwise(chip, "map", tape, [x], [out])
    first, rows = (block.commands[name][block.commands["op"] == Opcode.LOAD] for name in ("row", "rows"))
    distinct = (first + rows - 1) // 3 - first // 3 + 1  # of each tile; a row is a burst
    assert int(events(block, chip).dram_read_bytes.sum()) == distinct.sum() * 64


@settings(max_examples=60)
@given(BLOCKS)
def test_every_command_is_issued_and_takes_time(case: Case) -> None:
    chip, block = case
    ev, time = events(block, chip), timeline(block, chip)
    assert (ev.commands >= 1).all()
    assert (time.end > time.start).all()
    for f in fields(ev):
        found = getattr(ev, f.name)
        assert np.isfinite(found).all(), f.name
        assert (found >= 0).all(), f.name
