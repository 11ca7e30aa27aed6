"""The limit of power: a run within it is left alone, one beyond it is slowed as little as it takes."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mtia_emu
from mtia_emu import api
from mtia_emu.engine.energy import asleep_w, standing
from mtia_emu.engine.power import OCTAVES, STEPS, sustained
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.machine.supply import memory_supply_v, supply_v
from mtia_emu.program.isa import Program
from mtia_emu.results.power import PowerState
from mtia_emu.results.report import Joules, Report, Stretch, Traffic
from mtia_emu.results.spans import Track
from mtia_emu.study.accelerator import Accelerator
from mtia_emu.zoo.operators import Gemm

STEP = 2 ** (1 / STEPS)  # between two clocks that a limit may choose from


@cache
def product() -> Program:
    """Return a product that keeps MTIA 2i's arrays busy."""
    with api.operator_source(Gemm(512, 512, 512, "fp16"), None) as source:
        return api.compile_stages(source, load_chip("mtia-2i"), dtype="fp16", place="sram").program


@cache
def ran(**changes: float) -> Report:
    """Return the report of the product on MTIA 2i with some of its numbers changed."""
    return Accelerator(load_chip("mtia-2i", dict(changes))).report(product())


def state(report: Report) -> PowerState:
    """Return the state of a chip that ran."""
    assert report.power is not None
    return report.power


def test_within_the_limit_a_run_has_the_clock_that_it_asked_for() -> None:
    report, chip = ran(), load_chip("mtia-2i")
    assert report.watts < chip.tdp_w and not state(report).slowed
    assert report.clock_hz == chip.clock_hz == state(report).asked_hz == state(report).sustained_hz
    assert not [note for note in report.notes if note.startswith(("power", "supply", "temperature"))]


def test_beyond_the_limit_it_is_slowed_as_little_as_it_takes() -> None:
    """At 2.7 GHz the product would draw far more than 85 W, at the nominal clock less."""
    free, held = ran(clock_hz=2.7e9, tdp_w=1e6), ran(clock_hz=2.7e9)
    assert free.watts > 85 >= held.watts and not state(free).slowed and state(held).slowed
    assert held.seconds > free.seconds and held.macs == free.macs and held.traffic == free.traffic
    next_one = ran(clock_hz=held.clock_hz * STEP * (1 + 1e-9), tdp_w=1e6)
    assert next_one.watts > 85
    chip = load_chip("mtia-2i").at_clock(held.clock_hz)
    assert (state(held).supply_v, state(held).memory_supply_v) == (supply_v(chip), memory_supply_v(chip))
    assert (state(held).idle_w, state(held).sleep_w) == (standing(chip).total, asleep_w(chip))
    assert held.seconds == Accelerator(chip).report(product()).seconds
    assert any("in place of 2.7, to draw no more than tdp_w, 85 W" in note for note in held.notes)


@pytest.mark.parametrize("watts", [15.0, 23.0, 34.0, 41.0, 56.0, 63.0])
def test_the_next_faster_clock_would_draw_too_much(watts: float) -> None:
    held = ran(tdp_w=watts)
    assert held.watts <= watts < ran(clock_hz=held.clock_hz * STEP, tdp_w=1e6).watts


def drawing(watts: float, clock_hz: float) -> Report:
    """Return the report of a second at a clock in which so many joules are taken."""
    track = Track("chip", clock_hz)
    stretches = (Stretch((), Fraction(1)),)
    return Report("", "", "", {}, (track,), stretches, Joules(compute=watts), Traffic(), 0, 0.0)


@given(st.floats(0.2, 6), st.floats(20, 84))
def test_however_power_goes_with_the_clock_the_step_is_the_fastest(power: float, limit: float) -> None:
    chip = load_chip("mtia-2i", {"tdp_w": limit})
    tried: list[float] = []

    def at(now: Chip) -> Report:
        tried.append(now.clock_hz)
        return drawing(85 * (now.clock_hz / 1.35e9) ** power, now.clock_hz)

    found = sustained(chip, at)
    faster = drawing(85 * (found.clock_hz * STEP / 1.35e9) ** power, 1.0)
    assert found.watts <= limit < faster.watts * (1 + 1e-9) or found.clock_hz == min(tried)
    assert len(tried) <= 20 and len(set(tried)) == len(tried)


