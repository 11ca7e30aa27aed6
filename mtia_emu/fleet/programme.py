"""A programme for an own chip: when it delivers, what it spends, what it saves, and where it can be stopped.

A programme spends on design, masks and software before it saves anything. It saves what its chips cost less,
a year, than the bought devices that would do the same work. Those get better meanwhile: each month that the
chip is late, and each year that it is still bought, it stands beside a better and cheaper one. Money is worth
less the later it comes. All times are counted from the programme's start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from . import money
from .model import Values, evaluate
from .quantity import Numbers, mean, total
from .scenario import OwnDevice, Scenario
from .yearly import FleetPool, FleetResult

WEEKS_PER_YEAR = 365.25 / 7
LEAST_USD = 0.01
PURCHASES = 12  # steps in which the years of buying are added up
BY_POWER = ("site_usd", "energy_usd")  # parts of a device's cost that its power makes; the others its price


@dataclass(frozen=True)
class Milestones:
    """Weeks from the start; `delay`: how much older the scenario's bought device is by production."""

    tape_out: Numbers
    foundry: Numbers  # a foundry begins
    packaging: Numbers
    first_chips: Numbers
    production: Numbers  # models run, buying begins
    delay: Numbers


@dataclass(frozen=True)
class GateAnswer:
    """A gate: its week, what is spent by then, how often one stops there, what being able to is worth."""

    name: str
    week: float
    spent_usd: float
    stopped_share: float
    worth_usd: float


@dataclass(frozen=True)
class ProgrammeResult:
    """A programme at samples, [n], or at central values; dollars are worth what they are at its start.

    `unit_usd` is what a unit of volume saves if the chip works; a unit is the work of one device of the
    baseline ("GPU-equivalent"), of which `volume` are moved and `chips_per_unit` chips do one.
    """

    schedule: Milestones
    design_usd: Numbers  # up to tape-out
    silicon_usd: Numbers  # from there to first chips
    production_usd: Numbers  # from there to the last purchase
    unit_usd: Numbers
    volume: Numbers
    chips_per_unit: Numbers
    failure_share: Numbers

    @property
    def fixed_usd(self) -> Numbers:
        """Return all that is spent whatever the volume."""
        return self.design_usd + self.silicon_usd + self.production_usd

    def npv_usd(self, volume: Numbers | None = None) -> Numbers:
        """Return the net present value if the chip works: volume x unit - fixed."""
        return (self.volume if volume is None else volume) * self.unit_usd - self.fixed_usd

    @property
    def break_even(self) -> Numbers:
        """Return the volume at which the value is 0 if the chip works; infinite where no unit saves."""
        return _over(self.fixed_usd, self.unit_usd)

    @property
    def risked_break_even(self) -> Numbers:
        """Return the volume at which the mean over works and fails is 0; one that fails is stopped."""
        works = np.maximum(1 - self.failure_share, 1e-12)
        spent = self.design_usd + self.silicon_usd + works * self.production_usd
        return _over(spent, works * self.unit_usd)

    def odds(self, volume: Numbers | None = None) -> tuple[float, float]:
        """Return the chance of a value above 0, of a chip that works and with those that fail."""
        pays = np.asarray(self.npv_usd(volume) > 0, dtype=float)
        return float(pays.mean()), float((pays * (1 - self.failure_share)).mean())

    def outcome_usd(self, stop: int, volume: Numbers | None = None) -> Numbers:
        """Return the value with the chance of failure: its mean over works and fails.

        `stop` is the number of gates at which one may stop: 0 none, 1 where first chips show whether it
        works and what it saves, 2 also at tape-out, where all is known but whether it will work.
        """
        saved = (self.volume if volume is None else volume) * self.unit_usd
        works, after = 1 - self.failure_share, self.production_usd
        if stop == 0:
            return works * saved - self.fixed_usd
        built = works * np.maximum(saved - after, 0.0) - self.silicon_usd
        return (np.maximum(built, 0.0) if stop > 1 else built) - self.design_usd

    def gates(self) -> tuple[GateAnswer, ...]:
        """Return the gates, each with what being able to stop there is worth beyond the others."""
        values = [mean(self.outcome_usd(stop)) for stop in (0, 1, 2)]
        saved = self.volume * self.unit_usd
        works = 1 - self.failure_share
        built = works * np.maximum(saved - self.production_usd, 0.0) - self.silicon_usd
        late = 1 - works * (saved > self.production_usd)
        at, before = self.schedule, self.design_usd
        return (
            GateAnswer("tape-out", mean(at.tape_out), mean(before), mean(built <= 0), values[2] - values[1]),
            GateAnswer(
                "first chips",
                mean(at.first_chips),
                mean(before + self.silicon_usd),
                mean(late),
                values[1] - values[0],
            ),
        )


def _over(spent: Numbers, unit: Numbers) -> Numbers:
    """Return a break-even volume; infinite where a unit saves less than a cent."""
    return np.where(unit > LEAST_USD, spent / np.maximum(unit, LEAST_USD), np.inf)


def spread(rate: Numbers, start: Numbers, end: Numbers) -> Numbers:
    """Return what 1 is worth today, spent evenly from `start` to `end`: the mean of (1 + rate)^-t."""
    force = np.log1p(np.maximum(rate, 1e-9))
    length = np.maximum(end - start, 1e-9)
    return np.exp(-force * start) * -np.expm1(-force * length) / (force * length)


