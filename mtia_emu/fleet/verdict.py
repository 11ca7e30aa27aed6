"""The verdict in words: never an amount saved without its volume, the year of its dollars and its odds."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError
from ..view.html.scales import dollars, plain
from .answer import FleetAnswer
from .measures import SAVING
from .prospect import Prospect
from .sampling import Percentiles


@dataclass(frozen=True)
class Saving:
    """An amount saved, and what makes it a claim: at which volume, in dollars of which year, how likely."""

    usd: Percentiles
    volume: str
    year: int
    odds: float

    def __str__(self) -> str:
        band = f"{dollars(self.usd.p50)} ({dollars(self.usd.p5)} to {dollars(self.usd.p95)})"
        return f"{band} in dollars of {self.year}, at {self.volume}, with odds of {chance(self.odds)}"


def chance(share: float) -> str:
    """Return odds in whole percent; samples never make anything sure or impossible."""
    if share < 0.01:
        return "under 1%"
    if share > 0.99:
        return "over 99%"
    return f"{100 * share:.0f}%"


def verdict(answer: FleetAnswer, found: Prospect | None) -> str:
    """Return one sentence: start the programme or not, or what another option costs beside the baseline.

    Raises `UserError` for a programme whose rival stands still: that is no break-even.
    """
    if found is not None:
        return _of_programme(answer, found)
    scenario = answer.scenario
    if answer.about == scenario.baseline:
        return _of_one(answer)
    one = answer.option(answer.about)
    saved = one.conditioned[SAVING]
    usd = Percentiles(*(1e6 * x for x in (saved.p5, saved.p50, saved.p95, saved.mean)))
    devices = answer.option(scenario.baseline).central["devices"]
    volume = f"the work of {devices:,.0f} devices of '{scenario.baseline}'"
    claim = Saving(usd, volume, scenario.currency_year, one.odds)
    if saved.p50 < 0:
        return (
            f"'{answer.about}' costs more than '{scenario.baseline}': {dollars(-usd.p50)} a year more "
            f"({dollars(-usd.p95)} to {dollars(-usd.p5)}) in dollars of {scenario.currency_year}, at "
            f"{volume}; the odds that it costs less are {chance(one.odds)}."
        )
    return f"'{answer.about}' costs less than '{scenario.baseline}': it saves {claim} of any saving a year."


def _of_one(answer: FleetAnswer) -> str:
    """Return what the only option comes to."""
    one, year = answer.option(answer.about), answer.scenario.currency_year
    cost = one.conditioned["musd_per_year"]
    band = f"{dollars(1e6 * cost.p5)} to {dollars(1e6 * cost.p95)}"
    devices, mw = (one.conditioned[name].p50 for name in ("devices", "mw"))
    return (
        f"{devices:,.0f} devices draw {plain(mw)} MW and cost {dollars(1e6 * cost.p50)} a year "
        f"({band}, nine times in ten), in dollars of {year}."
    )


def _of_programme(answer: FleetAnswer, found: Prospect) -> str:
    facts = answer.scenario.programme
    if facts is not None and facts.gpu_usd_gain_per_year.ends[1] <= 0:
        raise UserError(
            "programme.gpu_usd_gain_per_year is 0: a break-even beside a price that stands still is none "
            "(right: a band above 0)"
        )
    worth, year = found.conditioned, answer.scenario.currency_year
    odds, even = worth.odds, worth.break_even
    place = f"at {found.volume:,.0f} GPU-equivalents"
    start = worth.outcome_usd > 0
    word = f"Start the programme {place}" if start else f"Do not start the programme {place}"
    return (
        f"{word}: it pays with odds of {chance(odds.risked)} ({chance(odds.works)} if the chip works), "
        f"its mean value is {dollars(worth.outcome_usd)} in dollars of {year}, and a chip that works breaks "
        f"even at {rounded(even.p50)} GPU-equivalents ({rounded(even.p5)} to {rounded(even.p95)})."
    )


def rounded(volume: float) -> str:
    """Return a volume in two digits with thousands apart; "no volume" where it is infinite."""
    return "no volume" if volume == float("inf") else f"{float(f'{volume:.2g}'):,.0f}"