@settings(max_examples=15)
@given(st.floats(8, 300), st.floats(8, 300), st.floats(0.5, 3))
def test_a_higher_limit_is_never_slower(one: float, other: float, faster: float) -> None:
    low, high = (ran(tdp_w=w, clock_hz=faster * 1.35e9) for w in sorted((one, other)))
    assert high.seconds <= low.seconds
    for watts, report in ((min(one, other), low), (max(one, other), high)):
        assert report.watts <= watts or report.clock_hz < 2 * faster * 1.35e9 / 2**OCTAVES


@settings(max_examples=10)
@given(st.floats(0.4, 3), st.floats(0.4, 3), st.sampled_from([20.0, 60.0]))
def test_a_higher_clock_that_is_asked_for_is_never_slower(one: float, other: float, watts: float) -> None:
    slow, fast = (ran(clock_hz=f * 1.35e9, tdp_w=watts) for f in sorted((one, other)))
    assert fast.seconds <= slow.seconds * STEP


def test_a_limit_that_cannot_be_kept_is_said() -> None:
    report = ran(tdp_w=3.0)
    assert report.watts > 3 and report.clock_hz == pytest.approx(1.35e9 / 2**OCTAVES)
    assert any("the limit cannot be kept" in note for note in report.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clock_hz": 4e9, "tdp_w": 1e6}, "above power.most_v, 1.2 V: beyond what is known"),
        ({"clock_hz": 0.5e9}, "0.65 V at 0.5 GHz, the least"),
        ({"energy.voltage_v": 0.6}, "0.6 V at 1.35 GHz, the least"),
        ({"node_nm": 3.0}, "no areas are known at 3 nm: leakage and clock are those of 5"),
        ({"energy.temperature_c": 110.0}, "temperature: 110 C is outside 25 to 85"),
    ],
)
def test_a_range_that_is_left_is_said(changes: dict[str, Any], words: str) -> None:
    assert any(words in note for note in ran(**changes).notes)


def test_there_is_a_clock_that_takes_least_energy() -> None:
    """Slower, what flows anyway takes more; faster, the supply does."""
    joules = [ran(clock_hz=f * 1.35e9, tdp_w=1e6).joules for f in (0.1, 0.3, 0.6, 1.0, 1.5, 2.0)]
    least = joules.index(min(joules))
    assert 0 < least < 3 and joules[least:] == sorted(joules[least:])
    assert joules[: least + 1] == sorted(joules[: least + 1], reverse=True)


def test_what_waits_for_dram_gains_little_by_the_clock() -> None:
    """A product with few rows out of DRAM: at three quarters of the clock it takes much less than 4/3."""
    with api.operator_source(Gemm(32, 2048, 2048, "fp16"), None) as source:
        program = api.compile_stages(source, load_chip("mtia-2i"), dtype="fp16", place="dram").program
    fast, slow = (
        Accelerator(load_chip("mtia-2i", {"clock_hz": f * 1.35e9})).report(program) for f in (1, 0.75)
    )
    assert 1 <= slow.seconds / fast.seconds < 1.1 < ran(clock_hz=0.75 * 1.35e9).seconds / ran().seconds


def test_runs_one_after_another_keep_a_state_that_they_share() -> None:
    one, other = ran(), ran(tdp_w=20.0)
    assert (one + one).power == (3 * one).power == one.power
    assert (one + other).power is None


def test_a_run_from_the_door_says_all_of_it() -> None:
    out = mtia_emu.run("zoo:dlrm-small", "mtia-2i", dims={"batch": 8}, settings={"tdp_w": 15.0}, gpu=None)
    assert state(out.report).slowed and out.chip.clock_hz == 1.35e9 > out.report.clock_hz
    assert out.report.watts <= 15.0


def test_the_bare_array_never_slows_down() -> None:
    wide = {"pe.matrix.rows": 256, "pe.matrix.cols": 256, "pe.matrix.rates.fp32": 1.0}
    report = api.run("zoo:dlrm-small", "systolic", settings=wide, gpu=None, dims={"batch": 4}).report
    assert report.power is not None and not report.power.slowed
