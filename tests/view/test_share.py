"""Time divided among layers that may overlap."""

from __future__ import annotations

from dataclasses import replace

import pytest
from relayered import relayered

from mtia_emu.results.report import Layer, Report
from mtia_emu.results.spans import Track, own_ticks
from mtia_emu.view.share import overlaps, seconds_by_bound

TRACK = Track("c", 10.0)


def layer(start: int, end: int, bound: str = "dram") -> Layer:
    return Layer("x", "matmul", "k", start, end, 0, 0, 0, 0.0, bound, track=TRACK)


def test_overlaps() -> None:
    assert not overlaps([layer(0, 10), layer(10, 12), layer(5, 5)])
    assert overlaps([layer(0, 10), layer(9, 12)])


def test_bounds_and_gaps_sum_to_the_run(report: Report) -> None:
    spans = [(0, 10, "dram"), (5, 15, "matrix"), (20, 30, "dram")]
    own = own_ticks([a for a, _, _ in spans], [b for _, b, _ in spans])
    layers = [replace(layer(*x), own=ticks) for x, ticks in zip(spans, own, strict=True)]
    run = relayered(report, layers, cycles=40, clock_hz=10.0)
    assert seconds_by_bound(run) == pytest.approx({"dram": 1.75, "matrix": 0.75, "between layers": 1.5})
    assert list(seconds_by_bound(run))[-1] == "between layers"
    assert sum(seconds_by_bound(report).values()) == pytest.approx(report.seconds)
