"""Time divided among layers that may overlap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mtia_emu.results.report import Layer, Report, own_cycles
from mtia_emu.view.share import overlaps, seconds_by_bound


def layer(start: int, end: int, bound: str = "dram") -> Layer:
    return Layer("x", "matmul", "k", start, end, 0, 0, 0, 0.0, bound)


@pytest.mark.parametrize(
    ("spans", "own"),
    [
        ([], []),
        ([(0, 10)], [10]),
        ([(0, 10), (10, 15)], [10, 5]),
        ([(0, 10), (4, 8)], [8, 2]),
        ([(0, 10), (0, 10), (0, 10)], [10 / 3] * 3),
        ([(5, 5), (0, 10)], [0, 10]),
        ([(8, 12), (0, 10)], [3, 9]),
        ([(4, 2)], [0]),
    ],
)
def test_own_cycles(spans: list[tuple[int, int]], own: list[float]) -> None:
    assert own_cycles([layer(*span) for span in spans]) == pytest.approx(own)


def test_overlaps() -> None:
    assert not overlaps([layer(0, 10), layer(10, 12), layer(5, 5)])
    assert overlaps([layer(0, 10), layer(9, 12)])


def test_bounds_and_gaps_sum_to_the_run(report: Report) -> None:
    layers = (layer(0, 10, "dram"), layer(5, 15, "matrix"), layer(20, 30, "dram"))
    run = replace(report, layers=layers, cycles=40, clock_hz=10.0)
    assert seconds_by_bound(run) == pytest.approx({"dram": 1.75, "matrix": 0.75, "between layers": 1.5})
    assert list(seconds_by_bound(run))[-1] == "between layers"
    assert sum(seconds_by_bound(report).values()) == pytest.approx(report.seconds)
