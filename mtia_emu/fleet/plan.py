"""Which device for which work, and when: what is bought, placed and retired by quarter at least cost.

A mixed-integer linear programme, solved by HiGHS. Whether an own chip is designed at all is a yes or no; all
else is a number of devices. With that choice held, a linear programme says what one unit more of each limit
is worth: the dual values ("shadow prices") of power, wafers, supply and capital.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import UserError, nearest
from . import money
from .model import WAFER_MM, Values, good_dies, one_device, rate
from .plan_problem import LIMITS, Problem, Solution, solve
from .programme import BY_POWER, WEEKS_PER_YEAR, schedule
from .quantity import Array, Numbers
from .sampling import SAMPLES, conditioned, draw
from .scenario import OwnDevice, PlanFacts, Scenario

QUARTERS = 4  # of a year: the plan's steps
UNITS = {  # of a limit: what one more of it is called, and how many of the programme's own units it is
    "power": ("MW for a year", QUARTERS),
    "capital": ("$ of capital", 1),
    "wafers": ("wafer", 1),
}


@dataclass(frozen=True)
class PlanStep:
    """A quarter: devices bought and in service, by name; what is drawn on of each limit."""

    quarter: int
    bought: Mapping[str, float]
    serving: Mapping[str, float]
    retired: Mapping[str, float]
    placed: Mapping[str, Mapping[str, float]]  # devices by work and name
    provisioned_mw: float
    capital_usd: float


@dataclass(frozen=True)
class ShadowPrice:
    """What one unit more of a limit would save over the whole plan, in dollars of its start."""

    limit: str
    unit: str
    usd: float
    binding_quarters: int


@dataclass(frozen=True)
class FleetPlan:
    """A plan: its quarters, its cost as it is worth at the start, and what its limits cost."""

    steps: tuple[PlanStep, ...]
    designed: tuple[str, ...]  # own devices whose design pays
    cost_usd: float
    bought_only_usd: float  # of the best plan without own devices; infinite where none keeps the limits
    prices: tuple[ShadowPrice, ...]
    month_usd: float  # what own devices a month earlier would save

    @property
    def years(self) -> list[tuple[PlanStep, ...]]:
        """Return the quarters of each year."""
        return [self.steps[start : start + QUARTERS] for start in range(0, len(self.steps), QUARTERS)]


def agreeing_means(scenario: Scenario, samples: int = SAMPLES, seed: int = 0) -> dict[str, float]:
    """Return each input's mean over the samples that agree with what is published."""
    kept = conditioned(scenario, draw(scenario, samples, seed)) if scenario.published else {}
    return {key: float(values.mean()) for key, values in kept.items()}


def plan(scenario: Scenario, samples: Mapping[str, Numbers] | None = None) -> FleetPlan:
    """Return the plan of least cost at central values, or at others by key.

    Raises `UserError` where the scenario has no `[plan]`, names an unknown device in it, or has limits that
    no plan keeps: then it says which work falls short, and when.
    """
    if scenario.plan is None:
        raise UserError("the scenario has no [plan]: add the table with years and growth_per_year")
    _known_names(scenario, scenario.plan)
    at = Values(scenario, samples or {})
    problem = _problem(at, scenario.plan)
    best = solve(problem)
    _refuse_shortage(problem, best)
    own = [n for n, name in enumerate(problem.devices) if problem.is_own[n]]
    without = solve(problem, designed=np.zeros(len(problem.devices), dtype=bool)) if own else best
    held = solve(problem, designed=best.designed)
    return FleetPlan(
        tuple(_step(problem, best, t) for t in range(problem.steps)),
        tuple(problem.devices[n] for n in own if best.designed[n]),
        best.cost_usd,
        without.cost_usd if without.shortage.max() < 1e-6 else float("inf"),
        tuple(_prices(problem, held)),
        _month_usd(problem, best) if best.designed.any() else 0.0,
    )


def _known_names(scenario: Scenario, facts: PlanFacts) -> None:
    for table in ("supply_per_year", "installed"):
        for name in getattr(facts, table):
            if name not in scenario.device:
                near = nearest(name, scenario.device)
                raise UserError(f"'plan.{table}.{name}': there is no such device{near}")


