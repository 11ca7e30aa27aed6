"""A fleet's answer as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .answer import FleetAnswer, OptionAnswer
from .hourly import HourlyAnswer
from .measures import MEASURES, SAVING
from .prospect import has_programme, prospect
from .quantity import Quantity
from .yearly import FleetPool

FORMAT = "mtia-emu fleet 1"


def as_json(answer: FleetAnswer) -> dict[str, Any]:
    """Return an answer as plain data: units stand in the keys, every input with its source and status."""
    scenario = answer.scenario
    return {
        "format": FORMAT,
        "scenario": scenario.name,
        "text": scenario.text,
        "currency_year": scenario.currency_year,
        "baseline": scenario.baseline,
        "measures": {name: one.text for name, one in MEASURES.items()}
        | {SAVING: "what the baseline costs more"},
        "samples": len(answer.kept),
        "survivors": answer.survivors,
        "published": [
            {**one.anchor.model_dump(), "central": one.central, "prior": asdict(one.prior),
             "conditioned": asdict(one.conditioned)}
            for one in answer.anchors
        ],
        "options": {one.option: _option(one) for one in answer.options},
        "tornado": {"about": answer.about, "swings": [asdict(x) for x in answer.swings]},
        "influences": [asdict(x) for x in answer.influences],
        "programme": _programme(answer),
        "inputs": {key: _input(quantity) for key, quantity in scenario.quantities.items()},
    }  # fmt: skip


def _programme(answer: FleetAnswer) -> dict[str, Any] | None:
    """Return what the programme is worth, or None without one; a volume that is never reached is null."""
    if not has_programme(answer.scenario, answer.about):
        return None
    found = prospect(answer)
    central = found.central
    return {
        "option": found.option,
        "device": found.device,
        "volume": found.volume,
        "weeks": {name: float(x) for name, x in vars(found.schedule).items()},
        "central": {
            name: float(getattr(central, name))
            for name in ("design_usd", "silicon_usd", "production_usd", "unit_usd", "break_even")
        }
        | {"npv_usd": float(central.npv_usd())},
        "prior": asdict(found.prior),
        "conditioned": asdict(found.conditioned),
        "tornado": [asdict(x) for x in found.swings],
        "slips": [asdict(x) for x in found.slips],
        "knowing_the_rate": [asdict(x) for x in found.insights],
        "knowing_the_rate_at_break_even": [asdict(x) for x in found.insights_at_even],
    }


def _option(one: OptionAnswer) -> dict[str, Any]:
    return {
        "central": dict(one.central),
        "prior": {name: asdict(x) for name, x in one.prior.items()},
        "conditioned": {name: asdict(x) for name, x in one.conditioned.items()},
        "odds_of_saving": one.odds,
        "hourly": None if one.hourly is None else _hourly(one.hourly),
        "pools": {pool.device: _pool(pool) for pool in one.result.pools},
    }


def _hourly(answer: HourlyAnswer) -> dict[str, Any]:
    return {**asdict(answer), "by_month": answer.by_month.tolist()}


def _pool(pool: FleetPool) -> dict[str, Any]:
    return {
        "size": {name: float(x) for name, x in vars(pool.size).items()},
        "drawn_w": float(pool.drawn_w),
        "provisioned_w": float(pool.provisioned_w),
        "capital_usd": float(pool.capital_usd),
        "device_usd": float(pool.device_usd),
        "usd_per_year": {name: float(x) for name, x in vars(pool.costs).items()},
        "kg_co2e_per_year": {name: None if x is None else float(x) for name, x in vars(pool.carbon).items()},
        "water_l_per_year": None if pool.water_l is None else float(pool.water_l),
        "works": {
            share.work: {name: float(x) for name, x in vars(share).items() if name != "work"}
            for share in pool.works
        },
    }


def _input(quantity: Quantity) -> dict[str, Any]:
    low, high = quantity.ends
    return {
        "value": quantity.value,
        "low": low,
        "high": high,
        "shape": quantity.shape if quantity.varies else "fixed",
        "source": quantity.source,
        "status": quantity.status,
    }
