"""Inputs that ship with the product: rows of `data/`, each with its source and status."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from ..errors import UserError, nearest

LB_KG = 0.45359237  # pounds and kilograms: the international pound, exact


def text_of(name: str) -> str:
    """Return a file of `data/`."""
    return (resources.files(f"{__package__}.data") / f"{name}.csv").read_text(encoding="utf-8")


def rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a file of `data/`, by column."""
    return list(csv.DictReader(io.StringIO(text_of(name))))


@cache
def inputs() -> Mapping[str, dict[str, Any]]:
    """Return quantities as a scenario's TOML would have them, by dotted key.

    `device.NAME.KEY` is of a device of that name; `bought.KEY` and `own.KEY` of any of that kind.
    """
    return {row["key"]: _as_toml(row) for row in rows("inputs")}


def _as_toml(row: Mapping[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {name: float(row[name]) for name in ("value", "low", "high") if row[name]}
    out |= {name: row[name] for name in ("shape", "source", "status") if row[name]}
    return out | ({"year": int(row["year"])} if row["year"] else {})


def grid(subregion: str) -> dict[str, Any]:
    """Return a subregion's CO2e a kWh as TOML would have it; raise `UserError` where eGRID has none."""
    known = {row["subregion"]: row for row in rows("egrid")}
    if subregion not in known:
        raise UserError(
            f"site.egrid is '{subregion}': eGRID has no such subregion{nearest(subregion, known)} "
            f"(known: {', '.join(sorted(known))})"
        )
    row = known[subregion]
    kg = float(row["lb_per_mwh"]) * LB_KG / 1000
    return {"value": kg, "source": f"{row['source']}, {row['name']}", "status": row["status"]}


@cache
def price_levels() -> Mapping[int, float]:
    """Return the level of consumer prices by year."""
    return {int(row["year"]): float(row["index"]) for row in rows("prices")}


def inflation(since: int, until: int) -> float:
    """Return what a dollar of one year is in dollars of another; raise `UserError` for unknown years."""
    if since == until:
        return 1.0
    levels = price_levels()
    for year in (since, until):
        if year not in levels:
            raise UserError(
                f"prices of {year} cannot be brought to {until}: price levels are known from "
                f"{min(levels)} to {max(levels)}"
            )
    return levels[until] / levels[since]