def _problem(at: Values, facts: PlanFacts) -> Problem:
    """Return the plan's numbers: all money is worth what it is at the start, a step is a quarter."""
    scenario, steps = at.scenario, facts.years * QUARTERS
    devices, works = list(scenario.device), list(scenario.work)
    demand = np.array([_peak(at, work) for work in works])[:, None]
    growth = (1 + facts.growth_per_year.value) ** (np.arange(steps) / QUARTERS)
    rates = np.array([[_rate(at, work, name) for name in devices] for work in works])
    own = np.array([isinstance(scenario.device[name], OwnDevice) for name in devices])
    if own.any() and scenario.programme is None:
        raise UserError(
            "a plan with own devices asks when they come: add a table [programme] to the scenario"
        )
    since = _described_years(at, [n for n, o in zip(devices, own, strict=True) if o])
    years = np.arange(steps) / QUARTERS - since
    costs = [_costs_of(at, name, works, years) for name in devices]
    return Problem(
        devices=tuple(devices), works=tuple(works), demand=demand * growth, rates=rates, is_own=own,
        life=max(round(float(at("finance.server_life_years")) * QUARTERS), 1),
        capital_usd=np.array([c.capital for c in costs]), held_usd=np.array([c.held for c in costs]),
        run_usd=np.array([c.run for c in costs]), power_mw=np.array([c.mw for c in costs]),
        discount=(1 + float(at("finance.wacc_per_year"))) ** -((np.arange(steps) + 0.5) / QUARTERS),
        ready=np.array([_ready(at, name) for name in devices]),
        design_usd=np.array([_design_usd(at, name, steps) for name in devices]),
        wafers=np.array([_wafers(at, name) for name in devices]),
        supply=np.array([_limit(facts.supply_per_year.get(name), QUARTERS) for name in devices]),
        installed=np.array([_limit(facts.installed.get(name), 1, 0.0) for name in devices]),
        limits={
            "power": _limit(facts.power_mw, 1), "wafers": _limit(facts.wafers_per_year, QUARTERS),
            "capital": _limit(facts.capital_musd_per_year, QUARTERS) * 1e6,
        },
    )  # fmt: skip


def _limit(quantity: object, parts: int, without: float = np.inf) -> float:
    value = getattr(quantity, "value", None)
    return without if value is None else float(value) / parts


def _peak(at: Values, work: str) -> float:
    key = f"work.{work}."
    return float(at(key + "mean_per_s") * at(key + "peak_over_mean") * (1 + at(key + "reserve_share")))


def _rate(at: Values, work: str, name: str) -> float:
    """Return a device's rate, less the devices that are in repair; 0 where it does not do the work."""
    if name not in at.scenario.work[work].on:
        return 0.0
    key = f"device.{name}."
    down = at(key + "failures_per_year") * at(key + "repair_days") / 365.25
    return float(rate(at, work, name) / (1 + down))


@dataclass(frozen=True)
class _DeviceCosts:
    """Of one device by the quarter in which it is bought, [steps]: dollars at once, a quarter, and MW."""

    capital: Array
    held: Array  # annuities of what was bought, a quarter, whether it serves or not
    run: Array  # energy, hall and maintenance, a quarter of service
    mw: Array


def _described_years(at: Values, own: list[str]) -> float:
    """Return when, in years from the start, the scenario's bought devices are sold, as a programme has it."""
    if not own:
        return 0.0
    when = schedule(at, at(f"device.{own[0]}.respins"))
    return float(when.production - when.delay) / WEEKS_PER_YEAR


def _costs_of(at: Values, name: str, works: list[str], years: Array) -> _DeviceCosts:
    """Return what a device costs, bought `years` after the scenario's, [steps]; bought ones get better."""
    work = next((w for w in works if name in at.scenario.work[w].on), None)
    if work is None:
        nothing = np.zeros(len(years))
        return _DeviceCosts(nothing, nothing, nothing, nothing)
    one = one_device(at, work, name, rate(at, work, name))
    price, power = np.ones(len(years)), np.ones(len(years))
    if not isinstance(at.scenario.device[name], OwnDevice) and at.scenario.programme is not None:
        price = (1 + float(at("programme.gpu_usd_gain_per_year"))) ** -years
        power = (1 + float(at("programme.gpu_w_gain_per_year"))) ** -years
    by_power = sum(float(getattr(one.costs, part)) for part in BY_POWER) / QUARTERS
    upkeep = float(one.costs.maintenance_usd) / QUARTERS
    held = float(one.costs.recurring_usd) / QUARTERS - by_power - upkeep
    return _DeviceCosts(
        float(one.capital_usd) * price, held * price, by_power * power + upkeep * price,
        float(one.provisioned_w) / 1e6 * power,
    )  # fmt: skip


