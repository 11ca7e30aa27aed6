"""What a chip costs to make: good dies of a wafer, package, memory. Not its price, nor its design."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from ..machine.chip import Chip
from ..machine.drams import load_technology
from ..machine.memory_choice import IDEAL
from ..sums import add_up
from .area import STAND_IN, area
from .facts import Silicon, load_silicon


@dataclass(frozen=True)
class Cost:
    """Dollars for one chip with its memory; the fields that end in `_usd` sum to the whole."""

    die_usd: float
    io_die_usd: float
    package_test_usd: float
    interposer_usd: float
    bonding_usd: float  # good parts that are lost with packages in which a bond failed
    memory_usd: float
    yield_share: float  # of the first kind of die
    dies_per_wafer: float

    @property
    def total_usd(self) -> float:
        """Return the sum of all parts."""
        return float(add_up(getattr(self, f.name) for f in fields(self) if f.name.endswith("_usd")))


@dataclass(frozen=True)
class Dies:
    """Equal dies of a package."""

    count: int
    mm2: float
    node_nm: float


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

    Prices are those of the case of `silicon`, mid by default. A die that no wafer holds costs infinitely
    much.
    """
    facts, p = silicon or load_silicon(), chip.package
    size = area(chip, facts).total_mm2 if die_mm2 is None else die_mm2
    dies = [Dies(p.compute_dies, size / p.compute_dies, chip.node_nm)]
    if p.io_dies and p.io_die_mm2:
        dies.append(Dies(p.io_dies, p.io_die_mm2, p.io_node_nm))
    memory = STAND_IN if chip.dram.device == IDEAL else chip.dram.device
    return bill(dies, memory, chip.dram.bytes, load_technology(memory).packages(chip.dram.channels), facts)


def bill(dies: Sequence[Dies], memory: str, bytes_: float, packages: int, facts: Silicon) -> Cost:
    """Return what a package of tested dies with so many packages or stacks of a memory costs to make.

    What lies on an interposer needs one as large as all of it, and each bond to it may fail.
    """
    prices, place = facts.cost, load_technology(memory).interposer_mm2
    dollars = [_die_usd(kind, facts) * kind.count for kind in dies]
    memory_usd = bytes_ / 1e9 * facts.of_memory(memory, "usd_per_gb")
    on_it = sum(kind.count for kind in dies) + (packages if place else 0)
    joined = on_it > 1
    silicon_mm2 = add_up(kind.mm2 * kind.count for kind in dies) + packages * place
    interposer = facts.pick(prices.interposer_usd_per_mm2) * silicon_mm2 if joined else 0.0
    package = facts.pick(prices.package_test_usd)
    at_risk = add_up(dollars) + interposer + (memory_usd if place else 0.0)
    lost = 1 / (1 - facts.pick(prices.bond_loss_share)) ** on_it - 1
    return Cost(
        die_usd=dollars[0],
        io_die_usd=add_up(dollars[1:]),
        package_test_usd=package,
        interposer_usd=interposer,
        bonding_usd=at_risk * lost if joined else 0.0,
        memory_usd=memory_usd,
        yield_share=_good(dies[0], facts),
        dies_per_wafer=dies_per_wafer(dies[0].mm2, prices.wafer_mm),
    )


def _good(kind: Dies, facts: Silicon) -> float:
    defects = facts.pick(facts.at(kind.node_nm).defects_per_cm2)
    return yield_share(kind.mm2, defects, facts.cost.yield_alpha)


def _die_usd(kind: Dies, facts: Silicon) -> float:
    """Return what a good die costs."""
    good = dies_per_wafer(kind.mm2, facts.cost.wafer_mm) * _good(kind, facts)
    return facts.pick(facts.at(kind.node_nm).wafer_usd) / good if good > 0 else math.inf
