"""Joules: they sum, never fall below zero, rise with every price, and zeros in the data spare some."""

from __future__ import annotations

import math
from dataclasses import asdict, fields

import numpy as np
import pytest
from blocks import BLOCKS
from hypothesis import given, settings
from hypothesis import strategies as st
from worked import WORKED

import mtia_emu
from mtia_emu.api import core_library
from mtia_emu.engine.energy import (
    asleep_w,
    clock_w,
    dynamic,
    leakage_w,
    scales,
    spared,
    standing,
    supplied,
    traffic,
)
from mtia_emu.engine.events import Events, events
from mtia_emu.engine.function import execute
from mtia_emu.engine.run import report
from mtia_emu.engine.totals import Totals
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.machine.units.energy import Energy
from mtia_emu.program.events import COUNTERS
from mtia_emu.program.isa import Block, Program
from mtia_emu.results.report import Joules, Report, Traffic
from mtia_emu.silicon import area
from mtia_emu.types import DTYPES

Case = tuple[Chip, Block]
PRICES = [  # a key, and the part of the joules that it must not lower
    ("simd_pj", "compute"),
    ("scalar_pj", "compute"),
    ("local_read_pj_per_byte", "local"),
    ("local_write_pj_per_byte", "local"),
    ("sram_read_pj_per_byte", "sram"),
    ("sram_write_pj_per_byte", "sram"),
    ("dram_read_pj_per_byte", "dram"),
    ("dram_write_pj_per_byte", "dram"),
    ("noc_pj_per_byte_hop", "noc"),
    ("command_pj", "control"),
    ("voltage_v", "compute"),
    ("memory_voltage_v", "local"),
]
STANDING = ["voltage_v", "temperature_c", "leakage_w_per_mm2", "clock_pf_per_mm2", "link_w", "dram_idle_w"]


def with_energy(chip: Chip, **values: object) -> Chip:
    """Return the chip with some of its prices changed."""
    return chip.model_copy(update={"energy": chip.energy.model_copy(update=values)})


# Tiny at 1.5 times the voltage of its prices in logic and 2 times in local memory, and no two prices alike.
DEAR = {
    **{"voltage_v": 1.5, "memory_voltage_v": 2.0, "price_voltage_v": 1.0},
    **{
        "mac_pj": {"int8": 2.0, "fp16": 3.0, "fp32": 5.0},
        "zero_mac_pj": {"int8": 0.5, "fp16": 1.0, "fp32": 1.5},
    },
    **{"simd_pj": 7.0, "scalar_pj": 11.0, "local_read_pj_per_byte": 13.0, "local_write_pj_per_byte": 17.0},
    **{"sram_read_pj_per_byte": 19.0, "sram_write_pj_per_byte": 23.0, "dram_read_pj_per_byte": 29.0},
    **{"dram_write_pj_per_byte": 31.0, "noc_pj_per_byte_hop": 37.0, "command_pj": 41.0},
    **{"local_price_bytes": 0, "sram_price_bytes": 0, "dram_activate_pj": 43.0},
    **{
        "leakage_w_per_mm2": 0.02,
        "temperature_c": 90.0,
        "clock_pf_per_mm2": 30.0,
        "link_w": 0.25,
        "dram_idle_w": 0.125,
    },
}
LOGIC, MEMORY = 2.25, 4.0  # squares of the voltages
# Prices are of memories without any bytes: with wires, 16 KiB take 1 + 1.045 / 8, 256 KiB 1 + 1.045 / 2.
LOCAL, SHARED = MEMORY * 1.130625, LOGIC * 1.5225
ONE_EACH = {  # of one event: the part of the joules that it is in, and pJ
    "local_read_bytes": ("local", 13 * LOCAL),
    "local_write_bytes": ("local", 17 * LOCAL),
    "sram_read_bytes": ("sram", 19 * SHARED),
    "sram_write_bytes": ("sram", 23 * SHARED),
    "dram_read_bytes": ("dram", 29),  # DRAM has a supply of its own
    "dram_write_bytes": ("dram", 31),
    "noc_byte_hops": ("noc", 37 * LOGIC),
    "simd_passes": ("compute", 7 * LOGIC),
    "scalar_elements": ("compute", 11 * LOGIC),
    "commands": ("control", 41 * LOGIC),
    "macs": ("compute", 5 * LOGIC),  # of a dtype without a price of its own: as fp32
    # The length and number of runs, rows asked for, bytes turned and the bytes that enter the network tell
    # times; what they cost is in the prices above.
    **dict.fromkeys(
        ("noc_bytes", "run_bytes", "runs", "rows", "transposed_bytes", "mac_dtype", "missed"), ("compute", 0)
    ),
}


