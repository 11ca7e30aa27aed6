"""How busy units and tracks are over time: in all, as long as their commands and layers take."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import mtia_emu
from mtia_emu.engine.launches import costs
from mtia_emu.engine.run import report as make_report
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.commands import QUEUES
from mtia_emu.program.isa import Program
from mtia_emu.results.spans import Track
from mtia_emu.study.activity import PARTS, bounds_over_time, track_activity, unit_activity

TINY = load_chip("tiny")


@pytest.fixture(scope="module")
def program() -> Program:
    return mtia_emu.compile_model("zoo:dlrm-small", TINY, dims={"batch": 2})


def test_units_are_busy_as_long_as_their_commands_take(program: Program) -> None:
    lanes = {lane.name: lane for lane in unit_activity(program, TINY)}
    report, each = make_report(program, TINY), [c.time for c in costs(program, TINY)]
    assert next(iter(lanes)) == "launch" and all(len(lane.shares) == PARTS for lane in lanes.values())
    edges = np.linspace(0.0, report.cycles, PARTS + 1)
    begins = [x.end_cycle - c.cycles for x, c in zip(report.layers, costs(program, TINY), strict=True)]
    for number, queue in enumerate(QUEUES):
        starts, ends = (
            np.concatenate(
                [(getattr(t, name) + at)[t.unit == number] for t, at in zip(each, begins, strict=True)]
            )
            for name in ("start", "end")
        )
        under = [(np.minimum(ends, b) - np.maximum(starts, a)).clip(0.0).sum() for a, b in pairwise(edges)]
        instances = 1 if queue.chip_wide else TINY.pes
        share = np.minimum(np.array(under) / (edges[1] * instances), 1.0)
        if queue.name in lanes:
            np.testing.assert_allclose(lanes[queue.name].shares, share, atol=2e-4)
        assert (queue.name in lanes) == bool(len(starts))
    started = sum(x.cycles for x in report.layers) - sum(c.cycles for c in costs(program, TINY))
    assert lanes["launch"].mean * report.cycles == pytest.approx(started, rel=1e-3)


def test_a_track_is_busy_while_any_layer_runs_on_it(program: Program) -> None:
    report = make_report(program, TINY)
    (lane,) = track_activity(report)
    assert lane.mean == pytest.approx(1.0, abs=1e-3)  # launches follow one another without a rest
    (stretch,) = report.stretches
    first = stretch.layers[0]
    link = Track("links", 2 * first.track.clock_hz)
    beside = replace(first, track=link)  # as many ticks, each half as long
    both = replace(
        report,
        tracks=(*report.tracks, link),
        stretches=(replace(stretch, layers=(first, beside, replace(first, name="twin"))),),
    )
    chip, links = track_activity(both)
    assert chip.mean == pytest.approx(first.span_s / report.seconds, abs=1e-3)  # a twin adds nothing
    assert links.mean == pytest.approx(chip.mean / 2, abs=1e-3)


def test_each_part_of_the_time_is_bound_by_what_bounds_most_of_it(program: Program) -> None:
    report = make_report(program, TINY)
    strip = bounds_over_time(report)
    clock = report.seconds / PARTS * report.clock_hz
    assert len(strip) == PARTS
    for number in range(0, PARTS, 7):
        sums: dict[str, float] = {}
        for x in report.layers:
            under = min(x.end_cycle, (number + 1) * clock) - max(x.start_cycle, number * clock)
            sums[x.bound_by] = sums.get(x.bound_by, 0.0) + max(under, 0.0)
        assert sums[strip[number]] == pytest.approx(max(sums.values()))


def test_nothing_runs_in_an_empty_report(program: Program) -> None:
    report = make_report(program, TINY)
    empty = replace(report, stretches=(replace(report.stretches[0], layers=()),))
    assert set(bounds_over_time(empty)) == {""} and not np.any(track_activity(empty)[0].shares)
