"""Every formula once with quantities that have units: what comes out has the unit that it says."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pint import DimensionalityError, UnitRegistry

from mtia_emu.fleet import carbon, demand, money, site
from mtia_emu.fleet.carbon import attributed_kg, die_kg, kg_per_flop, operational_kg, own_device_kg
from mtia_emu.fleet.demand import (
    day,
    devices_needed,
    load_share,
    racks_needed,
    servers_needed,
    servers_per_rack,
    spares,
    whole,
)  # fmt: skip
from mtia_emu.fleet.money import (
    annuity,
    capex_ratio,
    design_usd,
    dies_per_wafer,
    energy_usd,
    good_die_usd,
    good_share,
    make_usd,
    present_value,
    tco_reduction,
)  # fmt: skip
from mtia_emu.fleet.site import drawn_w, energy, provisioned_w, water

UREG: Any = UnitRegistry(auto_reduce_dimensions=True)
UREG.define("usd = [money]")
UREG.define("device = [device]")
Q = UREG.Quantity
KG, USD, W, YEAR, CM2 = UREG.kg, UREG.usd, UREG.W, UREG.year, UREG.cm**2

# A formula, what it is asked, the unit of the answer, and the answer in that unit, worked by hand.
CASES: dict[Callable[..., Any], tuple[tuple[Any, ...], Any, float]] = {
    whole: ((2.1,), "", 3),
    devices_needed: ((Q(100, "1/s"), 1.5, 0.2, Q(600, "1/minute")), "", 18),
    spares: ((1000.0, Q(0.365, "1/year"), Q(10, "day")), "", 18),  # 9.99 + 2.326 x 3.16 = 17.3
    servers_needed: ((17.0, 8.0), "", 3),
    servers_per_rack: ((Q(41, "kW"), Q(8400, "W"), 10.0), "", 4),
    racks_needed: ((9.0, 4.0), "", 3),
    load_share: ((Q(3600, "1/hour"), 10.0, Q(0.2, "1/s")), "", 0.5),
    drawn_w: ((Q(0.7, "kW"), 0.2, 0.5), "W", 420),
    provisioned_w: ((Q(0.7, "kW"), 1.2), "W", 840),
    energy: ((Q(700, "W"), 1.08, Q(1, "day")), "kWh", 18.144),
    water: ((Q(2, "MWh"), Q(0.26, "L/kWh")), "L", 520),
    annuity: ((0.08, 5.5), "", 0.231962),
    present_value: ((USD * 231_962, 0.08, 5.5), "usd", 1e6),
    good_share: ((Q(421, "mm^2") * Q(0.11, "1/cm^2"), 3.0), "", 0.650206),
    dies_per_wafer: ((Q(4.21, "cm^2"), Q(300, "mm")), "", 135.421),
    good_die_usd: ((USD * 16_000, 135.421, 0.65), "usd", 181.77),
    make_usd: ((USD * 182, USD * 100, 1.5, USD * 700, USD * 180), "usd", 1303),
    design_usd: ((USD * 415e6, USD * 2.6e6, USD * 18e6, 0.5), "usd", 444.6e6),
    energy_usd: ((Q(1, "GWh"), USD * 0.08 / UREG.kWh), "usd", 80_000),
    tco_reduction: ((1.786,), "", 0.440),
    capex_ratio: ((1.673, 0.99, 0.1), "", 0.5519),
    operational_kg: ((Q(1, "GWh"), Q(0.35, "kg/kWh")), "t", 350),
    die_kg: ((Q(421, "mm^2"), Q(2.431, "kg/cm^2"), 0.65), "kg", 15.745),
    own_device_kg: ((KG * 15, Q(128, "GB"), Q(0.29, "kg/GB"), KG * 5), "kg", 57.12),
    attributed_kg: ((KG * 150, Q(1_082_990, "hour"), Q(6, "year"), 0.85), "t", 3.634),
    kg_per_flop: ((KG * 1312, Q(8 * 1979e12, "1/s"), Q(4 * 365, "day")), "g", 0.657e-18),
}  # fmt: skip


@pytest.mark.parametrize("formula", CASES, ids=lambda f: f.__name__)
def test_units_come_out_as_they_should(formula: Callable[..., Any]) -> None:
    asked, unit, right = CASES[formula]
    found = formula(*asked)
    assert (found.to(unit).magnitude if hasattr(found, "to") else found) == pytest.approx(right, rel=2e-3)


@pytest.mark.parametrize("module", [carbon, demand, money, site], ids=lambda m: m.__name__)
def test_every_formula_is_here(module: ModuleType) -> None:
    mine = {f for _, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}
    assert mine - {day} <= set(CASES)


@pytest.mark.parametrize(
    ("formula", "wrong"),
    [
        (good_share, (Q(421, "mm^2") * Q(0.11, "1/cm"), 3.0)),
        (spares, (1000.0, Q(0.3, "1/year"), Q(10, "W"))),
        (servers_per_rack, (Q(41, "kW"), Q(8.4, "kWh"), 10.0)),
        (make_usd, (USD * 182, Q(100, "kg"), 1.5, USD * 700, USD * 180)),
    ],
)
def test_wrong_units_are_seen(formula: Callable[..., Any], wrong: tuple[Any, ...]) -> None:
    with pytest.raises(DimensionalityError):
        formula(*wrong)


def test_an_annuity_is_what_pays_a_loan_back() -> None:
    """Month by month: what is owed grows by the rate and falls by the payment, and ends at nothing."""
    owed, payment = 66_668_100.0, 66_668_100.0 * float(annuity(0.05 / 12, 36))
    for _ in range(36):
        owed = owed * (1 + 0.05 / 12) - payment
    assert owed == pytest.approx(0, abs=1e-3)
    assert annuity(0.0, 5.0) == pytest.approx(0.2)


@given(
    st.floats(1, 1e6),
    st.floats(1, 2),
    st.one_of(st.none(), st.lists(st.floats(0, 10), min_size=24, max_size=24).filter(lambda x: max(x) > 0)),
)
def test_a_day_has_its_mean(mean: float, peak: float, shape: list[float] | None) -> None:
    hours = day(mean, peak, None if shape is None else tuple(shape))
    assert hours.shape == (24,) and hours.min() >= 0 and hours.mean() == pytest.approx(mean)


def test_a_day_has_its_peak_when_it_should() -> None:
    hours = day(100.0, 1.5, None)
    assert hours.max() == pytest.approx(150) and int(np.argmax(hours)) == 20