def dear() -> Chip:
    """Return tiny with the prices of DEAR."""
    return with_energy(load_chip("tiny"), **DEAR)


def costs(block: Block, ev: Events, chip: Chip) -> dict[str, float]:
    """Return what events cost at the chip's own clock and capacities, by part of the joules."""
    return asdict(supplied(dynamic(Totals(ev), chip), scales(chip)))


def one(field: str, dtype: int = 0) -> Events:
    """Return a single event, of a command that does nothing else."""
    ev = Events.zeros(1)
    ev.missed[:] = 0
    ev.mac_dtype[:] = dtype
    getattr(ev, field)[:] = 1
    return ev


def test_every_event_has_its_one() -> None:
    """Events whose price a unit brings with it are held to it by the unit's own test."""
    of_units = {name for name, counter in COUNTERS.items() if not counter.price.startswith("energy.")}
    assert set(ONE_EACH) == {f.name for f in fields(Events)} - of_units


@pytest.mark.parametrize("field", ONE_EACH)
def test_one_event_costs_its_price_and_nothing_else(field: str) -> None:
    part, pj = ONE_EACH[field]
    found = costs(WORKED["stage"].block, one(field), dear())
    assert found == pytest.approx(dict.fromkeys(found, 0.0) | {part: pj * 1e-12}, rel=1e-12, abs=0)


@pytest.mark.parametrize(("dtype", "pj"), [("int8", 2), ("fp16", 3), ("fp32", 5), ("bf16", 5), ("fp64", 5)])
def test_a_multiply_add_has_the_price_of_its_dtype(dtype: str, pj: float) -> None:
    found = costs(WORKED["stage"].block, one("macs", list(DTYPES).index(dtype)), dear())
    assert found["compute"] == pytest.approx(pj * LOGIC * 1e-12, rel=1e-12)


@pytest.mark.parametrize(("dtype", "pj"), [("int8", 1.5), ("fp16", 2), ("fp32", 3.5), ("bf16", 3.5)])
def test_a_zero_spares_what_its_multiplier_does_not_switch(dtype: str, pj: float) -> None:
    assert spared({dtype: 10}, dear()) == pytest.approx(10 * pj * LOGIC * 1e-12, rel=1e-12)


def test_bytes_of_each_level_are_told_apart() -> None:
    """Each event's number is another: none is taken for another's."""
    levels = [f.name for f in fields(Traffic) if f.name != "host_bytes"]  # which no command moves
    for at, name in enumerate(levels):
        moved = asdict(traffic(Totals(one(name))))
        assert [moved[x] for x in levels] == [int(i == at) for i in range(len(levels))]


def test_standing_power_is_what_was_worked_out() -> None:
    """0.02 W/mm2, 1.5 V squared, 20 C above 70 twice that; 30 pF/mm2 x 2.25 V2 x 1 GHz."""
    power, mm2 = asdict(standing(dear())), area(dear()).total_mm2
    some = {"static": mm2 * 0.02 * 2.25 * 2 + 0.25, "clock": 30e-12 * mm2 * 2.25 * 1e9, "dram": 0.125}
    assert power == pytest.approx(dict.fromkeys(power, 0.0) | some, rel=1e-12)


def test_every_price_of_a_chip_is_worked_out() -> None:
    assert set(DEAR) == set(Energy.model_fields)


def test_a_command_costs_what_was_worked_out() -> None:
    """Pooling with weights: 160 passes, 160 B out of local memory and 224 into it, 832 B of DRAM ..."""
    x = WORKED["pool with weights"]
    pj = {"compute": 160 * 1.0, "local": 160 * 0.74 + 224 * 0.87, "sram": 40 * 8.2, "dram": 832 * 48.0}
    pj |= {"noc": 608 * 1.7, "control": 300.0, "static": 0.0, "clock": 0.0}
    found = costs(x.block, events(x.block, x.chip), x.chip)
    assert found == pytest.approx({part: n * 1e-12 for part, n in pj.items()}, rel=1e-12)