def schedule(at: Values, respins: Numbers, extra_weeks: Numbers = 0.0) -> Milestones:
    """Return when what is done: each step after the one before, each respin redesign, foundry and package.

    `extra_weeks` are a slip beyond those of the scenario, at the end of design.
    """
    key = "programme."
    tape_out = at(key + "design_weeks") + at(key + "late_years") * WEEKS_PER_YEAR + extra_weeks
    foundry = tape_out + at(key + "queue_weeks")
    packaging = foundry + at(key + "foundry_weeks")
    first = packaging + at(key + "package_test_weeks")
    again = at(key + "respin_weeks") + at(key + "foundry_weeks") + at(key + "package_test_weeks")
    slip = at(key + "supply_slip_weeks") * (1 - at(key + "second_source_share"))
    production = first + at(key + "bring_up_weeks") + respins * again + slip
    late = at(key + "late_years") * WEEKS_PER_YEAR + at(key + "queue_weeks") + respins * again + slip
    facts = at.scenario.programme
    seen = late if facts is not None and facts.compared_at == "plan" else 0.0
    return Milestones(tape_out, foundry, packaging, first, production, seen + extra_weeks)


def own_device(scenario: Scenario, option: str) -> str:
    """Return the own device of an option; raise `UserError` where there is none."""
    for name in scenario.option[option].values():
        if isinstance(scenario.device[name], OwnDevice):
            return name
    raise UserError(f"option '{option}' has no device of kind 'own': a programme is for one's own chip")


def programme(
    scenario: Scenario,
    option: str,
    samples: Mapping[str, Numbers] | None = None,
    extra_weeks: Numbers = 0.0,
) -> ProgrammeResult:
    """Return what the programme of an option's own device comes to beside the baseline.

    Raises `UserError` for a scenario without `[programme]`, and for an option without an own device.
    """
    if scenario.programme is None:
        raise UserError("the scenario has no [programme]: add the table, empty to take the shipped numbers")
    at, name = Values(scenario, samples or {}), own_device(scenario, option)
    own, base = (evaluate(scenario, each, samples) for each in (option, scenario.baseline))
    when = schedule(at, at(f"device.{name}.respins"), extra_weeks)
    moved = [w for w, d in scenario.option[option].items() if isinstance(scenario.device[d], OwnDevice)]
    volume, chips = _devices(base, moved), _devices(own, moved)
    design, silicon, production = _spending(at, name, when)
    unit = _unit_usd(at, (base, own), when) / np.maximum(volume, 1)
    failure = at("programme.failure_share")
    chips_per_unit = chips / np.maximum(volume, 1)
    return ProgrammeResult(when, design, silicon, production, unit, volume, chips_per_unit, failure)


def _devices(result: FleetResult, works: list[str]) -> Numbers:
    shares = [share for pool in result.pools for share in pool.works if share.work in works]
    return total(share.devices for share in shares)


def _spending(at: Values, name: str, when: Milestones) -> tuple[Numbers, Numbers, Numbers]:
    """Return what is spent on design, on first chips and after, as it is worth at the start.

    Design is paid for evenly up to tape-out; IP, too; masks at tape-out; further masks when production
    begins; software from the start to the last purchase. A second foundry asks for part of it again.
    """
    key, rate = f"device.{name}.", at("finance.wacc_per_year")
    masks, software = at(key + "mask_usd"), at(key + "software_usd_per_year")
    twice = 1 + at("programme.second_source_nre_share") * (at("programme.second_source_share") > 0)
    tape_out, first, begin = (w / WEEKS_PER_YEAR for w in (when.tape_out, when.first_chips, when.production))
    end = begin + at("programme.production_years")
    design = (at(key + "nre_usd") * twice + at(key + "ip_usd")) * spread(rate, 0.0, tape_out)
    design = design + software * tape_out * spread(rate, 0.0, tape_out)
    silicon = masks * twice * (1 + rate) ** -tape_out
    silicon = silicon + software * (first - tape_out) * spread(rate, tape_out, first)
    after = masks * at(key + "respins") * (1 + rate) ** -begin
    after = after + software * (end - first) * spread(rate, first, end)
    part = at(key + "volume_share")
    return part * design, part * silicon, part * after


def _unit_usd(at: Values, results: tuple[FleetResult, FleetResult], when: Milestones) -> Numbers:
    """Return what the whole fleet saves, as it is worth at the start, bought evenly over the years of buying.

    Each purchase saves for as long as its servers live. Where the bought device has become the cheaper one,
    it is bought, and the chip saves nothing more.
    """
    rate, life = at("finance.wacc_per_year"), at("finance.server_life_years")
    begin, late = when.production / WEEKS_PER_YEAR, when.delay / WEEKS_PER_YEAR
    saved: Numbers = 0.0
    for step in range(PURCHASES):
        since = (step + 0.5) / PURCHASES * at("programme.production_years")
        base, own = (yearly_usd(at, result, late + since) for result in results)
        saved = saved + np.maximum(base - own, 0.0) * (1 + rate) ** -(begin + since)
    return money.present_value(saved / PURCHASES, rate, life)


def yearly_usd(at: Values, result: FleetResult, years: Numbers) -> Numbers:
    """Return what an option costs a year, bought so many years after the plan's date; its programme apart.

    What bought devices cost for their price falls by `gpu_usd_gain_per_year`, what they cost for their power
    by `gpu_w_gain_per_year`; own ones stay as they were taped out.
    """
    return total(_pool_usd(at, pool, years) for pool in result.pools)


def _pool_usd(at: Values, pool: FleetPool, years: Numbers) -> Numbers:
    if isinstance(at.scenario.device[pool.device], OwnDevice):
        return pool.costs.recurring_usd
    power = total(getattr(pool.costs, part) for part in BY_POWER)
    price = pool.costs.recurring_usd - power
    by_price = (1 + at("programme.gpu_usd_gain_per_year")) ** -years
    return price * by_price + power * (1 + at("programme.gpu_w_gain_per_year")) ** -years
