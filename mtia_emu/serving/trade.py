"""Several ways to serve, side by side: what a chip gives against what a user gets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..view import units
from ..view.html.lines import ScatterChart, Spot
from ..view.html.page import figure, footer, header, notes, section, table, write_page
from ..view.html.scales import ChartAxis
from .printed import a_second

COLUMNS = ["", "served", "chip", "user", "first", "after", "a token"]
BEST, KEPT = "*", "kept"
MEANING = "tokens/s of a chip and a user, * none is better; first token and after, p99; energy"
SCHEMA = "mtia-emu.serving-ways.v1"


@dataclass(frozen=True)
class ServingWay:
    """A way to serve: what was chosen, as names and values, and how it went, as `as_json` says it."""

    chosen: Mapping[str, str]
    value: Mapping[str, Any]

    @property
    def values(self) -> list[str]:
        """What was chosen, of files their names alone."""
        return [Path(value).stem if "/" in value else value for value in self.chosen.values()]

    @property
    def name(self) -> str:
        """What was chosen, in one line."""
        return " ".join(f"{key}={value}" for key, value in zip(self.chosen, self.values, strict=True))

    @property
    def model(self) -> str:
        """The model that was served."""
        return str(self.value["model"])

    @property
    def machine(self) -> str:
        """What it ran on."""
        return str(self.value["machine"])

    @property
    def answers(self) -> Mapping[str, Any]:
        """What was answered."""
        found: Mapping[str, Any] = self.value["answers"]
        return found

    @property
    def chip_rate(self) -> float:
        """Output tokens a second of a chip."""
        return float(self.answers["output_tokens_per_s_per_chip"])

    @property
    def user_rate(self) -> float:
        """Output tokens a second of a user, the median; 0 where no request has two."""
        return float(self.answers["output_tokens_per_s_per_user"] or 0.0)

    @property
    def is_possible(self) -> bool:
        """Whether a rate was found, where one was looked for."""
        greatest = self.value["greatest_rate"]
        return greatest is None or greatest["rate_per_s"] is not None


def front(ways: Sequence[ServingWay]) -> list[bool]:
    """Return for each way whether no other gives chip and user at least as much, and one of them more."""
    return [
        way.is_possible and not any(_beats(other, way) for other in ways if other.is_possible) for way in ways
    ]


def _beats(other: ServingWay, way: ServingWay) -> bool:
    pairs = ((other.chip_rate, way.chip_rate), (other.user_rate, way.user_rate))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def columns(ways: Sequence[ServingWay]) -> list[str]:
    """Return the columns of `rows`."""
    kept = [KEPT] * (ways[0].answers["level"] is not None)
    return [*ways[0].chosen, *COLUMNS, *kept]


def rows(ways: Sequence[ServingWay]) -> list[list[str]]:
    """Return a row for each way."""
    return [_row(way, best) for way, best in zip(ways, front(ways), strict=True)]


def _row(way: ServingWay, best: bool) -> list[str]:
    found = way.answers
    kept = [] if found["kept_share"] is None else [units.percent(found["kept_share"])]
    if not way.is_possible:
        return [*way.values, "", "no rate", *[""] * (len(COLUMNS) - 2 + len(kept))]
    late = [units.seconds(x["p99"]["value"]) if x else "none" for x in (found["ttft_s"], found["tpot_s"])]
    joules = found["joules_per_output_token"]
    energy = "not known" if joules is None else units.joules(joules)
    flow = [f"{a_second(found['served_rate_per_s'])}/s", f"{way.chip_rate:,.0f}", a_second(way.user_rate)]
    return [*way.values, BEST * best, *flow, *late, energy, *kept]


def ways_json(ways: Sequence[ServingWay]) -> dict[str, Any]:
    """Return all ways as a JSON object."""
    each = [
        {"way": dict(way.chosen), "front": best, **way.value}
        for way, best in zip(ways, front(ways), strict=True)
    ]
    return {"schema": SCHEMA, "ways": each}


def write_ways(path: str | os.PathLike[str], ways: Sequence[ServingWay]) -> None:
    """Write the ways as a page."""
    best = [way for way, good in zip(ways, front(ways), strict=True) if good]
    verdict = f"{len(best)} of {len(ways)} ways are the best for a chip or its users."
    summary = f"No other gives both more: {'; '.join(w.name for w in best)}."
    spots = [
        Spot(way.name, way.user_rate, way.chip_rate, way.machine, good)
        for way, good in zip(ways, front(ways), strict=True)
        if way.is_possible
    ]
    axes = ChartAxis("tokens of a user", "per second"), ChartAxis("tokens of a chip", "per second")
    chart = ScatterChart("What a chip gives, and what a user gets", summary, *axes, spots)
    model, load = ways[0].model, f"{ways[0].value['load']['requests']:,} requests"
    user = "A user's tokens a second are the median of 1 / (time per token after the first)."
    parts = [
        header(f"Serving {model}", verdict, f"{load}."),
        figure(chart, size="whole"),
        section("Ways", table(columns(ways), rows(ways), caption=MEANING)),
        section("What the numbers mean", notes((user,))),
        footer(f"Load: {load}."),
    ]
    write_page(path, f"Serving {model}", parts)
