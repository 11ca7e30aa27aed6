"""The roofline: every layer stands on it, under the roofs."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from relayered import relayered
from rich.console import Console

from mtia_emu.results.report import Report
from mtia_emu.results.roofs import Roofs
from mtia_emu.view.page import Page
from mtia_emu.view.roofline import Roofline, chart, roofline_of

ROOFS = Roofs("fp16", 177e12, 2.76e12, 204.8e9, 2.7e12)


def drawn(line: Roofline, width: int = 80, *, encoding: str = "utf-8") -> list[str]:
    class File(io.StringIO):
        pass

    File.encoding = encoding  # type: ignore[assignment, misc]
    console = Console(file=File(), width=width, color_system=None)
    return [text.plain for text in chart(Page(console), line)]


def test_every_layer_is_a_point(report: Report) -> None:
    line = roofline_of(report, ROOFS)
    assert sum(point.layers for point in line.points) == len(report.layers)
    assert sum(point.share for point in line.points) == pytest.approx(
        sum(x.end_cycle - x.start_cycle for x in report.layers) / report.cycles
    )
    products = [point for point in line.points if point.intensity > 1]
    assert [point.layers for point in products] == [4, 4, 4]  # four equal blocks
    assert products[0].intensity == 128.0 and products[0].memory == "dram"
    assert products[2].memory == "sram"


def test_a_layer_that_only_moves_stands_by_its_bandwidth(report: Report) -> None:
    line = roofline_of(report, ROOFS)
    norm = report.layers[2]
    seconds = (norm.end_cycle - norm.start_cycle) / report.clock_hz
    rate = norm.sram_bytes / seconds / ROOFS.sram_bytes_per_s
    points = [
        p
        for p in line.points
        if p.moves and p.rate == pytest.approx(rate * line.roof(line.low, "sram"), rel=0.01)
    ]
    assert points and points[0].intensity == line.low


def test_a_layer_without_traffic_is_no_point(report: Report) -> None:
    still = replace(report.layers[0], dram_bytes=0, sram_bytes=0)
    line = roofline_of(relayered(report, [still]), ROOFS)
    assert line.points == ()
    assert drawn(line)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_chart_fits_and_shows_every_bound(report: Report, width: int) -> None:
    lines = drawn(roofline_of(report, ROOFS), width)
    assert max(map(len, lines[:-2])) <= width
    picture = "\n".join(lines[:-2]).replace("op/s", "").lower()
    assert lines[-1] == "bound by: d dram, a array, s simd, n noc"
    assert {letter for letter in "adns" if letter in picture} == set("adns")
    assert "D" in "".join(lines[:-2])  # more than a tenth of the time


def test_the_chart_in_ascii(report: Report) -> None:
    assert "".join(drawn(roofline_of(report, ROOFS), encoding="ascii")).isascii()


def test_points_of_layers_that_take_their_roofs_time_stand_on_the_roof(report: Report) -> None:
    layer = report.layers[1]
    clock = 1e9
    cycles = round(layer.dram_bytes / ROOFS.dram_bytes_per_s * clock)
    ideal = replace(layer, ops=layer.dram_bytes * 10, start_cycle=0, end_cycle=cycles)
    line = roofline_of(relayered(report, [ideal], cycles, clock), ROOFS)
    (point,) = line.points
    assert point.rate == pytest.approx(line.roof(10, "dram"), rel=0.01)
