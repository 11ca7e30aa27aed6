"""What things cost: annuities, energy, good dies, programmes.

Each function is one formula, without factors of units.
"""

from __future__ import annotations

import numpy as np

from .quantity import Numbers


def annuity(rate: Numbers, periods: Numbers) -> Numbers:
    """Return the payment at the end of each period that pays back 1: r / (1 - (1 + r)^-n), or 1 / n."""
    rate = np.maximum(rate, 1e-12)  # the limit, to twelve digits
    return rate / -np.expm1(-periods * np.log1p(rate))


def present_value(payment: Numbers, rate: Numbers, periods: Numbers) -> Numbers:
    """Return what equal payments at the end of each period are worth today."""
    return payment / annuity(rate, periods)


def good_share(expected_defects: Numbers, alpha: Numbers) -> Numbers:
    """Return the share of dies without a killing defect: (1 + A D / alpha)^-alpha, as `silicon` has it.

    `expected_defects` is a die's area times the density of defects, both of the same unit of area.
    """
    return (1 + expected_defects / alpha) ** -alpha


def dies_per_wafer(die_area: Numbers, wafer_diameter: Numbers) -> Numbers:
    """Return how many dies a round wafer holds: pi d2 / 4A - pi d / sqrt(2A), as `silicon` has it."""
    return np.pi * wafer_diameter**2 / (4 * die_area) - np.pi * wafer_diameter / (2 * die_area) ** 0.5


def good_die_usd(wafer_usd: Numbers, per_wafer: Numbers, good: Numbers) -> Numbers:
    """Return what a good die costs: a wafer over its good dies."""
    return wafer_usd / (per_wafer * good)


def make_usd(dies_usd: Numbers, package_test_usd: Numbers, partner_margin: Numbers, memory_usd: Numbers,
             board_usd: Numbers) -> Numbers:  # fmt: skip
    """Return what an own device costs its owner: the partner's margin lies on dies and package alone."""
    return (dies_usd + package_test_usd) * partner_margin + memory_usd + board_usd


def design_usd(nre_usd: Numbers, ip_usd: Numbers, mask_usd: Numbers, respins: Numbers) -> Numbers:
    """Return what a chip costs before the first one is made, respins of its masks included."""
    return nre_usd + ip_usd + mask_usd * (1 + respins)


def energy_usd(energy: Numbers, usd_per_energy: Numbers) -> Numbers:
    """Return what energy at the meter costs."""
    return energy * usd_per_energy


def tco_reduction(perf_per_tco: Numbers) -> Numbers:
    """Return the share of cost that falls away at so many times the work for a dollar: 1 - 1/x, not x - 1."""
    return 1 - 1 / perf_per_tco


def capex_ratio(perf_per_tco: Numbers, perf_per_w: Numbers, power_share: Numbers) -> Numbers:
    """Return the capital for a unit of work, of that of another device, that two published ratios imply.

    `power_share` is the share of the other's cost that follows its power:
    1/x = (1 - e) c + e/w, so c = (1/x - e/w) / (1 - e).
    """
    return (1 / perf_per_tco - power_share / perf_per_w) / (1 - power_share)
