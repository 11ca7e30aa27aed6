"""Kernels side by side on bands of rows: what each of them does alone, at the same time."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import chips, packed, program_of, run, strided, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mtia_emu.kernels.beside import beside, scratch_bytes
from mtia_emu.kernels.builder import NoRoom
from mtia_emu.kernels.matmul.dense import emit_matmul
from mtia_emu.kernels.matmul.plan import MatmulMapping, MatmulPlan, MatmulProblem
from mtia_emu.kernels.rows.rowwise import emit_rowwise
from mtia_emu.kernels.rows.scalar import emit_scalar
from mtia_emu.kernels.rows.tape import parse

from mtia_emu.engine.events import events
from mtia_emu.engine.function import execute
from mtia_emu.engine.recurrence import WINDOW
from mtia_emu.engine.timing import timeline
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.geometry import receivers
from mtia_emu.program.isa import Block, Opcode, Program
from mtia_emu.program.verify import verify
from mtia_emu.types import FP16, FP32

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from blocks import indexed, matmuls, rowwises

Array = np.ndarray[Any, Any]
Case = tuple[Chip, list[int], list[Block]]
ANOMALY = 1.05  # as of `engine/test_laws.py`
ADD = "2 -> t0 | t0 = add(x0, x1)"


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Return a chip, the rows of each of two or three bands, and a block made for each band."""
    rows = draw(st.lists(st.integers(1, 2), min_size=2, max_size=3))
    chip = draw(chips())
    chip = chip.model_copy(update={"grid": chip.grid.model_copy(update={"rows": sum(rows)})})
    blocks = []
    for count in rows:
        part = chip.part(count, chip.grid.cols)
        blocks.append(draw(st.one_of(matmuls(part), rowwises(part), indexed(part)))[1])
    return chip, rows, blocks


def join(case: Case) -> Block:
    chip, rows, blocks = case
    try:
        return beside(blocks, rows, chip.grid.cols, alone(case))
    except NoRoom:  # products of different types
        assume(False)
        raise


def alone(case: Case) -> list[float]:
    """Return the cycles of each block on a chip that is only its band."""
    chip, rows, blocks = case
    parts = [chip.part(n, chip.grid.cols) for n in rows]
    return [timeline(b, part).cycles for b, part in zip(blocks, parts, strict=True)]


def inputs_of(block: Block) -> list[Array]:
    """Return operands that are read, look-ups within their tables among them."""
    found: list[Array] = []
    before = None
    for i, x in enumerate(block.operands):
        if x.written or x.space == "scratch":
            continue
        if x.dtype.name != "int64":
            found.append(values(x.dtype, x.shape, i))
        elif before is not None and before.dtype.name != "int64":
            found.append((np.arange(x.cols) * 7 % before.shape[-2])[None])
        else:  # where bags of three begin
            found.append(3 * np.arange(x.cols)[None])
        before = x
    return found


def launched(block: Block, parts: list[Block], chip: Chip) -> Program:
    """Return the program of a joined block, each part with scratch of its own."""
    program = program_of(block, chip)
    starts = [0, *accumulate(scratch_bytes(b) for b in parts)]
    owner = [i for i, b in enumerate(parts) for _ in b.operands]
    places = [
        starts[owner[i]] if x.space == "scratch" else place
        for i, (x, place) in enumerate(zip(block.operands, program.launches[0].addresses, strict=True))
    ]
    return replace(program, launches=(replace(program.launches[0], addresses=tuple(places)),))


