"""Time divided among layers that may overlap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mtia_emu.results.report import Layer, Report
from mtia_emu.view.share import overlaps, seconds_by_bound


def layer(start: int, end: int, bound: str = "dram") -> Layer:
    return Layer("x", "matmul", "k", start, end, 0, 0, 0, 0.0, bound)


def test_overlaps() -> None:
    assert not overlaps([layer(0, 10), layer(10, 12), layer(5, 5)])
    assert overlaps([layer(0, 10), layer(9, 12)])


def test_bounds_and_gaps_sum_to_the_run(report: Report) -> None:
    layers = (layer(0, 10, "dram"), layer(5, 15, "matrix"), layer(20, 30, "dram"))
    run = replace(report, layers=layers, cycles=40, clock_hz=10.0)
    assert seconds_by_bound(run) == pytest.approx({"dram": 1.75, "matrix": 0.75, "between layers": 1.5})
    assert list(seconds_by_bound(run))[-1] == "between layers"
    assert sum(seconds_by_bound(report).values()) == pytest.approx(report.seconds)
