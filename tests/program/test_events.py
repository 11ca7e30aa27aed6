"""Every event says what it counts, and has a price or is a detail of one that has."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from mtia_emu.machine.chip import known_keys
from mtia_emu.program.events import COUNTERS, Counter, Events
from mtia_emu.results.report import Joules

DETAILS = {"noc_bytes", "mac_dtype", "run_bytes", "runs", "transposed_bytes", "rows", "missed"}


def test_every_event_is_priced_or_a_detail() -> None:
    assert set(COUNTERS) | DETAILS == {f.name for f in fields(Events)}
    assert not set(COUNTERS) & DETAILS


def test_no_two_events_share_a_price() -> None:
    prices = [counter.price for counter in COUNTERS.values()]
    assert len(set(prices)) == len(prices)


def test_every_price_of_an_event_is_asked_for() -> None:
    keys = {key for key in known_keys() if "_pj" in key}
    beside = {"energy.zero_mac_pj", "energy.dram_activate_pj"}  # of facts about counted events
    assert {counter.price for counter in COUNTERS.values()} == keys - beside


def test_every_part_that_pays_is_one_of_joules() -> None:
    assert {counter.part for counter in COUNTERS.values()} <= {f.name for f in fields(Joules)}


def test_a_counter_without_a_price_cannot_be_declared() -> None:
    with pytest.raises(
        TypeError, match=r"^counter 'elements sorted' has no price: 'energy.sort_pj' is no key"
    ):
        Counter("elements sorted", "energy.sort_pj", "compute")


def test_events_of_some_commands() -> None:
    ev = Events.zeros(3)
    ev.macs[:] = [1, 2, 3]
    some = ev.of(np.array([2, 0]))
    assert some.macs.tolist() == [3, 1]
    assert some.missed.tolist() == [1, 1]
