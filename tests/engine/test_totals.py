"""Sums of a block's events: each is what adding them up gives, and is added up once."""

from __future__ import annotations

import numpy as np
import pytest

from mtia_emu.engine.totals import Totals
from mtia_emu.program.events import COUNTERS, DTYPE_NAMES, Events


@pytest.fixture
def ev() -> Events:
    rng, found = np.random.default_rng(0), Events.zeros(50)
    for name in vars(found):
        getattr(found, name)[:] = rng.integers(0, 9, 50)
    return found


def test_sums_are_of_all_commands(ev: Events) -> None:
    totals = Totals(ev)
    assert {name: totals.of(name) for name in COUNTERS} == {
        name: float(sum(getattr(ev, name).tolist())) for name in COUNTERS
    }
    assert totals.dram_bytes == sum((ev.dram_read_bytes + ev.dram_write_bytes).tolist())
    assert totals.sram_bytes == sum((ev.sram_read_bytes + ev.sram_write_bytes).tolist())
    assert totals.macs.sum() == totals.of("macs") and len(totals.macs) == len(DTYPE_NAMES)


def test_each_event_has_the_price_of_its_dtype(ev: Events) -> None:
    totals, prices = Totals(ev), tuple(float(i * i) for i in range(len(DTYPE_NAMES)))
    by_hand = sum(n * prices[int(kind)] for n, kind in zip(ev.macs, ev.mac_dtype, strict=True))
    assert totals.priced("macs", "mac_dtype", prices) == by_hand
    doubled = tuple(2 * x for x in prices)
    assert totals.priced("macs", "mac_dtype", doubled) == 2 * by_hand


def test_runs_have_the_bytes_that_are_moved_in_them(ev: Events) -> None:
    lengths, moved = Totals(ev).runs
    each = ev.dram_read_bytes + ev.dram_write_bytes
    assert {int(n): b for n, b in zip(lengths, moved, strict=True)} == {
        n: each[ev.run_bytes == n].sum() for n in range(9) if each[ev.run_bytes == n].sum()
    }


def test_a_sum_is_worked_out_once(ev: Events) -> None:
    totals = Totals(ev)
    before = totals.of("macs"), totals.dram_bytes
    ev.macs[:] = ev.dram_read_bytes[:] = 0
    assert (totals.of("macs"), totals.dram_bytes) == before
