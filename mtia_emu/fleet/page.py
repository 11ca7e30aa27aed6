"""A fleet as one page that is read in a minute: the verdict, four numbers, figures, what would change it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from .. import __version__
from ..view.html import page as html
from ..view.html.elements import Element, el
from ..view.html.scales import dollars, plain
from . import charts
from .answer import HOURLY, FleetAnswer, OptionAnswer
from .prospect import Prospect, has_programme, prospect
from .quantity import Quantity
from .sampling import FEW, Percentiles, Swing
from .verdict import rounded, verdict

INPUT_COLUMNS = ("input", "value (low to high)", "status", "source")
MOST_CHANGES = 5


def fleet_page(answer: FleetAnswer) -> str:
    """Return the page of an answer as HTML."""
    found = programme_of(answer)
    return html.page(f"Fleet: {answer.scenario.name}", list(_parts(answer, found)))


def write_fleet_page(path: str | os.PathLike[str], answer: FleetAnswer) -> None:
    """Write the page of an answer to a file."""
    found = programme_of(answer)
    html.write_page(path, f"Fleet: {answer.scenario.name}", list(_parts(answer, found)))


def programme_of(answer: FleetAnswer) -> Prospect | None:
    """Return what is said of the programme, where there is one and inputs vary."""
    there = len(answer.kept) > 1 and has_programme(answer.scenario, answer.about)
    return prospect(answer) if there else None


def _parts(answer: FleetAnswer, found: Prospect | None) -> Iterator[Element]:
    scenario, one = answer.scenario, answer.option(answer.about)
    few = len(answer.kept) > 1 and answer.survivors < FEW
    warning = f" Only {answer.survivors} samples agree with what is published: ask for more." if few else ""
    beside = f", beside '{scenario.baseline}'" if answer.about != scenario.baseline else ""
    yield html.header(
        f"Fleet: {scenario.name}",
        verdict(answer, found),
        f"{scenario.text}. Shown: '{answer.about}'{beside}; dollars of {scenario.currency_year}.{warning}",
    )
    yield html.tiles(list(_tiles(answer, one, found)))
    yield html.figure(charts.power(answer))
    yield html.figure(charts.tornado(answer, found))
    if found is not None:
        yield html.figure(charts.odds(found))
    if one.hourly is not None:
        yield html.figure(charts.carbon(one.hourly))
    yield html.figure(charts.costs(answer))
    if found is not None:
        yield html.figure(charts.schedule(answer, found))
    yield html.section("What would change it", html.notes(list(changes(answer, found))), size="half")
    yield html.section("Inputs", *_inputs(answer, found))
    yield html.footer(_footer(answer))


def _tiles(answer: FleetAnswer, one: OptionAnswer, found: Prospect | None) -> Iterator[html.Tile]:
    base = answer.option(answer.scenario.baseline)
    note = f"'{base.option}': {_size(base)}" if one is not base else "at the meter, mean of a year"
    yield html.Tile("Chips and mean power at the meter", _size(one), note)
    cost = one.conditioned["musd_per_year"]
    worth = found.conditioned.npv_usd if found else None
    note = f"NPV if the chip works {_band(worth)}" if worth else f"({_ends(cost, 1e6)})"
    yield html.Tile("Dollars a year", dollars(cost.p50 * 1e6), note)
    yield _carbon(one)
    if found is not None:
        kept, prior = found.conditioned.break_even, found.prior.break_even
        note = f"GPU-equivalents ({rounded(kept.p5)} to {rounded(kept.p95)}); "
        note += f"before conditioning {rounded(prior.p50)}"
        yield html.Tile("Break-even volume if it works", rounded(kept.p50), note)
    else:
        energy = one.conditioned["energy_musd_per_year"]
        yield html.Tile("The energy bill a year", dollars(energy.p50 * 1e6), f"({_ends(energy, 1e6)})")


def _size(one: OptionAnswer) -> str:
    devices, mw = (one.conditioned[name].p50 for name in ("devices", "mw"))
    return f"{plain(devices)} chips, {plain(mw)} MW"


def _band(spread: Percentiles, scale: float = 1.0) -> str:
    return f"{dollars(spread.p50 * scale)} ({_ends(spread, scale)})"


def _ends(spread: Percentiles, scale: float) -> str:
    return f"{dollars(spread.p5 * scale)} to {dollars(spread.p95 * scale)}"


def _carbon(one: OptionAnswer) -> html.Tile:
    """Return carbon by every method that there is: the location-based one first, never another alone."""
    by_grid = one.conditioned["location_tco2e_per_year"].p50
    made = one.conditioned["embodied_tco2e_per_year"]
    notes = [f"making things {plain(made.p50)} ({plain(made.p5)} to {plain(made.p95)})"]
    if one.hourly is not None:
        notes.insert(0, f"{plain(one.conditioned[HOURLY].p50)} by the hour after purchases")
    market = [pool.carbon.market_kg for pool in one.result.pools if pool.carbon.market_kg is not None]
    if market:
        notes.append(f"{plain(float(sum(market)) / 1000)} by contracts")
    return html.Tile("tCO2e a year, by the grid", plain(by_grid), "; ".join(notes))


def changes(answer: FleetAnswer, found: Prospect | None) -> Iterator[str]:
    """Yield what would turn the verdict, one input or fact at a time."""
    yield from _of_swings(answer, *charts.moved(answer, found))
    if found is None:
        return
    even = found.conditioned.break_even.p50
    if math.isfinite(even):
        yield f"Volume: from {rounded(even)} GPU-equivalents on, a chip that works likely pays."
    late = next(x for x in found.slips if x.weeks == 26)
    yield (
        f"Time: half a year more before production costs {dollars(late.usd)} on average, "
        f"{dollars(late.with_second_usd)} where half of the supply has a second source."
    )
    tape_out, first = found.conditioned.gates
    yield (
        f"Stopping: at first chips {dollars(first.spent_usd)} are spent; being able to stop there is worth "
        f"{dollars(first.worth_usd)}, at tape-out {dollars(tape_out.worth_usd)} more."
    )
    exact = found.insights_at_even[0]
    rough = next(x for x in found.insights_at_even if x.error_share == 0.2)
    yield (
        "Knowing: at the volume where the decision is hardest, an exact estimate of the chip's rate is worth "
        f"{dollars(exact.usd)}, one with an error of 20% {dollars(rough.usd)}."
    )


def _of_swings(answer: FleetAnswer, swings: tuple[Swing, ...], base: float) -> Iterator[str]:
    """Yield the inputs whose ends alone turn the sign of a mean."""
    known, found = answer.scenario.quantities, 0
    alone = answer.about == answer.scenario.baseline  # then a cost, which has no sign to turn
    for swing in swings:
        for end, value in zip(known[swing.key].ends, (swing.low, swing.high), strict=True):
            if (alone or (value > 0) != (base > 0)) and found < MOST_CHANGES:
                found += 1
                name = charts.name_of(swing.key)
                yield f"{name}: {plain(end)} makes it {dollars(value)} in place of {dollars(base)}."
    if not found:
        yield "No input alone, within its band, turns the sign of the mean."


def _inputs(answer: FleetAnswer, found: Prospect | None) -> Iterator[Element]:
    """Return the inputs that matter most, and all of them to unfold; guesses are shaded."""
    every = answer.scenario.quantities
    top = [swing.key for swing in charts.moved(answer, found)[0][: charts.TOP]]
    unsure = sum(quantity.is_unsure for quantity in every.values())
    yield html.paragraph(
        f"{unsure} of {len(every)} inputs are guesses or estimates (shaded). First those that matter most."
    )
    yield _table({key: every[key] for key in top}, "The inputs that matter most")
    yield el("details", el("summary", f"All {len(every)} inputs"), _table(dict(every), "All inputs"))


def _table(inputs: dict[str, Quantity], caption: str) -> Element:
    rows = [[key, charts.band_of(q), q.status, q.source] for key, q in inputs.items()]
    shaded = [number for number, q in enumerate(inputs.values()) if q.is_unsure]
    return html.table(INPUT_COLUMNS, rows, caption=caption, shaded=shaded)


def _footer(answer: FleetAnswer) -> str:
    kept = ""
    if answer.anchors:
        kept = f" {answer.survivors:,} of {len(answer.kept):,} samples agree with what is published."
    return (
        f"mtia-emu {__version__}. Bands hold nine samples in ten.{kept} Odds are those of the model and its "
        "inputs, no promise."
    )