def _ready(at: Values, name: str) -> int:
    """Return the first quarter in which a device can be bought."""
    if not isinstance(at.scenario.device[name], OwnDevice):
        return 0
    weeks = schedule(at, at(f"device.{name}.respins")).production
    return int(np.ceil(float(weeks) / WEEKS_PER_YEAR * QUARTERS))


def _design_usd(at: Values, name: str, steps: int) -> float:
    """Return what designing an own device costs, with its software until the plan ends."""
    if not isinstance(at.scenario.device[name], OwnDevice):
        return 0.0
    key, wacc = f"device.{name}.", float(at("finance.wacc_per_year"))
    design = money.design_usd(*(at(key + part) for part in ("nre_usd", "ip_usd", "mask_usd", "respins")))
    software = money.present_value(at(key + "software_usd_per_year"), wacc, steps / QUARTERS)
    return float(at(key + "volume_share") * (design + software))


def _wafers(at: Values, name: str) -> float:
    """Return the wafers that a device takes: its dies over the good ones of a wafer."""
    if not isinstance(at.scenario.device[name], OwnDevice):
        return 0.0
    each, good = good_dies(at, name)
    return float(at(f"device.{name}.dies") / (money.dies_per_wafer(each, WAFER_MM) * good))


def _refuse_shortage(problem: Problem, best: Solution) -> None:
    if best.shortage.max() < 1e-6:
        return
    work, step = np.unravel_index(int(best.shortage.argmax()), best.shortage.shape)
    first = int(np.flatnonzero(best.shortage.max(axis=0) > 1e-6)[0])
    limits = [name for name in LIMITS if np.isfinite(problem.limits[name])]
    limits += ["supply"] if np.isfinite(problem.supply).any() else []
    raise UserError(
        f"no plan keeps the limits ({', '.join(limits) or 'no device does the work'}): "
        f"'{problem.works[work]}' falls short by {best.shortage[work, step]:.0%} in quarter {step + 1}, the "
        f"first time in quarter {first + 1}; raise a limit, or lower the work or its growth"
    )


def _step(problem: Problem, best: Solution, t: int) -> PlanStep:
    names = problem.devices
    serving, retired = best.serving[:, t], best.owned[:, t] - best.serving[:, t]
    placed = {
        work: {
            name: float(best.placed[w, d, t]) for d, name in enumerate(names) if best.placed[w, d, t] > 0.5
        }
        for w, work in enumerate(problem.works)
    }
    bought, serves, idles = (
        dict(zip(names, map(float, counts), strict=True)) for counts in (best.bought[:, t], serving, retired)
    )
    mw, usd = float(best.used["power"][t]), float(best.used["capital"][t])
    return PlanStep(t + 1, bought, serves, idles, placed, mw, usd)


def _prices(problem: Problem, held: Solution) -> list[ShadowPrice]:
    """Return what one more of each limit is worth: of power a mean year, of others where they bind."""
    prices = []
    for limit, (unit, parts) in UNITS.items():
        if np.isfinite(problem.limits[limit]):
            duals = held.duals[limit]
            binding = int((duals > 1e-9).sum())
            usd = float(duals.sum()) * parts / max(binding if limit != "power" else problem.steps, 1)
            prices.append(ShadowPrice(limit, unit, usd, binding))
    for d, name in enumerate(problem.devices):
        if np.isfinite(problem.supply[d]):
            duals = held.supply_duals[d]
            binding = int((duals > 1e-9).sum())
            prices.append(
                ShadowPrice(f"supply of {name}", "device", float(duals.sum()) / max(binding, 1), binding)
            )
    return prices


def _month_usd(problem: Problem, best: Solution) -> float:
    """Return what a month earlier saves: a third of what a quarter does."""
    sooner = np.where(problem.is_own, np.maximum(problem.ready - 1, 0), problem.ready)
    earlier = solve(problem.readied(sooner), designed=best.designed)
    return (best.cost_usd - earlier.cost_usd) / 3


def as_json(found: FleetPlan) -> dict[str, Any]:
    """Return a plan as plain data; a cost that no plan has is null."""
    return {"format": "mtia-emu plan 1", **asdict(found)}