@settings(max_examples=40)
@given(BLOCKS, st.sampled_from(PRICES), st.floats(1, 4))
def test_joules_rise_with_every_price(case: Case, price: tuple[str, str], factor: float) -> None:
    (chip, block), (key, part) = case, price
    dear = with_energy(chip, **{key: getattr(chip.energy, key) * factor})
    low, high = (costs(block, events(block, c), c) for c in (chip, dear))
    assert all(0 <= low[name] <= high[name] for name in low)
    assert key.endswith("voltage_v") or all(low[name] == high[name] for name in low if name != part)


@settings(max_examples=30)
@given(BLOCKS, st.floats(0.5, 2))
def test_events_cost_the_square_of_the_voltage(case: Case, factor: float) -> None:
    chip, block = case
    e = chip.energy
    other = with_energy(chip, voltage_v=e.voltage_v * factor, memory_voltage_v=e.memory_voltage_v * factor)
    low, high = (costs(block, events(block, c), c) for c in (chip, other))
    for name in low:
        assert math.isclose(high[name], low[name] * (1 if name == "dram" else factor**2), rel_tol=1e-9)


@settings(max_examples=20)
@given(BLOCKS, st.sampled_from(["local_price_bytes", "sram_price_bytes"]), st.floats(0, 1))
def test_joules_fall_as_the_memory_of_a_price_grows(case: Case, key: str, share: float) -> None:
    """Whose price holds at a larger memory has a smaller one, which costs less."""
    chip, block = case
    other = with_energy(chip, **{key: int(share * getattr(chip.energy, key))})
    low, high = (costs(block, events(block, c), c) for c in (chip, other))
    assert all(low[name] <= high[name] for name in low)


def test_short_runs_pay_for_the_rows_that_they_open() -> None:
    """A run of 64 B opens half of a row each time (tRAS and the queue decide), a stream a row once."""
    chip = with_energy(load_chip("mtia-2i"), dram_activate_pj=1000.0)
    free = with_energy(chip, dram_activate_pj=0.0)
    ev, found = one("dram_read_bytes"), []
    for run_bytes in (64.0, 2048.0, 1e9):
        ev.run_bytes[:] = run_bytes
        found.append(dynamic(Totals(ev), chip).dram - dynamic(Totals(ev), free).dram)
        expected = chip.dram_timing.more_activates_per_byte(np.array([run_bytes]), chip.dram.channels)[0]
        assert found[-1] == pytest.approx(expected * 1000e-12, abs=1e-20)
    assert found[0] >= found[1] > found[2] == 0


def test_code_beside_the_data_costs_what_reading_it_does() -> None:
    """A stream has a burst of code to eight of data, a run of 64 B one to two."""
    coded, plain = load_chip("mtia-2i"), load_chip("mtia-2i", {"dram.ecc_data_bytes": 0})
    coded, plain = (with_energy(x, dram_activate_pj=0.0) for x in (coded, plain))
    ev = one("dram_read_bytes")
    for run_bytes, share in ((1e9, 1 / 8), (64.0, 1 / 2)):
        ev.run_bytes[:] = run_bytes
        more = dynamic(Totals(ev), coded).dram / dynamic(Totals(ev), plain).dram - 1
        assert more == pytest.approx(share, rel=0.01)


@given(st.integers(1, 16), st.integers(1, 16), st.integers(1, 16))
def test_a_chip_that_holds_more_never_rests_on_less(rows: int, cols: int, factor: int) -> None:
    less, more = (
        standing(load_chip("mtia-2i", {"grid.rows": n, "grid.cols": cols})) for n in (rows, factor * rows)
    )
    assert less.static <= more.static and less.clock <= more.clock


def test_static_power_is_the_sum_of_its_components() -> None:
    chip = load_chip("mtia-2i")
    power, mm2 = standing(chip), asdict(area(chip))
    leaks, clocks = leakage_w(chip), clock_w(chip)
    assert sum(leaks.values()) + chip.energy.link_w == pytest.approx(power.static)
    assert sum(clocks.values()) == pytest.approx(power.clock)
    assert all(leaks[n] / leaks["sram"] == pytest.approx(mm2[n] / mm2["sram"]) for n in mm2)
    assert list(leaks) == list(clocks) == list(mm2)


def test_asleep_a_chip_leaks_at_its_least_supply() -> None:
    """MTIA 2i: leakage at 0.65 V in place of 0.85, no clock, links and DRAM held up."""
    chip = load_chip("mtia-2i")
    leaks = sum(leakage_w(chip).values()) * (0.65 / 0.85) ** 2
    assert asleep_w(chip) == pytest.approx(leaks + chip.energy.link_w + chip.energy.dram_idle_w)
    assert asleep_w(chip.at_clock(1e6)) == asleep_w(chip) < standing(chip).total


