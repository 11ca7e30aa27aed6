"""Charts of every kind, and the browser's module."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from mtia_emu.view.html.bars import BarChart, Period, StackedBar, TimeChart, Tornado, TornadoBar
from mtia_emu.view.html.frame import Chart
from mtia_emu.view.html.heat import HeatMap
from mtia_emu.view.html.lines import Line, LineChart, Marked, ScatterChart, Spot
from mtia_emu.view.html.sankey import Ribbon, Sankey
from mtia_emu.view.html.scales import ChartAxis, dollars, share

sys.path.append(str(Path(__file__).parents[2]))

NPV = ChartAxis("NPV", "$", show=dollars)
HOSTILE = "</title><script>alert('PWNED')</script>\x00\u202e&amp;"


def _lines() -> LineChart:
    across = [10 ** (4 + i / 20) for i in range(41)]
    odds = [1 / (1 + (99e3 / v) ** 3) for v in across]
    axes = (
        ChartAxis("volume", "GPU-equivalents", log=True),
        ChartAxis("chance of a gain", "share", show=share),
    )
    both = (Line("prior", across, odds), Line(HOSTILE, across, odds, [v * 0.9 for v in odds], odds))
    return LineChart("Odds", "The chance that it pays.", *axes, both, [Marked(99e3, "break-even 99 k")])


@pytest.fixture
def charts() -> dict[str, Chart]:
    """Return one chart of each kind; a name in each is hostile."""
    parts, week = ["to make", "margin"], ChartAxis("time", "weeks")
    bars = [StackedBar("GPU", [3320, 26680], 28000, 33000), StackedBar(HOSTILE, [1400, 500])]
    swings = [TornadoBar("capital", 2.4e9, -1e8, "6%", "10%", True), TornadoBar(HOSTILE, 1.4e9, 1e9)]
    spots = [Spot(f"p{i} {HOSTILE}", 1e8 * (1 + i % 7), 1e5 * (1 + i), str(i % 2), i == 0) for i in range(9)]
    ribbons = [Ribbon("meter", "cooling", 29), Ribbon("meter", HOSTILE, 357), Ribbon(HOSTILE, "rank", 357)]
    cells = [[math.nan if h == m == 1 else 10.0 * h + m for m in range(12)] for h in range(24)]
    months, hours = [f"m{m}" for m in range(12)], [f"{h}:00" for h in range(24)]
    axes = (ChartAxis("month", "2022"), ChartAxis("hour", "local"), ChartAxis("carbon", "g/kWh"))
    return {
        "lines": _lines(),
        "scatter": ScatterChart("Points", "A front.", NPV, ChartAxis("carbon", "t"), spots),
        "bars": BarChart("Price", "Made for less.", ChartAxis("a chip", "$", show=dollars), bars, parts),
        "tornado": Tornado("What moves it", "Capital does.", NPV, 1.2e9, swings),
        "time": TimeChart(
            "Programme", "Long.", week, [Period("tape-out", 0, 83, 100), Period("fab", 83, 103)]
        ),
        "heat": HeatMap("Map", "Darker by night.", *axes, months, hours, cells),
        "sankey": Sankey("Power", "From the meter.", ChartAxis("power", "MW"), ribbons),
    }
