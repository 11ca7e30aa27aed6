"""Area and cost from low to high, and what is written beside what is estimated."""

from __future__ import annotations

import pytest

from mtia_emu.machine.chip import load_chip
from mtia_emu.silicon import CASES, area, cost, load_silicon
from mtia_emu.silicon.cost import Dies, bill
from mtia_emu.silicon.estimate import as_json, estimate, sized


def test_each_case_is_area_and_cost_of_that_case() -> None:
    found, facts, chip = estimate("mtia-2i"), load_silicon(), load_chip("mtia-2i")
    for case, mm2, usd in zip(CASES, found.areas, found.costs, strict=True):
        assert mm2 == area(chip, facts.in_case(case))
        assert usd == cost(chip, facts.in_case(case), 421)
    assert found.memory == "lpddr5-6400" and found.packages == 8
    assert found.notes == ()  # 410 of 421 mm2


def test_the_written_die_follows_what_settings_change() -> None:
    base, wider = load_chip("mtia-2i"), load_chip("mtia-2i", {"dram.device": "hbm3"})
    share = area(wider).total_mm2 / area(base).total_mm2
    assert sized(wider, base).die_mm2 == pytest.approx(421 * share)
    assert estimate("mtia-2i", {"dram.device": "hbm3"}).die_mm2 == pytest.approx(421 * share)
    assert estimate("mtia-2i", {"dram.device": "hbm3", "die_mm2": 500}).die_mm2 == 500


def test_a_written_die_that_contradicts_the_estimate_is_said() -> None:
    (note,) = estimate("mtia-300").notes
    assert note.startswith("die_mm2 is 804, the estimate 594 (505 to 668)")
    assert estimate("mtia-2i", {"die_mm2": 500}).notes and not estimate("mtia-1").notes


@pytest.mark.parametrize(("dies", "memory", "gb", "stacks", "published"), [
    ([Dies(1, 814, 5)], "hbm3", 80, 5, 3320),  # H100: Raymond James, 2023, through Barron's
    ([Dies(2, 800, 5)], "hbm3e", 192, 8, 6400),  # B200: siliconanalysts.com
])  # fmt: skip
def test_published_bills_of_material_are_in_the_range(
    dies: list[Dies], memory: str, gb: float, stacks: int, published: float
) -> None:
    low, mid, high = (
        bill(dies, memory, gb * 1e9, stacks, load_silicon().in_case(case)).total_usd for case in CASES
    )
    assert low < mid < high and low < published < high
    assert mid == pytest.approx(published, rel=0.25)


def test_mtia_300_is_three_dies_on_an_interposer() -> None:
    """25.6 x 31.4 and twice 25.6 x 9.3 mm and six stacks of 121: 2006 mm2, at 0.49 $ each."""
    value = as_json(estimate("mtia-300"))
    assert value["cost"]["interposer_usd"]["mid"] == pytest.approx(0.49 * (25.6 * (31.4 + 2 * 9.3) + 6 * 121))
    assert 723 <= value["cost"]["interposer_usd"]["mid"] <= 1100
    assert [value["cost"]["memory_usd"][case] for case in CASES] == [2160, 3240, 4320]  # 10 to 20 $/GB
    assert value["cost"]["io_die_usd"]["mid"] > 0


def test_what_is_on_the_board_needs_no_interposer() -> None:
    value = as_json(estimate("mtia-2i"))
    assert value["cost"]["interposer_usd"]["high"] == value["cost"]["bonding_usd"]["high"] == 0