@settings(max_examples=40)
@given(cases())
def test_values_are_those_of_each_alone(case: Case) -> None:
    chip, rows, blocks = case
    block = join(case)
    program = launched(block, blocks, chip)
    verify(program, chip)
    inputs = iter([array for part in blocks for array in inputs_of(part)])
    memory = {}
    for i, x in enumerate(block.operands):
        if x.space != "scratch":
            memory[f"in{i}"] = np.ones(x.extent_bytes // x.dtype.bytes, x.dtype.numpy)
            if not x.written:
                strided(memory[f"in{i}"], x)[...] = next(inputs)
    found = execute(program, chip, memory, check=True).outputs
    outputs = [strided(found[f"out{i}"], x) for i, x in enumerate(block.operands) if f"out{i}" in found]
    for part, count in zip(blocks, rows, strict=True):
        for array in run(part, chip.part(count, chip.grid.cols), inputs_of(part)).outputs:
            np.testing.assert_array_equal(outputs.pop(0), array)
    assert not outputs


@settings(max_examples=40)
@given(cases())
def test_no_cast_leaves_its_band_and_nothing_is_moved_or_computed_twice(case: Case) -> None:
    chip, rows, blocks = case
    block, cols = join(case), chip.grid.cols
    bands = block.band_rows(chip.grid.rows)
    for c in block.commands[block.commands["op"] == Opcode.LOAD].tolist():
        cast, pe = c[1], c[4]
        low, high = bands[pe // cols]
        reached = range(*receivers.function(cast, pe, low, high, cols))
        assert low * cols <= min(reached) and max(reached) < high * cols
    whole = events(block, chip)
    parts = [events(b, chip.part(n, cols)) for b, n in zip(blocks, rows, strict=True)]
    for name in vars(whole).keys() - {"noc_byte_hops", "mac_dtype", "run_bytes", "runs", "rows", "missed"}:
        total = sum(float(getattr(x, name).sum()) for x in parts)
        assert float(getattr(whole, name).sum()) == pytest.approx(total, rel=1e-12), name
    assert whole.noc_byte_hops.sum() >= sum(x.noc_byte_hops.sum() for x in parts) * (1 - 1e-12)


@settings(max_examples=40)
@given(cases())
def test_it_takes_as_long_as_the_longest_and_no_longer_than_all(case: Case) -> None:
    each, whole = alone(case), timeline(join(case), case[0])
    assert whole.cycles >= max(each) / ANOMALY - WINDOW
    hops = case[0].grid.rows * case[0].noc.hop_cycles  # columns begin at the north edge
    assert whole.cycles <= sum(each) * ANOMALY + WINDOW + hops * len(whole.start)


@settings(max_examples=40)
@given(cases())
def test_both_timings_agree(case: Case) -> None:
    chip, block = case[0], join(case)
    fast, slow = timeline(block, chip), timeline(block, chip, ordered=True)
    assert fast.cycles == pytest.approx(slow.cycles, rel=0.3, abs=WINDOW)


def added(chip: Chip, rows: int) -> Block:
    x = packed(FP32, (rows, 16))
    return emit_rowwise(chip, "map", parse(ADD), [x, x], [replace(x, written=True)])


def test_slots_of_one_band_may_lie_where_those_of_another_do() -> None:
    chip = load_chip("tiny")
    part = chip.part(1, chip.grid.cols)
    block = beside([added(part, 8), added(part, 8)], [1, 1], chip.grid.cols, [1.0, 1.0])
    assert block.local_bytes == added(part, 8).local_bytes
    verify(program_of(block, chip), chip)
    with pytest.raises(UserError, match="one slot after another"):
        verify(program_of(replace(block, bands=()), chip), chip)


@pytest.mark.parametrize("bands", [(0,), (2,), (1, 1), (-1,)])
def test_bands_that_are_none_are_refused(bands: tuple[int, ...]) -> None:
    chip = load_chip("tiny")
    with pytest.raises(UserError, match="right: rising, from 1 to 1"):
        verify(program_of(replace(added(chip, 8), bands=bands), chip), chip)


def test_a_sum_across_bands_is_refused() -> None:
    chip = load_chip("tiny", {"grid.rows": 2, "grid.cols": 1})
    p = MatmulProblem(1, 8, 32, 8, FP16, FP16, FP16, "dram", "dram", b_batched=False)
    plan = MatmulPlan(p, MatmulMapping("k", "n", 8, 8, 8, "m"), chip)
    out = packed(FP16, (1, 8, 8), "sram", written=True)
    block = emit_matmul(plan, packed(FP16, (1, 8, 32)), packed(FP16, (32, 8)), out)
    assert (block.commands["op"] == Opcode.REDUCE).any()
    verify(program_of(block, chip), chip)
    with pytest.raises(UserError, match="the other PE is in another band"):
        verify(program_of(replace(block, bands=(1,)), chip), chip)


def test_unlike_blocks_are_refused() -> None:
    chip = load_chip("tiny")
    core = emit_scalar(chip, "cumsum", {}, [packed(FP32, (3, 4))], [packed(FP32, (3, 4), written=True)])
    with pytest.raises(NoRoom, match="one op for the core"):
        beside([core, core], [1, 1], 2, [1.0, 1.0])
