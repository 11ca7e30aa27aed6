"""Purchases against a load: the account closes, and the cheapest portfolio covers what it should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mtia_emu.errors import UserError
from mtia_emu.fleet.hours import load_hours
from mtia_emu.fleet.matching import Portfolio, PortfolioPrices, cheapest, match

POWER = arrays(float, 50, elements=st.floats(0, 10))
PRICES = PortfolioPrices(61, 58, 35_000)


@given(POWER, POWER, st.floats(0, 40), st.floats(0.5, 1))
def test_energy_is_neither_made_nor_lost(
    load: np.ndarray, made: np.ndarray, battery: float, back: float
) -> None:
    found = match(load, made, battery, back)
    from_battery = found.covered - np.minimum(load, made)
    into_battery = (made - np.minimum(load, made) - found.curtailed).sum()
    assert into_battery * back == pytest.approx(from_battery.sum() + found.stored_end, abs=1e-9)
    assert (found.covered <= load + 1e-12).all() and (found.curtailed >= 0).all()
    assert -1e-12 <= found.stored_end <= battery + 1e-9


@given(POWER, POWER, st.floats(0, 20), st.floats(0, 20))
def test_more_battery_never_covers_less(load: np.ndarray, made: np.ndarray, one: float, more: float) -> None:
    less, most = (match(load, made, size).covered.sum() for size in (one, one + more))
    assert most >= less - 1e-9


def test_an_account_worked_by_hand() -> None:
    """Loads of 2; made 5, 0, 4, 0; a battery of 2: it fills at once, gives 2, fills again, gives 2."""
    found = match(np.full(4, 2.0), np.array([5.0, 0, 4, 0]), 2.0)
    assert found.covered.tolist() == [2, 2, 2, 2] and found.curtailed.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(("target", "seed"), [(0.3, 0), (0.6, 1), (0.8, 2), (0.9, 3), (0.95, 4)])
def test_the_cheapest_portfolio_covers_its_target(target: float, seed: int) -> None:
    """The programme and the loop are two accounts of the same year: they agree."""
    rng = np.random.default_rng(seed)
    load, wind, sun = (1 + rng.random(96) for _ in range(3))
    wind, sun = wind * (rng.random(96) < 0.5), sun * (np.arange(96) % 24 < 12)
    wind, sun, load = (x / x.mean() for x in (wind, sun, load))
    found = cheapest(load, wind, sun, target, PRICES)
    account = match(load, found.wind * wind + found.sun * sun, found.battery_hours)
    assert account.coverage == pytest.approx(target, abs=1e-6)


def test_the_cheapest_portfolio_is_cheaper_than_its_neighbours() -> None:
    """A month of Texas: no nearby mix that covers as much costs less."""
    grid = load_hours("ERCO")
    wind, sun = (grid.profile(fuel)[:720] for fuel in ("wind", "sun"))
    wind, sun, load = wind / wind.mean(), sun / sun.mean(), np.ones(720)
    found = cheapest(load, wind, sun, 0.9, PRICES)

    def usd(one: Portfolio) -> float:
        energy = one.wind * PRICES.wind_usd_per_mwh + one.sun * PRICES.sun_usd_per_mwh
        return energy * 720 + one.battery_hours * PRICES.battery_usd_per_mwh_year

    for dw, ds, db in np.random.default_rng(0).normal(0, 0.1, (200, 3)):
        near = Portfolio(
            max(0.0, found.wind + dw), max(0.0, found.sun + ds), max(0.0, found.battery_hours + db)
        )
        account = match(load, near.wind * wind + near.sun * sun, near.battery_hours)
        assert account.coverage < 0.9 or usd(near) >= usd(found) - 1e-6


def test_what_nothing_covers_is_refused() -> None:
    dark = np.array([2.0, 0, 2, 0])
    with pytest.raises(UserError, match="no purchases cover 100%"):
        cheapest(np.ones(4), dark[::-1], np.array([0.0, 0, 0, 4]), 1.0, PRICES)
