"""Purchases against a load, hour by hour: what they cover, what is thrown away, what the least is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .quantity import Array


@dataclass(frozen=True)
class Matched:
    """An hourly account, in the load's unit of power, [h] each."""

    load: Array
    covered: Array  # by purchases as they are made, or out of the battery
    curtailed: Array  # made, neither used nor stored
    stored_end: float

    @property
    def coverage(self) -> float:
        """Return the share of the load that purchases cover in the hour in which it is."""
        return float(self.covered.sum() / self.load.sum())

    @property
    def residual(self) -> Array:
        """Return what the grid has to give, [h]."""
        return self.load - self.covered


def match(load: Array, generation: Array, battery: float = 0.0, efficiency: float = 1.0) -> Matched:
    """Return the account of purchases, [h], against a load, [h], with a battery of so much energy.

    The battery starts empty, takes only what purchases leave over, never the grid's, and gives as soon as
    they fall short; `efficiency` is that of a round trip, its power has no limit. Energy is the load's power
    times hours.
    """
    surplus = (generation - load).tolist()
    stored, given, thrown = 0.0, [0.0] * len(surplus), [0.0] * len(surplus)
    for hour, more in enumerate(surplus):
        if more >= 0:
            taken = min(more, (battery - stored) / efficiency)
            stored += taken * efficiency
            thrown[hour] = more - taken
        else:
            given[hour] = min(-more, stored)
            stored -= given[hour]
    return Matched(load, np.minimum(generation, load) + given, np.array(thrown), stored)


@dataclass(frozen=True)
class Portfolio:
    """What is bought for a mean load of 1: mean power of each fuel, and a battery in hours of that load."""

    wind: float
    sun: float
    battery_hours: float


@dataclass(frozen=True)
class PortfolioPrices:
    """Dollars for a MWh of wind and of sun, and for a MWh of battery a year."""

    wind_usd_per_mwh: float
    sun_usd_per_mwh: float
    battery_usd_per_mwh_year: float


def cheapest(load: Array, wind: Array, sun: Array, target: float, prices: PortfolioPrices) -> Portfolio:
    """Return the portfolio that covers `target` of a load, [h], at least cost; profiles [h] have mean 1.

    A linear programme over the whole year at once, solved by HiGHS: a lossless battery that starts empty, so
    that the programme's own account agrees with `match`. Raises `UserError` where no portfolio does.
    """
    try:
        from scipy import sparse
        from scipy.optimize import linprog
    except ImportError:
        raise UserError("sizing purchases needs scipy: pip install 'mtia-emu[plan]'") from None
    hours, unit = len(load), load / load.mean()
    each, none = sparse.eye(hours), sparse.csr_matrix((hours, hours))
    column = sparse.csr_matrix((hours, 1))
    # variables: wind, sun, battery, stored[h], from the grid[h]
    balance = sparse.hstack([-wind[:, None], -sun[:, None], column, each - sparse.eye(hours, k=-1), -each])
    room = sparse.hstack([column, column, -np.ones((hours, 1)), each, none])
    grid = sparse.hstack([sparse.csr_matrix((1, 3 + hours)), np.ones((1, hours))])
    price = [prices.wind_usd_per_mwh * hours, prices.sun_usd_per_mwh * hours, prices.battery_usd_per_mwh_year]
    found = linprog(
        np.concatenate([price, np.zeros(2 * hours)]),
        A_ub=sparse.vstack([balance, room, grid]).tocsr(),
        b_ub=np.concatenate([-unit, np.zeros(hours), [(1 - target) * hours]]),
        bounds=(0, None),
        method="highs-ds",
    )
    if found.status != 0:
        raise UserError(f"no purchases cover {target:.0%} of the load: {found.message}")
    return Portfolio(*(float(x) for x in found.x[:3]))
