"""Time divided among layers that may overlap."""

from __future__ import annotations

from dataclasses import replace

import pytest
from relayered import relayered

from mtia_emu.results.report import Layer, Report
from mtia_emu.results.spans import Track, own_ticks
from mtia_emu.view.share import overlaps, second_bottleneck, seconds_by_bound

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


def test_the_second_bottleneck_is_of_all_layers(report: Report) -> None:
    """10 ticks of which 6 are left, 30 of which 12 are: 18 of 40, the rest is slack."""
    spans = [(0, 10, "array", 0.4), (10, 40, "sram", 0.6)]
    layers = [replace(layer(a, b), next_bound=then, slack=slack) for a, b, then, slack in spans]
    found = second_bottleneck(relayered(report, layers, cycles=50, clock_hz=10.0))
    assert found is not None and found.name == "sram"
    assert found.slack == pytest.approx(22 / 40) and found.seconds_left == pytest.approx(1.8)


def test_no_second_bottleneck_is_made_up(report: Report) -> None:
    layers = [replace(layer(0, 10), next_bound="sram", slack=0.5), layer(10, 20)]
    assert second_bottleneck(relayered(report, layers, cycles=20, clock_hz=10.0)) is None
    assert second_bottleneck(relayered(report, [], cycles=20, clock_hz=10.0)) is None
