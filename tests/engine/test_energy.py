"""Joules: they sum, never fall below zero, rise with every price, and zeros in the data spare some."""

from __future__ import annotations

import math
from dataclasses import asdict, fields

import numpy as np
import pytest
from blocks import BLOCKS
from hypothesis import given, settings
from hypothesis import strategies as st

import mtia_emu
from mtia_emu.api import core_library
from mtia_emu.engine.energy import dynamic, spared, standing
from mtia_emu.engine.events import events
from mtia_emu.engine.function import execute
from mtia_emu.engine.run import report
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.isa import Block, Program
from mtia_emu.results.report import Joules, Report

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


@settings(max_examples=40)
@given(BLOCKS, st.sampled_from(PRICES), st.floats(1, 4))
def test_joules_rise_with_every_price(case: Case, price: tuple[str, str], factor: float) -> None:
    (chip, block), (key, part) = case, price
    dear = with_energy(chip, **{key: getattr(chip.energy, key) * factor})
    low, high = (asdict(dynamic(block, events(block, c), c)) for c in (chip, dear))
    assert all(0 <= low[name] <= high[name] for name in low)
    assert key.endswith("voltage_v") or all(low[name] == high[name] for name in low if name != part)


@settings(max_examples=30)
@given(BLOCKS, st.floats(0.5, 2))
def test_events_cost_the_square_of_the_voltage(case: Case, factor: float) -> None:
    chip, block = case
    e = chip.energy
    other = with_energy(chip, voltage_v=e.voltage_v * factor, memory_voltage_v=e.memory_voltage_v * factor)
    low, high = (asdict(dynamic(block, events(block, c), c)) for c in (chip, other))
    for name in low:
        assert math.isclose(high[name], low[name] * (1 if name == "dram" else factor**2), rel_tol=1e-9)


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
