"""A stream of look-ups warms a cache until it serves as many run after run, and goes from run to run."""

from __future__ import annotations

from dataclasses import replace

import pytest

import mtia_emu
from mtia_emu import api
from mtia_emu.engine.lookups import Lookups, row_cache
from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Program
from mtia_emu.sources import Source
from mtia_emu.study.lookups import example_lookups
from mtia_emu.study.settle import CLOSE, WINDOW, settle
from mtia_emu.zoo.operators import Tbe

SMALL = {"sram.bytes": 3 << 20, "sram.granule_bytes": 1 << 20}
BAGS = Tbe(4, 20_000, 64, 20, 64, "fp16", "zipf:1.05")


def compiled(source: Source) -> tuple[Program, Chip]:
    chip = mtia_emu.load_chip("mtia-2i", SMALL)
    return api.compile_stages(source, chip, state="warm").program, chip


def test_hit_rates_rise_and_settle_where_the_steady_state_is() -> None:
    with api.operator_source(BAGS, None) as source:
        program, chip = compiled(source)
        end = settle(program, chip, lambda run: example_lookups(source, program, run))
        solved = api.run_program(program, chip, lookups=example_lookups(source, program), gpu=None).report
        carried = api.run_program(
            program, chip, lookups=example_lookups(source, program, 99), cache=end.cache, gpu=None
        ).report
    assert end.settled and 2 * WINDOW <= len(end.hit_rates) < 100
    assert end.hit_rates[0] < end.hit_rates[-1] - 10 * CLOSE
    assert solved.served is not None and carried.served is not None
    assert carried.served.row_hit_rate == pytest.approx(end.hit_rates[-1], abs=0.02)
    assert solved.served.row_hit_rate == pytest.approx(end.hit_rates[-1], abs=0.03)


def test_a_cache_goes_from_run_to_run() -> None:
    """The same rows again: all of them are there, as 3 MB hold what one run asks for."""
    with api.operator_source(BAGS, None) as source:
        program, chip = compiled(source)
        rows = example_lookups(source, program)
        cache = row_cache(program, chip)
        first, second = (
            api.run_program(program, chip, lookups=rows, cache=cache, gpu=None).report for _ in range(2)
        )
        cold = replace(program, state="cold")
        empty = api.run_program(cold, chip, lookups=rows, gpu=None).report
    assert first.served == empty.served and first.seconds == empty.seconds
    assert second.served is not None and second.served.row_hit_rate == pytest.approx(1.0, abs=0.02)
    assert second.seconds < first.seconds


def test_without_a_cache_there_is_nothing_to_warm() -> None:
    chip = mtia_emu.load_chip("tiny")
    program = mtia_emu.compile_model("zoo:dlrm-small", chip, dims={"batch": 2})

    def stream(run: int) -> dict[int, Lookups]:
        raise AssertionError(run)

    end = settle(program, chip, stream)
    assert end.cache is None and end.hit_rates == () and not end.settled
