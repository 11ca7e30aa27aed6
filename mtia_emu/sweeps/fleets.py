"""A design point as a fleet: what so many of its chips cost, draw and emit for a scenario's work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UserError
from ..fleet.measures import KG_PER_T
from ..fleet.model import evaluate
from ..fleet.own_chip import joined_usd
from ..fleet.programme import programme
from ..fleet.quantity import Numbers
from ..fleet.scenario import OwnDevice, Scenario
from ..machine.chip import Chip
from ..silicon import Cost, Silicon
from .spec import FleetSpec

BYTES_PER_GB = 1e9


def check_fleet(fleet: FleetSpec, scenario: Scenario, models: list[str], where: str) -> None:
    """Raise `UserError` where a scenario and a sweep's models do not fit one another."""
    if fleet.option not in scenario.option:
        raise UserError(f"{where}: fleet.option is '{fleet.option}' (known: {', '.join(scenario.option)})")
    serves = scenario.option[fleet.option]
    device = next(iter(set(serves.values())))
    if len(set(serves.values())) > 1 or not isinstance(scenario.device[device], OwnDevice):
        raise UserError(f"{where}: fleet.option '{fleet.option}' is not one own device for all work")
    for name, asked in fleet.work.items():
        if name not in models:
            raise UserError(f"{where}: fleet.work has no model '{name}' (known: {', '.join(models)})")
        if asked.work not in serves:
            raise UserError(f"{where}: fleet.work.{name}.work is '{asked.work}' (known: {', '.join(serves)})")
    left = set(serves) - {asked.work for asked in fleet.work.values()}
    if left:
        raise UserError(f"{where}: fleet.work does no '{min(left)}' (right: a model for each kind of work)")


def fleet_columns(
    fleet: FleetSpec, scenario: Scenario, point: Mapping[str, Numbers], each: Mapping[str, Mapping[str, Any]]
) -> dict[str, float | None]:
    """Return the fleet's objectives at central values: the point's silicon, and rates of its own models.

    `point` is what `silicon_numbers` gives. CO2e is location-based operation and what is embodied. The
    dollars for a million are those of the first model's work. The net present value is that of the point's
    programme if the chip works; there is none without one. Raises `UserError` for what cannot be built.
    """
    device = next(iter(scenario.option[fleet.option].values()))
    numbers = {f"device.{device}.{key}": value for key, value in point.items()}
    for name, asked in fleet.work.items():
        key = f"work.{asked.work}.on.{device}."
        numbers[key + "per_s"] = asked.units / each[name]["seconds"]
        numbers[key + "joules"] = each[name]["joules"] / asked.units
    watts = max(float(each[name]["watts"]) for name in fleet.work)
    numbers[f"device.{device}.device_busy_w"] = watts
    found = evaluate(scenario, fleet.option, numbers)
    first = next(iter(fleet.work.values())).work
    worth = None
    if scenario.programme is not None:
        worth = float(programme(scenario, fleet.option, numbers).npv_usd())
    return {
        "dollars_per_million_tokens": float(found.usd_per_million(first)),
        "tco_per_year": float(found.usd_per_year),
        "mw": float(found.meter_w) / 1e6,
        "tco2e": float(found.sum_of("carbon.total_kg")) / KG_PER_T,
        "npv_usd": worth,
    }


def silicon_numbers(chip: Chip, area_mm2: float, price: Cost, facts: Silicon) -> dict[str, Numbers]:
    """Return a point's silicon by the keys of an own device: its estimated area, in the case of `facts`."""
    node, gigabytes = facts.at(chip.node_nm), chip.dram.bytes / BYTES_PER_GB
    return {
        "die_mm2": area_mm2,
        "dies": float(chip.package.compute_dies),
        "wafer_usd": facts.pick(node.wafer_usd),
        "defects_per_cm2": facts.pick(node.defects_per_cm2),
        "yield_alpha": facts.cost.yield_alpha,
        "package_test_usd": joined_usd(price),
        "memory_gb": gigabytes,
        "memory_usd_per_gb": float(np.divide(price.memory_usd, gigabytes)),
    }
