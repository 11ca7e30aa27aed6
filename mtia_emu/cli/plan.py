"""The command `mtia-emu plan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from . import options as o
from .fleet import SETTING
from .output import console, say

if TYPE_CHECKING:
    from ..fleet.plan import FleetPlan, PlanStep


@click.command(short_help="Plan a fleet: what to buy, place and retire, when.")
@click.argument("scenario", shell_complete=o.complete("none", files=(".toml",)))
@SETTING
@o.JSON
def plan(scenario: str, settings: tuple[str, ...], json_file: str | None) -> None:
    """Plan a SCENARIO with a table [plan]: which devices do which work, by quarter, at least cost.

    Within limits of power, capital, wafers and supply. Says what one more of each is worth, and a month.
    Inputs are at the mean of the samples that agree with what is published, or at their central values.

    \b
    Examples:
      mtia-emu plan examples/fleet-plan.toml
      mtia-emu plan examples/fleet-plan.toml --set plan.power_mw=400 --json -
    """
    from ..files.writing import json_text, write_json
    from ..fleet.load import load_scenario, parse_settings
    from ..fleet.plan import agreeing_means, as_json
    from ..fleet.plan import plan as plan_of

    given = load_scenario(scenario, parse_settings(settings))
    found = plan_of(given, agreeing_means(given))
    if json_file == "-":
        say(json_text(as_json(found)), nl=False)
        return
    if json_file is not None:
        write_json(json_file, as_json(found))
    _print(found, given.currency_year)


def _print(found: FleetPlan, currency_year: int) -> None:
    from ..view.html.scales import dollars
    from ..view.terminal import print_table

    years = list(enumerate(found.years, 1))
    rows = [row for year, steps in years for row in _devices(year, steps)]
    print_table("devices", ["year", "device", "bought", "serving at its end", "idle"], rows, console())
    totals = [_year(year, steps) for year, steps in years]
    print_table("power and capital", ["year", "MW at its end", "M$"], totals, console())
    if len(found.steps[0].placed) > 1:
        print_table("who does what at the end", ["work", "device", "devices"], _placed(found), console())
    prices = [[x.limit, x.unit, dollars(x.usd), f"{x.binding_quarters}"] for x in found.prices]
    if prices:
        columns = ["limit", "one", "worth", "quarters at the limit"]
        print_table("what one more is worth", columns, prices, console())
    for line in _said(found, currency_year):
        say(line)


def _devices(year: int, steps: Sequence[PlanStep]) -> list[list[str]]:
    last = steps[-1]
    rows = []
    for name in last.bought:
        bought = sum(x.bought[name] for x in steps)
        numbers = (bought, last.serving[name], last.retired[name])
        if max(numbers) >= 0.5:
            rows.append([f"{year}", name, *(f"{max(x, 0.0):,.0f}" for x in numbers)])
    return rows


def _year(year: int, steps: Sequence[PlanStep]) -> list[str]:
    capital = sum(x.capital_usd for x in steps)
    return [f"{year}", f"{steps[-1].provisioned_mw:,.0f}", f"{capital / 1e6:,.0f}"]


def _placed(found: FleetPlan) -> list[list[str]]:
    placed: Any = found.steps[-1].placed
    return [[work, name, f"{count:,.0f}"] for work, by in placed.items() for name, count in by.items()]


def _said(found: FleetPlan, year: int) -> list[str]:
    from ..view.html.scales import dollars

    cost = f"{dollars(found.cost_usd)} as it is worth at the start, dollars of {year}"
    lines = [f"the plan costs {cost}; designed: {', '.join(found.designed) or 'no own device'}"]
    if found.designed:
        without = found.bought_only_usd
        lines.append(
            "without own devices no plan keeps the limits"
            if without == float("inf")
            else f"without own devices it would cost {dollars(without)}"
        )
        lines.append(f"own devices a month earlier would be worth {dollars(found.month_usd)}")
    return lines
