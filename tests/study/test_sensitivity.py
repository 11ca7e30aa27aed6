"""Steps of a chip's parameters, and what they change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mtia_emu
from mtia_emu.engine.launches import Counts
from mtia_emu.engine.run import report as make_report
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import Chip, chip_names, load_chip, put, validate
from mtia_emu.program.isa import Program
from mtia_emu.results.explanation import Effect, ParameterStep
from mtia_emu.study.sensitivity import FACTS, LIMIT, better, effects, less_is_better, steps, varied


@pytest.fixture(scope="module")
def program() -> Program:
    return mtia_emu.compile_model("zoo:dlrm-small", "tiny", dims={"batch": 4})


def changed(chip: Chip, step: ParameterStep) -> Chip:
    values = chip.model_dump()
    put(values, step.key, step.new)
    return validate(values, chip.name)


@given(st.integers(1, 1 << 40), st.booleans())
def test_whole_numbers_move_by_about_a_tenth(old: int, less: bool) -> None:
    new = better(old, less=less)
    assert isinstance(new, int) and (new < old if less else new > old)
    assert abs(new - old) == 1 or 0.066 <= abs(new - old) / old <= 0.134
    assert new >= 0


@given(st.floats(1e-9, 1e15), st.booleans())
def test_other_numbers_move_by_a_tenth(old: float, less: bool) -> None:
    assert better(old, less=less) == pytest.approx(old * (0.9 if less else 1.1), rel=1e-5)


@pytest.mark.parametrize("name", chip_names())
def test_every_number_of_a_chip_file_has_a_step(name: str) -> None:
    from mtia_emu.study.listing import chip_parameters

    chip = load_chip(name)
    found = {step.key: step for step in steps(chip, ["int8", "fp16"])}
    for p in chip_parameters(name):
        number = isinstance(p.value, (int, float)) and not isinstance(p.value, bool) and p.value
        outside = p.key.startswith(("package.", "system.", "network."))
        if (
            not number
            or outside
            or p.key in FACTS | {"pe.matrix.stationary_buffers"}
            or p.key.endswith("_bytes")
        ):
            assert p.key not in found
        elif p.key.rpartition(".")[0] in ("pe.matrix.rates", "energy.mac_pj", "energy.zero_mac_pj"):
            assert (p.key in found) == (p.key.rpartition(".")[2] in ("int8", "fp16", "fp32"))
        elif p.key not in found:
            with pytest.raises(UserError):  # it is at its limit
                load_chip(name, {p.key: 2 * p.value})
        else:
            step = found[p.key]
            less = less_is_better(p.unit) and p.key != LIMIT
            assert step.old == p.value and (step.new < step.old) == less, p.key
            assert abs(step.fraction) <= 1


def test_shapes_are_doubled_and_limits_kept() -> None:
    found = {step.key: step for step in steps(load_chip("mtia-2i"), ["fp16"])}
    assert (found["pe.matrix.rows"].old, found["pe.matrix.rows"].new) == (32, 64)
    assert (found["dram.channels"].old, found["dram.channels"].new) == (16, 18)
    assert "pe.reduce.bank_rows" not in {step.key for step in steps(load_chip("systolic"), ["fp16"])}
    assert (found["launch.replace_s"].old, found["launch.replace_s"].new) == (0.5e-6, 0.45e-6)
    assert found["sram.bytes"].kind == found["grid.rows"].kind == "recompiled"
    assert found["clock_hz"].kind == found["dram.channels"].kind == "retimed"


def test_a_retimed_step_changes_no_count(program: Program) -> None:
    chip = load_chip("tiny")
    kernels = {program.blocks[launch.block].kernel: i for i, launch in enumerate(program.launches)}
    base = {index: vars(Counts(program, chip).of(index)) for index in kernels.values()}
    for step in steps(chip, ["fp16"]):
        if step.kind != "recompiled":
            counts = Counts(program, changed(chip, step))
            for index, expected in base.items():
                found = vars(counts.of(index))
                assert all(np.array_equal(found[name], expected[name]) for name in expected), step.key


def test_effects_are_those_of_the_changed_chip_in_order(program: Program) -> None:
    chip = load_chip("tiny")
    base = make_report(program, chip)
    todo = [step for step in steps(chip, ["fp16"]) if step.kind != "recompiled"]
    found = effects(todo, base, [make_report(program, varied(chip)(x.key, x.new)) for x in todo])
    ranks = [abs(e.per_tenth(e.seconds_change)) for e in found]
    assert ranks == sorted(ranks, reverse=True) and ranks[0] > 0
    for e in found[::4]:
        report = make_report(program, changed(chip, e.step))
        assert e.seconds_change == pytest.approx(report.seconds / base.seconds - 1)
        assert e.joules_change == pytest.approx(report.joules / base.joules - 1)
    by_key = {e.step.key: e for e in found}
    static = by_key["energy.leakage_w_per_mm2"]
    assert static.seconds_change == 0
    most = 0.1 * base.joules_by.static / base.joules  # the rest of it is links
    assert -most * (1 + 1e-9) <= static.joules_change < 0


def test_a_refused_step_says_why(program: Program) -> None:
    chip = load_chip("tiny")
    step = next(step for step in steps(chip, []) if step.key == "sram.bytes")
    refused = UserError("it needs 5 bytes more")
    assert effects([step], make_report(program, chip), [refused]) == (
        Effect(step, refused="it needs 5 bytes more"),
    )


def test_a_step_is_what_a_run_with_the_setting_has() -> None:
    """Where a chip leaves its channels to its memory, more bytes bring more of both, in a run and here."""
    chip, own = {"dram.device": "hbm3"}, load_chip("mtia-2i", {"dram.device": "hbm3"})
    more = varied("mtia-2i", chip)("dram.bytes", 2 * own.dram.bytes)
    assert more == load_chip("mtia-2i", chip | {"dram.bytes": 2 * own.dram.bytes})
    assert (
        more.dram.channels > own.dram.channels == varied(own)("dram.bytes", 2 * own.dram.bytes).dram.channels
    )
    (step,) = (x for x in steps(own, []) if x.key == "dram.bytes")
    explained = mtia_emu.api.explain("zoo:dlrm-small", "mtia-2i", settings=chip, dims={"batch": 4})
    (effect,) = (e for e in explained.effects or () if e.step == step)
    runs = [
        mtia_emu.run("zoo:dlrm-small", "mtia-2i", settings=x, dims={"batch": 4}, gpu=None).report
        for x in (chip, chip | {"dram.bytes": step.new})
    ]
    assert effect.joules_change == pytest.approx(runs[1].joules / runs[0].joules - 1) and effect.joules_change
