"""What each command does, counted, held to what was worked out by hand (`worked.py`)."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from tiny import AWAY, FAR, INDEX, OPERANDS, TABLE, TILE, A, block, command
from worked import WORKED

from mtia_emu.engine.events import Events, events
from mtia_emu.engine.lookups import Lookups
from mtia_emu.engine.steady import Missed
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Opcode
from mtia_emu.types import DTYPES

NAMES = [f.name for f in fields(Events)]


def counted(name: str) -> dict[str, float]:
    """Return the events of a worked command, by name."""
    ev = events(WORKED[name].block, WORKED[name].chip)
    return {field: float(getattr(ev, field)[0]) for field in NAMES}


@pytest.mark.parametrize("name", WORKED)
def test_each_command_counts_what_was_worked_out(name: str) -> None:
    assert counted(name) == dict.fromkeys(NAMES, 0) | {"commands": 1, "missed": 1} | WORKED[name].counts


def test_every_opcode_is_worked_out() -> None:
    assert {x.opcode for x in WORKED.values()} == set(Opcode)


def test_every_event_is_counted_by_some_command() -> None:
    named = {name for x in WORKED.values() for name in x.counts}
    assert named == set(NAMES) - {"missed"}  # of which the test of the cache asks


def test_dtypes_of_products_stand_at_these_numbers() -> None:
    assert [list(DTYPES)[i] for i in (1, 2, 9)] == ["fp32", "fp16", "int8"]


def test_commands_of_a_block_are_counted_each_for_itself() -> None:
    """Commands that differ in operand, PE and opcode, in one block and not in order of any."""
    names = ["store", "load into all", "gather", "load whole rows", "exp of accumulators", "stage"]
    records = [WORKED[name].block.commands[0] for name in names]
    whole = block(*({n: c[n] for n in c.dtype.names} for c in records))
    ev = events(whole, load_chip("tiny"))
    for at, name in enumerate(names):
        assert {field: float(getattr(ev, field)[at]) for field in NAMES} == counted(name)


POOL = command(Opcode.POOL, operand=TABLE, operand2=INDEX, row2=-1, rows=1, cols=8, k=10)


def test_a_cache_serves_what_it_holds() -> None:
    """Of 10 look-ups of 32 rows at random about 8.7 are new: they come from DRAM and are kept in SRAM."""
    share = 32 * (1 - (31 / 32) ** 10) / 10
    alone, cached = (events(block(POOL), load_chip("tiny"), cache_bytes=n) for n in (0, 512))
    assert alone.dram_read_bytes - cached.dram_read_bytes == pytest.approx(640 * (1 - share))
    assert cached.sram_write_bytes == pytest.approx(640 * share)  # whole bursts
    assert cached.sram_read_bytes == 0  # 160 B of rows are fewer than what comes in
    assert cached.missed == pytest.approx(share)
    too_small = events(block(POOL), load_chip("tiny"), cache_bytes=511)  # the table has 32 x 16 B
    assert too_small.dram_read_bytes == alone.dram_read_bytes and too_small.sram_write_bytes == 640


def test_look_ups_that_are_known_stand_for_the_mean() -> None:
    """Three look-ups, of which one line misses: 64 B come in of 3 x 64, nothing else is looked up."""
    known = Lookups(np.array([3]), np.array([5, 5, 5]), np.array([1]))
    ev = events(block(POOL), load_chip("tiny"), known, 512)
    assert (ev.rows, ev.commands) == (3, 2)
    assert ev.dram_read_bytes == 64 + 64 + 64  # a line, 24 B of indices, 16 B of offsets
    assert ev.sram_write_bytes == 64 and ev.missed == pytest.approx(1 / 3)
    none = events(block(POOL), load_chip("tiny"), replace(known, missed=np.array([0])), 512)
    assert none.dram_read_bytes == 128 and none.sram_read_bytes == 48 and none.missed == 0


def test_a_cache_serves_the_share_of_tiles_that_it_does_not_miss() -> None:
    """128 B are asked for twice: of the first a quarter comes from DRAM, of the second nothing."""
    loads = block(*([command(Opcode.LOAD, operand=FAR, dst=A, **TILE)] * 2))
    misses = [Missed()] * len(loads.operands)
    misses[FAR] = Missed(first=0.25, again=0.0)
    plain, served = events(loads, load_chip("tiny")), events(loads, load_chip("tiny"), misses=tuple(misses))
    assert plain.dram_read_bytes.sum() == 256 and plain.sram_read_bytes.sum() == 0
    assert served.dram_read_bytes.sum() == 32 and served.sram_read_bytes.sum() == 224
    assert (served.missed == 0.125).all() and (plain.missed == 1).all()
    assert (served.noc_bytes == plain.noc_bytes).all()


def test_what_nobody_needs_in_dram_is_written_to_sram_alone() -> None:
    store = block(command(Opcode.STORE, operand=AWAY, src0=A, **TILE))
    misses = [Missed()] * len(store.operands)
    misses[AWAY] = Missed(first=0.0, again=0.0)
    ev = events(store, load_chip("tiny"), misses=tuple(misses))
    assert ev.dram_write_bytes.sum() == 0 and ev.sram_write_bytes.sum() == 128


def test_a_warm_cache_misses_a_share_of_rows() -> None:
    """Without data the mean; with it what an empty cache misses, times the share of first look-ups."""
    chip, misses = load_chip("tiny"), [Missed()] * len(OPERANDS)
    misses[TABLE] = Missed(first=0.5, again=0.0, all=0.25)
    whole = events(block(POOL), chip).dram_read_bytes.sum()
    rows = 10 * 64.0  # 10 rows of 16 B, each a burst of 64 B
    ev = events(block(POOL), chip, cache_bytes=512, misses=tuple(misses))
    assert whole - ev.dram_read_bytes.sum() == 0.75 * rows and ev.missed[0] == 0.25
    known = Lookups(np.array([10]), np.zeros(10, np.int64), missed=np.array([4]))
    ev = events(block(POOL), chip, known, 512, tuple(misses))
    cold = events(block(POOL), chip, known, 512)
    assert cold.dram_read_bytes[0] - ev.dram_read_bytes[0] == 2 * chip.sram.line_bytes
