"""The command `mtia-emu fleet`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from . import options as o
from .fleet_programme import print_programme
from .output import console, say

if TYPE_CHECKING:
    from ..fleet.answer import FleetAnswer, OptionAnswer
    from ..fleet.hourly import HourlyAnswer
    from ..fleet.sampling import Percentiles

WORDS = {  # parts of measures' names, as people read them
    "usd_per_million.": "$/million ",
    "_per_year": "/year",
    "musd": "M$",
    "tco2e": "tCO2e",
    "mw": "MW",
    "gwh": "GWh",
    "_": " ",
}
TOP = 12  # rows of the tornado
SETTING = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change an input of the scenario, as in --set site.pue=1.2; may be repeated.",
)


@click.command(short_help="Price a fleet: chips, megawatts, dollars and carbon.")
@click.argument("scenario", shell_complete=o.complete("none", files=(".toml",)))
@SETTING
@click.option(
    "--samples",
    type=click.IntRange(2, 1 << 18),
    metavar="INT",
    default=4096,
    show_default=True,
    help="Samples of all inputs, rounded up to a power of two.",
)
@click.option(
    "--seed", type=click.IntRange(0), metavar="INT", default=0, show_default=True, help="Seed of the samples."
)
@click.option(
    "--shares", is_flag=True, help="Print Sobol's indices: the share of the spread that each input makes."
)
@click.option("--inputs", is_flag=True, help="Print every input with its band, source and status.")
@click.option("-o", "--output", metavar="FILE.html", callback=o.target, help="Write the answer as one page.")
@o.JSON
def fleet(
    scenario: str, settings: tuple[str, ...], inputs: bool, output: str | None, json_file: str | None,
    **drawn: Any,
) -> None:  # fmt: skip
    """Answer a SCENARIO file: chips, megawatts, dollars a year and CO2e of each way to equip a fleet.

    Every input has a band; answers come as 5th, 50th and 95th percentile, of all samples and of those that
    agree with what is published.

    \b
    Examples:
      mtia-emu fleet examples/fleet-mtia-2i.toml
      mtia-emu fleet examples/fleet-mtia-2i.toml --set site.usd_per_kwh=0.06
      mtia-emu fleet examples/fleet-mtia-2i.toml -o fleet.html
      mtia-emu fleet examples/fleet-mtia-2i.toml --json -
    """
    from ..files.writing import json_text, write_json
    from ..fleet.answer import fleet as answer_of
    from ..fleet.answer_json import as_json
    from ..fleet.load import parse_settings

    if output is not None and not output.endswith(".html"):
        raise UserError(f"-o {output!r}: a page is .html")
    answer = answer_of(scenario, parse_settings(settings), **drawn)  # samples, seed, shares
    if output is not None:
        from ..fleet.page import write_fleet_page

        write_fleet_page(output, answer)
    if json_file == "-":
        say(json_text(as_json(answer)), nl=False)
        return
    if json_file is not None:
        write_json(json_file, as_json(answer))
    _print(answer)
    print_programme(answer)
    if inputs:
        _print_inputs(answer)


def _print(answer: FleetAnswer) -> None:
    spreads = [_spread(answer, one) for one in answer.options] if len(answer.kept) > 1 else []
    tables = [
        _central(answer),
        _costs(answer),
        *spreads,
        _hourly(answer),
        _published(answer),
        _tornado(answer),
        _shares(answer),
    ]
    for title, columns, rows in tables:
        if rows:
            _table(title, columns, rows)
    count, kept = len(answer.kept), answer.survivors
    if answer.anchors:
        say(f"{kept:,} of {count:,} samples agree with what is published; the others are left out")
        from ..fleet.sampling import FEW

        if kept < FEW:
            say(f"note: so few samples say little; ask for more with --samples (now {count:,})")
    elif any(device.kind == "own" for device in answer.scenario.device.values()):
        say("note: nothing published conditions these samples: an own chip looks better than it will be")
    _say_odds(answer)
    every = answer.scenario.quantities
    unsure = [key for key, quantity in every.items() if quantity.is_unsure]
    say(f"{len(unsure)} of {len(every)} inputs are guesses or estimates (--inputs prints all)")


def _say_odds(answer: FleetAnswer) -> None:
    """Say how often options cost less than the baseline: no saving is told without volume, year and odds."""
    from ..fleet.verdict import chance

    scenario, parts = answer.scenario, []
    for name, work in scenario.work.items():
        parts.append(f"{number(work.mean_per_s.value)} {work.unit} a second of {name}")
    for one in answer.options:
        if one.option != scenario.baseline:
            say(
                f"'{one.option}' costs less than '{scenario.baseline}' in {chance(one.odds)} of samples, in "
                f"a year of full use at {', '.join(parts)}, both at today's prices, in dollars of "
                f"{scenario.currency_year}; not whether a programme pays: rivals move while a chip is made"
            )


Rows = tuple[str, list[str], list[list[str]]]


def _table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from ..view.terminal import print_table

    print_table(title, columns, rows, console())


def number(value: float) -> str:
    """Return a number with three or four significant digits and thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def _central(answer: FleetAnswer) -> Rows:
    from ..fleet.measures import SAVING

    names = [name for name in answer.options[0].central if name != SAVING]  # which needs its odds
    rows = [[_words(name), *(number(one.central[name]) for one in answer.options)] for name in names]
    title = f"{answer.scenario.name}: central values, dollars of {answer.scenario.currency_year}"
    return title, ["", *(one.option for one in answer.options)], rows


