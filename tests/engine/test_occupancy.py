"""How busy each resource is, held to what was worked out by hand (`worked.py`)."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import ACC, FAR, NEAR, OUT, RESULT, SCRATCH, TILE, A, B, block, command, simd
from worked import QUIET, WORKED

from mtia_emu.engine.timing import timeline
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Cast, Opcode


@pytest.mark.parametrize("name", WORKED)
def test_each_command_keeps_busy_whom_it_should(name: str) -> None:
    x = WORKED[name]
    assert timeline(x.block, x.chip).busy == pytest.approx(QUIET | {"issue": 2} | x.busy, abs=1e-12)


def busy(*commands: dict[str, Any], bands: tuple[int, ...] = ()) -> dict[str, float]:
    """Return the cycles of each resource that some commands take on tiny."""
    return timeline(block(*commands, bands=bands), load_chip("tiny")).busy


LOAD = command(Opcode.LOAD, operand=NEAR, dst=A, **TILE)  # port 8, link 4, SRAM 2, local memory 2
STORE = command(Opcode.STORE, operand=OUT, src0=RESULT, **TILE)  # the same
ADD = simd("add", A, B, rows=8)  # SIMD 8 ; 3 x 128 / 64 = 6 of local memory


def test_the_busiest_pe_counts() -> None:
    found = busy({**LOAD, "pe": 3}, {**LOAD, "pe": 2}, {**LOAD, "pe": 3}, ADD)
    assert (found["dma"], found["simd"], found["local"], found["sram"]) == (16, 8, 6, 6)
    assert found["noc"] == 12  # both stand in row 1


def test_a_row_has_a_link_each_way_and_a_column_one_of_its_own() -> None:
    column = {**LOAD, "cast": Cast.COL}
    assert busy(LOAD, STORE)["noc"] == 4
    assert busy(LOAD, {**LOAD, "pe": 2})["noc"] == 4  # another row
    assert busy(LOAD, {**LOAD, "pe": 1}, STORE, {**STORE, "pe": 1})["noc"] == 8
    assert busy(LOAD, column)["noc"] == 4
    assert busy(column, {**column, "pe": 2})["noc"] == 8  # both go down column 0
    assert busy(column, {**column, "pe": 1})["noc"] == 4


def test_loads_and_stores_have_queues_of_their_own() -> None:
    assert busy(LOAD, STORE)["dma"] == 8
    assert busy(LOAD, LOAD, STORE)["dma"] == 16


def test_one_core_issues_what_moves_and_one_what_computes() -> None:
    assert busy(LOAD, STORE, ADD)["issue"] == 4
    assert busy(LOAD, ADD, ADD, ADD)["issue"] == 6
    assert busy({**LOAD, "cast": Cast.ALL}, {**LOAD, "pe": 3})["issue"] == 2  # the sender alone issues


def test_a_multicast_is_work_of_each_receiver() -> None:
    """Row 1 gets two tiles, column 0 one, everybody one: PE 2 gets all four."""
    row, column = {**LOAD, "pe": 3, "cast": Cast.ROW}, {**LOAD, "pe": 0, "cast": Cast.COL}
    found = busy(row, row, column, {**LOAD, "cast": Cast.ALL})
    assert (found["dma"], found["local"]) == (32, 8)


def test_a_band_keeps_its_multicasts() -> None:
    """Each row a band: what row 0 casts to all is no work of row 1."""
    upper, lower = {**LOAD, "cast": Cast.ALL}, {**LOAD, "pe": 2, "cast": Cast.COL}
    found = busy(upper, lower, bands=(1,))
    assert (found["dma"], found["local"], found["sram"]) == (8, 2, 4)


def test_a_stage_is_work_of_memories_alone() -> None:
    stage = command(Opcode.STAGE, operand=FAR, operand2=SCRATCH, stage=0, **TILE)
    assert busy(stage, LOAD) == pytest.approx(
        QUIET | {"issue": 2, "dma": 8, "noc": 4, "local": 2, "sram": 4, "dram": 8}
    )


def test_partial_sums_are_work_of_the_one_that_adds() -> None:
    add = command(Opcode.REDUCE, pe=1, src_pe=0, dst=ACC, **TILE)
    assert busy(add, add)["reduce"] == 16
    assert busy(add, {**add, "pe": 3, "src_pe": 2})["reduce"] == 8
