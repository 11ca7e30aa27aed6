"""What launches cost: equal ones once, others each by itself."""

from __future__ import annotations

import numpy as np
import pytest

import mtia_emu
from mtia_emu.engine.launches import Counts, costs, untimed_costs
from mtia_emu.engine.run import report
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.census import looks_up
from mtia_emu.program.isa import Program
from mtia_emu.study.lookups import known_lookups

CHIP = load_chip("tiny")


@pytest.fixture(scope="module")
def program() -> Program:
    return mtia_emu.compile_model("zoo:dlrm-small", CHIP, dims={"batch": 4})


def test_launches_of_a_block_share_a_cost_but_where_data_differ(program: Program) -> None:
    lookups = known_lookups(program)
    each = costs(program, CHIP, lookups)
    for i, a in enumerate(program.launches):
        for j, b in enumerate(program.launches[:i]):
            shared = a.block == b.block and i not in lookups and j not in lookups
            assert (each[i] is each[j]) == shared
    assert lookups and all(looks_up(program.blocks[program.launches[i].block]) for i in lookups)


def test_counts_that_are_kept_are_counted_once(program: Program) -> None:
    kept, fresh = Counts(program, CHIP, keep=True), Counts(program, CHIP)
    assert kept.of(0) is kept.of(0) and fresh.of(0) is not fresh.of(0)
    np.testing.assert_array_equal(kept.of(0).macs, fresh.of(0).macs)


def test_costs_of_given_counts_are_those_of_the_program(program: Program) -> None:
    counts = Counts(program, CHIP, keep=True)
    for one, other in zip(costs(program, CHIP), costs(program, CHIP, counts=counts), strict=True):
        assert (one.cycles, one.joules, one.traffic) == (other.cycles, other.joules, other.traffic)


def test_what_is_untimed_costs_the_same_and_keeps_no_times(program: Program) -> None:
    lookups = known_lookups(program)
    whole, bare = costs(program, CHIP, lookups), untimed_costs(program, CHIP, lookups)
    assert [repr(x.untimed()) for x in whole] == [repr(x) for x in bare]
    assert sum(len(x.time.end) for x in whole) > 0 == sum(len(x.time.end) for x in bare)
    assert report(program, CHIP, each=bare) == report(program, CHIP, lookups)
    first = {}
    for launch, cost in zip(program.launches, bare, strict=True):
        if not looks_up(program.blocks[launch.block]):
            assert first.setdefault(launch.block, cost) is cost
