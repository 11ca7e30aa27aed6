"""The state of a chip's power: plain data."""

from __future__ import annotations

from dataclasses import replace

from mtia_emu.results.power import PowerState

STATE = PowerState(1e9, 1e9, 0.7, 0.75, 10.0, 4.0, 2.0, {}, {})


def test_a_chip_is_slowed_where_it_runs_below_what_was_asked_for() -> None:
    assert not STATE.slowed and replace(STATE, asked_hz=1.1e9).slowed
