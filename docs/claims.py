"""What was said of companies' own chips, each with the command that answers it: `docs/claims.md`.

    python docs/claims.py                        # print the tables
    python docs/generate.py docs/claims.md       # write them into the page

`data/claims.csv` has what was said, in our words, and where. A number that has odds gets its verdict from
them: "supported" from nine in ten on, "not supported" up to one in ten, "open" between.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from markdown_table import table

from mtia_emu.fleet.answer import FleetAnswer, fleet
from mtia_emu.fleet.measures import measured
from mtia_emu.fleet.model import Values, as_array, device_usd
from mtia_emu.fleet.prospect import Prospect, prospect
from mtia_emu.fleet.quantity import Array
from mtia_emu.fleet.sampling import Percentiles
from mtia_emu.fleet.verdict import chance, rounded
from mtia_emu.view.html.scales import dollars

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
OWN, GPU, LLAMA = (f"examples/fleet-{name}.toml" for name in ("mtia-2i", "h100", "llama"))
LOAD = "work.ranking.mean_per_s"
LARGE = (("340,000", 203_898), ("600,000", 359_820))  # GPU-equivalents, and the mean load that asks for them
SUPPORTED, REFUTED = 0.9, 0.1
WATTS_USD, GPU_USD, GPU_KW = (20e6, 20e6), (25e3, 36e3), (0.81, 1.28)  # a MW of site; a GPU all in; its kW
Rows = list[list[str]]


@dataclass(frozen=True)
class Said:
    """An answer: a number in words, its odds where it has some, a verdict where it has none."""

    number: str
    odds: float | None = None
    verdict: str = ""

    @property
    def judged(self) -> str:
        """Return the verdict: by the odds, with a remark where there is one."""
        if self.odds is None:
            return self.verdict
        word = "supported" if self.odds >= SUPPORTED else "not supported" if self.odds <= REFUTED else "open"
        return f"{word}{f': {self.verdict}' if self.verdict else ''}"


@cache
def answered(file: str, load: float = 0.0) -> FleetAnswer:
    """Return the answer to a scenario, at its load or at another."""
    return fleet(ROOT / file, {LOAD: load} if load else None, samples=16384)


@cache
def programme(load: float = 0.0) -> Prospect:
    """Return the programme of the recommendation chip."""
    return prospect(answered(OWN, load))


def kept(answer: FleetAnswer, option: str, measure: str) -> Array:
    """Return a measure, [n], over the samples that agree with what is published."""
    return as_array(measured(answer.scenario, option, answer.agreeing)[measure], answer.survivors)


def band(values: Array | Percentiles, show: Callable[[float], str]) -> str:
    """Return median and ends of nine samples in ten."""
    if isinstance(values, Percentiles):
        low, middle, high = values.p5, values.p50, values.p95
    else:
        low, middle, high = (float(x) for x in np.percentile(values, [5, 50, 95]))
    return f"{show(middle)} ({show(low)} to {show(high)})"


def massive_energy() -> Said:
    mw, gwh = (kept(answered(GPU), "gpu", name) for name in ("mw", "gwh_per_year"))
    text = f"{band(mw, lambda x: f'{x:,.0f}')} MW, {band(gwh / 1000, lambda x: f'{x:.2f}')} TWh a year"
    return Said(text, verdict="true")


def purchases() -> Said:
    price = answered(GPU).scenario.quantities["device.h100-sxm.price_usd"]
    low, high = (dollars(340_000 * x) for x in price.ends)
    return Said(f"340,000 boards at their price: {low} to {high}", verdict="true of 340,000")


def bill_of_more() -> Said:
    bill = kept(answered(GPU), "gpu", "energy_musd_per_year") * 1e6
    more = band(bill * 600 / 340, dollars)
    text = f"340,000: {band(bill, dollars)} of energy a year; 600,000: {more}"
    return Said(text, verdict="600,000 are H100-equivalents of compute, not boards")


def energy_saved() -> Said:
    """Return the chance of 100 M$ of energy a year, as published and at twice the work for a watt."""
    texts, odds = [], 0.0
    bill = kept(answered(GPU), "gpu", "energy_musd_per_year")
    for (name, load), scale in zip(LARGE, (1.0, 600 / 340), strict=True):
        answer = answered(OWN, load)
        base, own = (kept(answer, option, "energy_musd_per_year") for option in ("gpu", "own"))
        saved, twice = base - own, bill * scale / 2
        texts.append(
            f"at {name} GPU-equivalents a saving of {band(saved * 1e6, dollars)} a year, dollars of 2024; at "
            f"least $100 M with odds of "
            f"{chance(float(np.mean(saved >= 100)))}, at twice the work for a watt "
            f"{chance(float(np.mean(twice >= 100)))} ($200 M: {chance(float(np.mean(twice >= 200)))})"
        )
        odds = odds or float(np.mean(saved >= 100))
    return Said("; ".join(texts), odds, "at the work for a watt that was published")


def purchase_saved() -> Said:
    """Return what the chip saves at 340,000 GPU-equivalents, and the odds that its programme pays."""
    name, load = LARGE[0]
    worth = programme(load).conditioned
    saved = kept(answered(OWN, load), "own", "saving_musd_per_year") * 1e6
    odds = float(np.mean(saved >= 1e9))
    text = (
        f"at {name} GPU-equivalents, dollars of 2024: {band(saved, dollars)} a year once all is moved; net "
        f"present value {band(worth.npv_usd, dollars)} if it works; it pays with odds of "
        f"{chance(worth.odds.works)} if it works, {chance(worth.odds.risked)} with the chance of failure; at "
        f"least $1 B a year with odds of {chance(odds)}"
    )
    return Said(text, worth.odds.works, "at that volume, of a chip that works")


def margin() -> Said:
    answer = answered(OWN)
    make = as_array(device_usd(Values(answer.scenario, answer.agreeing), "mtia-2i"), answer.survivors)
    found = programme()
    design = found.conditioned.fixed_usd.p50 / (found.volume * float(np.mean(found.central.chips_per_unit)))
    text = (
        f"H100: price $20 k to $30 k, made for $3.3 k (analyst). Own chip: {band(make, dollars)} with its "
        f"partner's margin, and {dollars(design)} of design and software a chip at {found.volume:,.0f} "
        "GPU-equivalents; 2.2 to 4.5 chips and their hosts do the work of one GPU"
    )
    return Said(text, verdict="true of the purchase; what counts is the whole, below")


def running_cost() -> Said:
    answer = answered(OWN)
    shares = [kept(answer, "gpu", name) for name in ("energy_musd_per_year", "musd_per_year")]
    text = f"energy is {band(shares[0] / shares[1], lambda x: f'{x:.0%}')} of what GPUs cost a year"
    return Said(text, verdict="what is saved is capital, not power")


def per_watt() -> Said:
    anchor = next(x for x in answered(OWN).anchors if x.anchor.measure == "perf_per_w")
    kept_ratio = anchor.conditioned
    text = (
        f"work for a watt beside an H100: published {anchor.anchor.value} ({anchor.anchor.low} to "
        f"{anchor.anchor.high}) on nine models; samples that agree {band(kept_ratio, lambda x: f'{x:.2f}')}"
    )
    return Said(text, verdict="not supported by what was published")


def less_carbon() -> Said:
    answer = answered(OWN)
    total = [
        kept(answer, option, "location_tco2e_per_year") + kept(answer, option, "embodied_tco2e_per_year")
        for option in ("gpu", "own")
    ]
    less = (total[0] - total[1]) / total[0]
    odds = float(np.mean(less > 0.2))
    text = (
        f"CO2e a year, by the grid and of making things: {band(less, lambda x: f'{x:.0%}')} less than on "
        f"GPUs; at least a fifth less with odds of {chance(odds)}"
    )
    return Said(text, odds)


def renewable() -> Said:
    by_hour = answered(GPU).options[0].hourly
    assert by_hour is not None
    text = (
        f"purchases of {by_hour.annual_share:.0%} of the year's energy, with a battery of 4 h, cover "
        f"{by_hour.coverage:.0%} of it by the hour on {by_hour.grid}'s grid; "
        f"{by_hour.residual_kg_per_kwh * 1000:,.0f} of {by_hour.location_kg_per_kwh * 1000:,.0f} g/kWh stay"
    )
    return Said(text, verdict="a claim about a year, not about hours")


def cooling() -> Said:
    pue = answered(GPU).scenario.quantities["site.pue"].value
    return Said(f"a PUE of {pue:g} leaves at most {1 - 1 / pue:.1%} of the bill", verdict="nearly used up")


def break_even() -> Said:
    found = programme()
    both = [f"{name} {volumes(worth.break_even)}" for name, worth in
            (("over all samples", found.prior), ("of those that agree", found.conditioned))]  # fmt: skip
    return Said(f"break-even of a chip that works, GPU-equivalents: {'; '.join(both)}", verdict=(
        "plausible: hundreds of thousands of chips were deployed, about as many as break even"))  # fmt: skip


def volumes(x: Percentiles) -> str:
    """Return volumes in two digits."""
    return f"{rounded(x.p50)} ({rounded(x.p5)} to {rounded(x.p95)})"


def up_front() -> Said:
    fixed = programme().conditioned.fixed_usd
    return Said(f"design, masks and software: {band(fixed, dollars)}, whatever the volume", verdict="true")


def supply() -> Said:
    slips = {x.weeks: x for x in programme(LARGE[0][1]).slips}
    text = (
        f"at 340,000 GPU-equivalents 13 weeks late cost {dollars(slips[13].usd)} on average, "
        f"{dollars(slips[13].with_second_usd)} with half of the supply from a second source"
    )
    return Said(
        text, verdict="a chip of one's own waits for the same foundries; without HBM it waits for less"
    )


def stopped() -> Said:
    gate = programme().conditioned.gates[1]
    share = answered(OWN).scenario.quantities["programme.failure_share"]
    text = (
        f"chance of failure {share.value:.0%} ({share.ends[0]:.0%} to {share.ends[1]:.0%}): 3 of about 6 "
        f"known programmes were stopped; being able to stop at first chips is worth {dollars(gate.worth_usd)}"
    )
    return Said(text, verdict="true, and a cost that odds must hold")


def llama() -> Said:
    answer = answered(LLAMA)
    one = answer.option(answer.about)
    text = (
        f"serving an 8B model under its SLO on the next chip: it costs less than GPUs with odds of "
        f"{chance(one.odds)} at the volume of the example"
    )
    return Said(text, one.odds, "on MTIA 2i decode misses 60 ms a token with 16-bit weights (ISCA 2025)")


def gigawatts() -> Said:
    """Return what capital buys: a GW of IT is a GW of site, and GPUs of so many kW at so many dollars."""
    dear = WATTS_USD[1] * 1000 + GPU_USD[1] / GPU_KW[0] * 1e6
    cheap = WATTS_USD[0] * 1000 + GPU_USD[0] / GPU_KW[1] * 1e6
    ends = f"{65e9 / dear:.1f} to {65e9 / cheap:.1f} GW"
    text = f"a GW of IT costs {dollars(cheap)} to {dollars(dear)}, so $65 B are {ends}"
    return Said(text, verdict="possible; nothing published splits it")


def expenses() -> Said:
    return Said(
        f"$114 to 119 B were all expenses; capital spent was $60 to 65 B, of which {dollars(65e9 / 5.5)} a "
        "year are written off over 5.5 years: about a tenth of expenses",
        verdict="wrong: spending, writing off and expenses are three numbers",
    )


def growth() -> Said:
    iea, lbnl = (945 / 415) ** (1 / 6) - 1, (176 / 76) ** (1 / 5) - 1
    text = f"data centres of the world 415 to 945 TWh, 2024 to 2030: {iea:.1%} a year; of the US 76 to 176 "
    return Said(
        f"{text}TWh, 2018 to 2023: {lbnl:.1%} a year",
        verdict="a forecast and a fact; no chip explains either",
    )


ANSWERS: dict[str, Callable[[], Said]] = {
    f.__name__.replace("_", "-"): f
    for f in (
        massive_energy, growth, purchases, bill_of_more, energy_saved, purchase_saved, margin, running_cost,
        per_watt, less_carbon, renewable, cooling, break_even, up_front, supply, stopped, llama, gigawatts,
        expenses,
    )
}  # fmt: skip


def said() -> Iterator[dict[str, str]]:
    """Yield the rows of `data/claims.csv`."""
    with open(DOCS / "data" / "claims.csv", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def claims() -> str:
    """Return the table of claims."""
    rows = []
    for row in said():
        answer = ANSWERS[row["id"]]() if row["id"] in ANSWERS else Said(row["number"], verdict=row["verdict"])
        command = f"`{row['command']}`" if row["command"] else "arithmetic"
        rows.append([row["said"], row["where"], command, answer.number, answer.judged])
    return table(
        ["said", "where", "the command that answers it", "the number, with its odds", "verdict"], rows
    )


def claims_break_even() -> str:
    """Return break-even volumes, over all samples and over those that agree with what is published."""
    found = programme()
    a, b = found.prior, found.conditioned
    rows = [
        ["GPU-equivalents, if it works", volumes(a.break_even), volumes(b.break_even)],
        ["chips, if it works", volumes(a.break_even_chips), volumes(b.break_even_chips)],
        [
            "GPU-equivalents, with the chance of failure",
            volumes(a.risked_break_even),
            volumes(b.risked_break_even),
        ],
    ]
    count, survivors = len(answered(OWN).kept), answered(OWN).survivors
    heads = [
        "break-even volume",
        f"all {count:,} samples",
        f"the {survivors:,} that agree with what is published",
    ]
    inputs = answered(OWN).scenario.quantities
    unsure = sum(x.is_unsure for x in inputs.values())
    return f"{table(heads, rows)}\n\n{unsure} of the {len(inputs)} inputs are guesses or estimates."


SECTIONS: dict[str, Callable[[], str]] = {"claims": claims, "claims-break-even": claims_break_even}

if __name__ == "__main__":
    for section in SECTIONS.values():
        sys.stdout.write(section() + "\n\n")
