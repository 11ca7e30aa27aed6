"""What is said of an option in one number: each with its unit and its meaning, spelt once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .model import evaluate
from .quantity import Numbers
from .scenario import Scenario
from .yearly import FleetResult

KG_PER_T = 1000.0


@dataclass(frozen=True)
class Measure:
    """A number of an option; the unit stands in its name."""

    text: str
    of: Callable[[FleetResult], Numbers]


def _sum(field: str, scale: float) -> Callable[[FleetResult], Numbers]:
    return lambda result: result.sum_of(field) / scale


MEASURES: Mapping[str, Measure] = {
    "devices": Measure("devices bought, spares among them", _sum("size.devices", 1)),
    "servers": Measure("servers", _sum("size.servers", 1)),
    "mw": Measure("mean power at the meter", lambda result: result.meter_w / 1e6),
    "provisioned_mw": Measure("IT power set aside", _sum("provisioned_w", 1e6)),
    "gwh_per_year": Measure("energy at the meter", lambda result: result.meter_wh / 1e9),
    "capital_musd": Measure("devices, servers, network and racks, when bought", _sum("capital_usd", 1e6)),
    "musd_per_year": Measure("all costs, capital as annuities", lambda result: result.usd_per_year / 1e6),
    "energy_musd_per_year": Measure("the energy bill", _sum("costs.energy_usd", 1e6)),
    "location_tco2e_per_year": Measure("operation, by the grid", _sum("carbon.location_kg", KG_PER_T)),
    "embodied_tco2e_per_year": Measure("making things, over lives", _sum("carbon.embodied_kg", KG_PER_T)),
}
MARKET = "market_tco2e_per_year"  # operation, by contracts: beside the location-based figure, where known
WATER = "water_megalitres_per_year"
SAVING = "saving_musd_per_year"


def measured(
    scenario: Scenario, option: str, samples: Mapping[str, Numbers] | None = None
) -> dict[str, Numbers]:
    """Return every measure of an option, and what it saves a year beside the baseline at the same samples."""
    result, base = evaluate(scenario, option, samples), evaluate(scenario, scenario.baseline, samples)
    out = {name: measure.of(result) for name, measure in MEASURES.items()}
    for work in scenario.work:
        out[f"usd_per_million.{work}"] = result.usd_per_million(work)
    if scenario.site.market_kg_per_kwh is not None:
        out[MARKET] = result.sum_of("carbon.market_kg") / KG_PER_T
    if scenario.site.water_l_per_kwh is not None:
        out[WATER] = result.sum_of("water_l") / 1e6
    out[SAVING] = (base.usd_per_year - result.usd_per_year) / 1e6
    return out
