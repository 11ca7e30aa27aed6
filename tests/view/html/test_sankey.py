"""What flows into a place flows out of it, or the figure is refused; widths are amounts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.view.html.frame import NARROW, WIDE
from mtia_emu.view.html.sankey import Ribbon, Sankey
from mtia_emu.view.html.scales import ChartAxis

MW = ChartAxis("power", "MW")


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=5), st.sampled_from([NARROW, WIDE]))
def test_places_are_as_tall_as_what_flows_through(amounts: list[float], width: float) -> None:
    inner = [Ribbon("servers", f"model {i}", a) for i, a in enumerate(amounts)]
    chart = Sankey("t", "s", MW, [Ribbon("meter", "servers", chart_sum(amounts)), *inner])
    assert chart.layers["meter"] == 0 and chart.layers["model 0"] == 2
    boxes = {str(b[0].text): float(b.get("height", 0)) for b in chart.draw(width).iter("rect")}
    whole = boxes[f"meter: {MW.amount(chart_sum(amounts))}"]
    for number, amount in enumerate(amounts):
        tall = boxes[f"model {number}: {MW.amount(amount)}"]
        assert abs(tall - max(whole * amount / chart_sum(amounts), 1.5)) < 0.1


def chart_sum(amounts: list[float]) -> float:
    return float(sum(amounts))


def test_what_does_not_add_up_is_refused() -> None:
    with pytest.raises(ValueError, match="'servers' gets 10 MW and gives 9"):
        Sankey("t", "s", MW, [Ribbon("meter", "servers", 10), Ribbon("servers", "model", 9)])
    with pytest.raises(ValueError, match="below zero"):
        Sankey("t", "s", MW, [Ribbon("meter", "servers", -1)])
    with pytest.raises(ValueError, match="circle"):
        Sankey("t", "s", MW, [Ribbon("a", "b", 1), Ribbon("b", "a", 1)]).draw(WIDE)