def _words(name: str) -> str:
    """Return a measure's name as it heads a row."""
    for key, word in WORDS.items():
        name = name.replace(key, word)
    return name


def _costs(answer: FleetAnswer) -> Rows:
    rows = []
    for one in answer.options:
        for pool in one.result.pools:
            total = float(pool.costs.total_usd)
            rows += [
                [
                    one.option,
                    pool.device,
                    part.removesuffix("_usd"),
                    number(float(usd) / 1e6),
                    f"{float(usd) / total:.1%}",
                ]
                for part, usd in vars(pool.costs).items()
                if usd
            ]
    return "what it costs a year", ["option", "device", "part", "M$", "share"], rows


def _spread(answer: FleetAnswer, one: OptionAnswer) -> Rows:
    def cells(*bands: Percentiles) -> list[str]:
        return [cell for x in bands for cell in (number(x.p50), f"{number(x.p5)} to {number(x.p95)}")]

    shown = ("devices", "mw", "musd_per_year", "saving_musd_per_year", "location_tco2e_per_year")
    rows = [
        [_words(name), *cells(one.prior[name], *([one.conditioned[name]] if answer.anchors else []))]
        for name in shown
        if one.option != answer.scenario.baseline or not name.startswith("saving")
    ]
    if not answer.anchors:
        return f"'{one.option}': all samples", ["", "50 %", "5 to 95 %"], rows
    columns = ["", "all: 50 %", "5 to 95 %", "agreeing: 50 %", "5 to 95 %"]
    return f"'{one.option}': all samples, and those that agree with what is published", columns, rows


def _hourly(answer: FleetAnswer) -> Rows:
    known = [(one, one.hourly) for one in answer.options if one.hourly is not None]
    year = {one.option: one.central["gwh_per_year"] * 1e3 for one, _ in known}
    lines: list[tuple[str, Callable[[OptionAnswer, HourlyAnswer], str]]] = [
        ("wind bought, of the mean load", lambda one, x: f"{x.portfolio.wind:.1%}"),
        ("sun bought", lambda one, x: f"{x.portfolio.sun:.1%}"),
        ("battery, hours of the mean load", lambda one, x: f"{x.portfolio.battery_hours:.1f}"),
        ("bought over drawn, a year", lambda one, x: f"{x.annual_share:.1%}"),
        ("covered in the same hour", lambda one, x: f"{x.coverage:.1%}"),
        ("thrown away, of what is bought", lambda one, x: f"{x.curtailed_share:.1%}"),
        ("tCO2e/year without purchases", lambda one, x: number(year[one.option] * x.location_kg_per_kwh)),
        ("tCO2e/year with them", lambda one, x: number(year[one.option] * x.residual_kg_per_kwh)),
    ]
    rows = [[text, *(show(one, found) for one, found in known)] for text, show in lines] if known else []
    grid = known[0][1].grid if known else ""
    return f"purchases by the hour on {grid}, life-cycle factors", ["", *year], rows


def _published(answer: FleetAnswer) -> Rows:
    rows = [
        [f"{one.anchor.measure} of {one.anchor.of} beside {one.anchor.beside}",
         f"{one.anchor.value:g} ({one.anchor.low:g} to {one.anchor.high:g})", number(one.central),
         number(one.prior.p50), number(one.conditioned.p50)]
        for one in answer.anchors
    ]  # fmt: skip
    return "published ratios", ["ratio", "published", "central", "all samples", "agreeing"], rows


def _tornado(answer: FleetAnswer) -> Rows:
    rows = [[x.key, number(x.low), number(x.high), number(x.width)] for x in answer.swings[:TOP]]
    others = len(answer.options) > 1
    what = f"saving of '{answer.about}', M$ a year" if others else f"cost of '{answer.about}', M$ a year"
    return (
        f"{what}: one input at a time, others central",
        ["input", "at its low end", "at its high end", "apart"],
        rows,
    )


def _shares(answer: FleetAnswer) -> Rows:
    rows = [[x.key, f"{x.first:.1%}", f"{x.total:.1%}"] for x in answer.influences[:TOP]]
    return "shares of the variance, before conditioning (Sobol)", ["input", "alone", "with others"], rows


def _print_inputs(answer: FleetAnswer) -> None:
    say("\ninputs")
    for key, quantity in answer.scenario.quantities.items():
        low, high = quantity.ends
        spread = f" ({low:g} to {high:g}, {quantity.shape})" if quantity.varies else ""
        say(f"  {key} = {quantity.value:g}{spread}\n      {quantity.status}: {quantity.source}")
