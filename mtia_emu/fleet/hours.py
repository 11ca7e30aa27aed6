"""A grid by the hour: what each fuel makes in each hour of a year, and the CO2e of a kWh then."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import UserError
from .quantity import Array
from .shipped import rows, text_of

YEAR_HOURS = (8760, 8784)
MAX_BYTES = 1 << 22
MOST_MW = 1e7
Holes = Literal["refuse", "mean"]


@dataclass(frozen=True)
class GridHours:
    """Megawatts by fuel, [h] each, hour 0 the first of the year in UTC.

    `year` is None where it is not known: of a user's file. `holes` says what hours without data are: EIA-930
    has some in which every fuel is 0, which is no data, not a grid without carbon.
    """

    name: str
    mw: Mapping[str, Array]
    holes: Holes = "refuse"
    year: int | None = None

    @cached_property
    def total_mw(self) -> Array:
        """Return all that is made, [h]."""
        return np.sum(list(self.mw.values()), axis=0)

    @cached_property
    def empty(self) -> Array:
        """Return the numbers of hours without data."""
        return np.flatnonzero(self.total_mw == 0)

    @cached_property
    def kg_per_kwh(self) -> Array:
        """Return the CO2e of a kWh in each hour, [h]: life-cycle factors weighted by what each fuel makes.

        An hour without data is the mean of all others where `holes` is "mean", else a `UserError`.
        """
        if len(self.empty) and self.holes == "refuse":
            raise UserError(
                f"grid {self.name}: {len(self.empty)} hours have no data, hour {self.empty[0]} the first "
                '(right: holes = "mean", which gives them the mean of all others)'
            )
        factors = {row["fuel"]: float(row["g_per_kwh"]) / 1000 for row in rows("sources")}
        emitted = np.sum([mw * factors[fuel] for fuel, mw in self.mw.items()], axis=0)
        known = self.total_mw > 0
        rate = emitted / np.where(known, self.total_mw, 1)
        return np.where(known, rate, rate[known].mean())

    @property
    def mean_kg_per_kwh(self) -> float:
        """Return the year's CO2e over the year's energy."""
        known = self.total_mw > 0
        return float((self.kg_per_kwh * self.total_mw)[known].sum() / self.total_mw[known].sum())

    def profile(self, fuel: str) -> Array:
        """Return how much of a fuel there is in each hour, [h], with mean 1; raise `UserError` for none."""
        mean = float(self.mw[fuel].mean())
        if mean <= 0:
            raise UserError(f"grid {self.name} makes nothing from {fuel}: buy from what it has")
        return self.mw[fuel] / mean


def grid_years() -> dict[str, int]:
    """Return the balancing authorities whose hours ship with the product, each with the year of its hours."""
    return {row["grid"]: int(row["year"]) for row in rows("grids")}


def load_hours(name_or_path: str, holes: Holes = "refuse") -> GridHours:
    """Return a shipped grid or one of a CSV file: `hour_utc` from 0, then a column of MW for each fuel.

    Raises `UserError` for a missing hour, a missing fuel, and what is no number of 0 or more.
    """
    shipped = grid_years()
    if name_or_path in shipped:
        mw = _read(name_or_path, text_of(f"hours-{name_or_path}"))
        return GridHours(name_or_path, mw, holes, shipped[name_or_path])
    file = Path(name_or_path)
    if not file.is_file() or file.stat().st_size > MAX_BYTES:
        raise UserError(
            f"grid '{name_or_path}': neither one of {', '.join(shipped)} nor a file of at most "
            f"{MAX_BYTES >> 20} MiB"
        )
    try:
        return GridHours(file.name, _read(file.name, file.read_text(encoding="utf-8-sig")), holes)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"grid {file} cannot be read as text: {error}") from None


def _read(name: str, text: str) -> dict[str, Array]:
    fuels = {row["column"]: row["fuel"] for row in rows("sources")}
    try:
        table = list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise UserError(f"grid {name}: not CSV: {error}") from None
    missing = {"hour_utc", *fuels} - set(table[0] if table else ())
    if missing:
        raise UserError(f"grid {name} has no column {', '.join(sorted(missing))}")
    for place, row in enumerate(table):
        if row["hour_utc"] != str(place):
            raise UserError(
                f"grid {name}: hour {place} is missing (row {place + 2} is hour {row['hour_utc']!r})"
            )
    if len(table) not in YEAR_HOURS:
        raise UserError(f"grid {name} has {len(table)} hours: a year has {YEAR_HOURS[0]} or {YEAR_HOURS[1]}")
    return {
        fuel: np.array([_mw(row[column], name, row["hour_utc"]) for row in table])
        for column, fuel in fuels.items()
    }


def _mw(text: str | None, name: str, hour: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not 0 <= value <= MOST_MW:
        raise UserError(f"grid {name}: hour {hour} has {text!r}: right: MW from 0 to {MOST_MW:g}")
    return value
