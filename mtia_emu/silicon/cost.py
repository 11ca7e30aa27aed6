"""What a chip costs to make: good dies of a wafer, package, memory. Not its price, nor its design."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..machine.chip import Chip
from ..sums import add_up
from .area import area
from .facts import Silicon, load_silicon


@dataclass(frozen=True)
class Cost:
    """Dollars for one chip with its memory; the fields that end in `_usd` sum to the whole."""

    die_usd: float
    package_test_usd: float
    memory_usd: float
    yield_share: float
    dies_per_wafer: float

    @property
    def total_usd(self) -> float:
        """Return the sum of all parts."""
        return float(add_up(getattr(self, f.name) for f in fields(self) if f.name.endswith("_usd")))


def dies_per_wafer(die_mm2: float, wafer_mm: float) -> float:
    """Return how many dies a round wafer holds: its area over the die's, less those cut by the edge.

    pi d^2 / 4A - pi d / sqrt(2A), the usual first-order count; 0 where none fits.
    """
    whole = math.pi * (wafer_mm / 2) ** 2 / die_mm2
    return max(0.0, whole - math.pi * wafer_mm / math.sqrt(2 * die_mm2))


def yield_share(die_mm2: float, defects_per_cm2: float, alpha: float) -> float:
    """Return the share of good dies: negative binomial, (1 + A D / alpha)^-alpha. None is salvaged."""
    return float((1 + die_mm2 / 100 * defects_per_cm2 / alpha) ** -alpha)


def cost(chip: Chip, silicon: Silicon | None = None, die_mm2: float | None = None) -> Cost:
    """Return what a chip costs to make; `die_mm2` in place of the area that `area` gives.

    A die that no wafer holds costs infinitely much.
    """
    facts = silicon or load_silicon()
    node, prices = facts.at(chip.node_nm), facts.cost
    size = area(chip, facts).total_mm2 if die_mm2 is None else die_mm2
    dies = dies_per_wafer(size, prices.wafer_mm)
    good = yield_share(size, node.defects_per_cm2, prices.yield_alpha)
    return Cost(
        die_usd=node.wafer_usd / (dies * good) if dies * good > 0 else math.inf,
        package_test_usd=prices.package_test_usd,
        memory_usd=chip.dram.bytes / 1e9 * prices.memory_usd_per_gb,
        yield_share=good,
        dies_per_wafer=dies,
    )