@pytest.mark.parametrize("key", STANDING)
def test_standing_power_rises_with_each_of_its_causes(key: str) -> None:
    chip = load_chip("mtia-1")
    low, high = standing(chip), standing(with_energy(chip, **{key: getattr(chip.energy, key) * 1.5}))
    assert all(getattr(low, f.name) <= getattr(high, f.name) for f in fields(Joules))
    assert low.total < high.total


@pytest.fixture(scope="module")
def program() -> Program:
    """Return a small recommender, with weights, for the tiny chip."""
    return mtia_emu.compile_model("zoo:dlrm-small", "tiny", dims={"batch": 4}, seed=0)


def test_the_breakdown_sums_to_the_total(program: Program) -> None:
    full = report(program, load_chip("tiny"))
    assert full.joules == sum(asdict(full.joules_by).values())
    assert math.fsum(layer.joules for layer in full.layers) == pytest.approx(full.joules, rel=1e-12)


def test_static_energy_is_power_times_time(program: Program) -> None:
    chip = with_energy(load_chip("tiny"), clock_pf_per_mm2=40.0, dram_idle_w=0.5, link_w=0.25)
    slow = with_energy(load_chip("tiny", {"launch.first_s": 1e-3}), **chip.energy.model_dump())
    one, two = report(program, chip), report(program, slow)
    power = standing(chip)
    assert one.joules_by.static == pytest.approx(power.static * one.seconds, rel=1e-9)
    assert one.joules_by.clock == pytest.approx(power.clock * one.seconds, rel=1e-9)
    waited = two.seconds - one.seconds
    assert waited > 5e-4
    assert two.joules - one.joules == pytest.approx(power.total * waited, rel=1e-6)


def run_with(program: Program, inputs: dict[str, np.ndarray]) -> tuple[Report, Report, dict[str, int]]:
    """Return the report without and with the zeros of an execution, and their counts."""
    chip = load_chip("tiny")
    done = execute(program, chip, inputs, core_library())
    counts: dict[str, int] = {}
    for found in (band for bands in done.zero_macs.values() for band in bands):
        for name, count in found.items():
            counts[name] = counts.get(name, 0) + count
    plain = report(program, chip, done.lookups)
    return plain, report(program, chip, done.lookups, done.zero_macs), counts


def gemm_program(tmp: object, zero_share: float) -> tuple[Program, dict[str, np.ndarray]]:
    """Return an fp16 product with a share of zeros in its left side."""
    from mtia_emu import api
    from mtia_emu.zoo.operators import Gemm

    with api.operator_source(Gemm(24, 40, 16, "fp16"), 0) as source:
        made = api.keep_weights(api.compile_stages(source, load_chip("tiny")).program)
    rng = np.random.default_rng(0)
    a = rng.standard_normal((24, 40)).astype(np.float16)
    a[rng.random(a.shape) < zero_share] = 0
    return made, {"a": a}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_zeros_spare_what_their_price_says(share: float, tmp_path: object) -> None:
    program, inputs = gemm_program(tmp_path, share)
    plain, gated, counts = run_with(program, inputs)
    zeros = int((inputs["a"] == 0).sum()) * 16  # random weights hold no zero
    assert counts.get("fp16", 0) == zeros <= plain.macs
    chip = load_chip("tiny")
    saved = plain.joules_by.compute - gated.joules_by.compute
    assert saved == pytest.approx(spared({"fp16": zeros}, chip), rel=1e-6, abs=1e-18)
    assert gated.joules_by.compute >= plain.macs * chip.energy.zero_mac_pj["fp16"] * 1e-12 * 0.999
    assert asdict(gated.joules_by) | {"compute": 0} == asdict(plain.joules_by) | {"compute": 0}
    assert gated.cycles == plain.cycles  # zeros save no time


def test_a_run_with_data_counts_its_zeros() -> None:
    timed = mtia_emu.run("zoo:dlrm-small", "tiny", dims={"batch": 4}, gpu=None).report
    ran = mtia_emu.run("zoo:dlrm-small", "tiny", dims={"batch": 4}, gpu=None, check=True).report
    assert ran.joules_by.compute < timed.joules_by.compute  # what ReLU leaves is half zeros
