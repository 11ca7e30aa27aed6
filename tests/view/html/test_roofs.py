"""The roofline as a figure: points under their roofs, as large as their share of the time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mtia_emu.results.report import Report
from mtia_emu.results.roofs import Roofs
from mtia_emu.view.html.elements import markup
from mtia_emu.view.html.roofs import MOST_POINTS, RooflineChart
from mtia_emu.view.roofline import Roofline, RooflinePoint, roofline_of

ROOFS = Roofs("fp16", 1.77e14, 5.5e12, 3.0e11, 2.7e12)


def point(rate: float, share: float = 0.01, memory: str = "dram") -> RooflinePoint:
    return RooflinePoint(10.0, rate, "dram", memory, False, share, 3)


def chart(*points: RooflinePoint) -> RooflineChart:
    return RooflineChart("Roofline", "All.", Roofline(ROOFS, points, 0.1, 1e4), ("dram",))


def test_area_is_the_share_of_the_time() -> None:
    spots = list(chart(point(1e12, 0.64), point(1e11, 0.16), point(1e10, 0.0)).draw(720.0).iter("circle"))
    radii = sorted(float(s.get("r", "0")) for s in spots)
    assert radii == pytest.approx([3.0, 3.0 + 11.0 * 0.4, 3.0 + 11.0 * 0.8], abs=0.01)


def test_no_spot_is_above_the_roof_of_its_memory(report: Report) -> None:
    line = roofline_of(report, ROOFS)
    drawn = RooflineChart("Roofline", "All.", line, tuple({p.bound_by for p in line.points}))
    assert drawn.rows() and all(p.rate <= line.roof(p.intensity, p.memory) * 1.01 for p in drawn.shown)
    text = markup(drawn.draw(380.0))
    assert "DRAM 300 GB/s" in text and "SRAM 2.70 TB/s" in text
    assert math.isfinite(line.low)


def test_what_needs_no_dram_is_hollow_and_points_are_few() -> None:
    text = markup(chart(point(1e12, memory="sram")).draw(720.0))
    assert "spot s1 hollow" in text
    many = chart(*(point(1e9 + n) for n in range(3 * MOST_POINTS)))
    assert len(many.rows()) == MOST_POINTS == markup(many.draw(720.0)).count("<circle")


def test_a_kind_without_a_colour_of_its_own_has_the_last_ones() -> None:
    other = replace(point(1e12), bound_by="odd")
    drawn = RooflineChart("Roofline", "All.", Roofline(ROOFS, (other,), 0.1, 1e4), ("dram", "others"))
    assert "spot s2" in markup(drawn.draw(720.0))
