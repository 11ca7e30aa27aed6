"""A fleet's carbon by the hour: its load over a day, its purchases, what they leave of the grid's CO2e."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import demand, money
from .hours import GridHours, load_hours
from .matching import Matched, Portfolio, PortfolioPrices, cheapest, match
from .model import Values, evaluate
from .quantity import Array
from .scenario import Purchases, Scenario

MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
KWH_PER_MWH = 1000.0


@dataclass(frozen=True)
class HourlyAnswer:
    """What purchases leave of a fleet's CO2e, by life-cycle factors of what the grid makes in each hour.

    `annual_share` is energy bought over energy drawn in a year, which certificates count; `coverage` what of
    it falls in the hours in which it is drawn. `by_month` is CO2e a kWh drawn, [12, 24], in local time.
    """

    grid: str
    year: int | None  # of the grid's hours, where it is known
    portfolio: Portfolio
    annual_share: float
    coverage: float
    curtailed_share: float
    location_kg_per_kwh: float  # without purchases
    residual_kg_per_kwh: float  # with them
    by_month: Array


def drawn_by_hour(scenario: Scenario, option: str) -> Array:
    """Return what a fleet draws in each hour of a local day, [24], over its mean; central values."""
    at, result = Values(scenario, {}), evaluate(scenario, option)
    mean = float(result.sum_of("drawn_w"))
    drawn = np.full(24, mean)
    for pool in result.pools:
        key = f"device.{pool.device}."
        devices = max(float(pool.size.devices), 1.0)
        server = at(key + "server_busy_w") * (1 - at(key + "server_idle_share")) * pool.size.servers / devices
        for share in pool.works:
            joules, work = f"work.{share.work}.on.{pool.device}.joules", scenario.work[share.work]
            busy = at(joules) * share.per_s if at.has(joules) else at(key + "device_busy_w")
            slope = (busy * (1 - at(key + "device_idle_share")) + server) * share.devices * share.load
            day = demand.day(1.0, work.peak_over_mean.value, work.shape_24h)
            drawn = drawn + slope * (day - 1)
    return drawn / mean if mean > 0 else np.ones(24)


def hourly(scenario: Scenario, option: str) -> HourlyAnswer | None:
    """Return what a scenario's purchases leave of an option's CO2e; None where it buys nothing."""
    buys = scenario.purchases
    if buys is None:
        return None
    grid = load_hours(buys.grid, buys.holes)
    hours = len(grid.total_mw)
    local = (np.arange(hours) + buys.utc_offset_h) % 24
    load = drawn_by_hour(scenario, option)[local]
    portfolio = _portfolio(scenario, buys, grid, load)
    made = _made(grid, "wind", portfolio.wind) + _made(grid, "sun", portfolio.sun)
    account = match(load, made, portfolio.battery_hours * load.mean())
    return _answer(grid, portfolio, account, made, local)


def _portfolio(scenario: Scenario, buys: Purchases, grid: GridHours, load: Array) -> Portfolio:
    if buys.target_share is None:
        energy, wind = buys.energy_share.value, buys.wind_share.value
        return Portfolio(energy * wind, energy * (1 - wind), buys.battery_hours.value)
    yearly = money.annuity(scenario.finance.wacc_per_year.value, buys.battery_life_years.value)
    prices = PortfolioPrices(
        buys.wind_usd_per_mwh.value,
        buys.sun_usd_per_mwh.value,
        buys.battery_usd_per_kwh.value * KWH_PER_MWH * float(yearly),
    )
    return cheapest(load, grid.profile("wind"), grid.profile("sun"), buys.target_share.value, prices)


def _made(grid: GridHours, fuel: str, bought: float) -> Array:
    return bought * grid.profile(fuel) if bought > 0 else np.zeros(len(grid.total_mw))


def months(hours: int) -> Array:
    """Return the month, from 0, of each hour of a year, [hours]: 8,784 are those of a leap year."""
    days = np.array(MONTH_DAYS)
    days[1] += hours // 24 - days.sum()
    return np.repeat(np.arange(12), days * 24)


def _answer(
    grid: GridHours, portfolio: Portfolio, account: Matched, made: Array, local: Array
) -> HourlyAnswer:
    rate, load = grid.kg_per_kwh, account.load
    cell = months(len(load)) * 24 + local
    emitted = np.bincount(cell, account.residual * rate, minlength=12 * 24)
    drawn = np.bincount(cell, load, minlength=12 * 24)
    return HourlyAnswer(
        grid=grid.name,
        year=grid.year,
        portfolio=portfolio,
        annual_share=float(made.sum() / load.sum()),
        coverage=account.coverage,
        curtailed_share=float(account.curtailed.sum() / made.sum()) if made.any() else 0.0,
        location_kg_per_kwh=float((load * rate).sum() / load.sum()),
        residual_kg_per_kwh=float((account.residual * rate).sum() / load.sum()),
        by_month=(emitted / np.maximum(drawn, 1e-12)).reshape(12, 24),
    )
