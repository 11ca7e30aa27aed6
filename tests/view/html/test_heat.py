"""A cell is the darker the more it holds; an unknown one is none of them."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.view.html.frame import WIDE
from mtia_emu.view.html.heat import HeatMap
from mtia_emu.view.html.scales import ChartAxis

AXES = (ChartAxis("month", "2022"), ChartAxis("hour", "local"), ChartAxis("carbon", "g/kWh"))


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=6))
def test_darker_is_more(values: list[float]) -> None:
    chart = HeatMap("t", "s", *AXES, [str(i) for i in range(len(values))], ["0:00"], [values])
    cells = [r for r in chart.draw(WIDE).iter("rect") if r.find("title") is not None]
    pairs = sorted((v, float(c.get("fill-opacity", 0))) for v, c in zip(values, cells, strict=True))
    assert [o for _, o in pairs] == sorted(o for _, o in pairs)


def test_unknown_cells_have_a_look_of_their_own() -> None:
    chart = HeatMap("t", "s", *AXES, ["Jan", "Feb"], ["0:00"], [[math.nan, 3.0]])
    looks = [r.get("class") for r in chart.draw(WIDE).iter("rect") if r.find("title") is not None]
    assert looks == ["unknown", "heat"] and chart.range == (3.0, 3.0)
