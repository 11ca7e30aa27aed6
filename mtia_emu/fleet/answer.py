"""A scenario answered: every option at central values and over samples, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .hourly import HourlyAnswer, hourly
from .load import load_scenario
from .measures import SAVING, measured
from .model import Values, as_array, evaluate, ratio
from .quantity import Array, Numbers
from .sampling import (
    SAMPLES,
    Influence,
    Percentiles,
    Samples,
    Swing,
    agrees,
    draw,
    influences,
    percentiles,
    refuse_all,
    size_of,
    tornado,
)  # fmt: skip
from .scenario import Anchor, Scenario
from .yearly import FleetResult

INFLUENCE_SAMPLES = 512
HOURLY = "hourly_tco2e_per_year"  # operation, by the hour, with what was bought
T_PER_GWH = 1000.0  # tonnes a GWh at 1 kg a kWh


@dataclass(frozen=True)
class OptionAnswer:
    """An option: at central values; over all samples (`prior`); over those that agree with what is published.

    `odds` is the share of agreeing samples in which it costs less than the baseline does.
    """

    option: str
    result: FleetResult
    central: Mapping[str, float]
    prior: Mapping[str, Percentiles]
    conditioned: Mapping[str, Percentiles]
    odds: float
    hourly: HourlyAnswer | None


@dataclass(frozen=True)
class AnchorAnswer:
    """A published ratio beside what the scenario gives for it."""

    anchor: Anchor
    central: float
    prior: Percentiles
    conditioned: Percentiles


@dataclass(frozen=True)
class FleetAnswer:
    """All of it. `kept` marks the samples, [n], that agree with what is published."""

    scenario: Scenario
    options: tuple[OptionAnswer, ...]
    anchors: tuple[AnchorAnswer, ...]
    samples: Samples
    kept: Array
    about: str  # the option that the tornado and the influences are of: its saving a year
    swings: tuple[Swing, ...]
    influences: tuple[Influence, ...]

    @property
    def survivors(self) -> int:
        """Return how many samples agree with what is published."""
        return int(self.kept.sum())

    @property
    def agreeing(self) -> Samples:
        """Return the samples that agree with what is published."""
        return {key: values[self.kept] for key, values in self.samples.items()}

    def option(self, name: str) -> OptionAnswer:
        """Return an option by its name."""
        return next(one for one in self.options if one.option == name)


def fleet(
    scenario: str | Path | Scenario,
    settings: Mapping[str, Any] | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    shares: bool = False,
) -> FleetAnswer:
    """Return the answer to a scenario: a TOML file, `settings` (dotted key to value) put over it.

    `shares` asks for Sobol's indices, too. Raises `UserError` for what is no scenario, for settings over one
    that is read already, and where no sample agrees with what is published.
    """
    if isinstance(scenario, Scenario) and settings:
        raise UserError("settings go over a scenario's file, not over one that is read already")
    given = scenario if isinstance(scenario, Scenario) else load_scenario(scenario, settings)
    drawn = draw(given, samples, seed)
    kept = agrees(given, drawn)
    if drawn and not kept.any():
        raise refuse_all(given, len(kept))
    others = [name for name in given.option if name != given.baseline]
    about = others[0] if others else given.baseline

    def saving(at: Mapping[str, Numbers]) -> Numbers:
        return measured(given, about, at)[SAVING if others else "musd_per_year"]

    return FleetAnswer(
        given, tuple(_option(given, name, drawn, kept) for name in given.option),
        tuple(_anchor(given, a, drawn, kept) for a in given.published),
        drawn, kept, about, tuple(tornado(given, saving)),
        tuple(influences(given, saving, INFLUENCE_SAMPLES, seed)) if shares else (),
    )  # fmt: skip


def _option(scenario: Scenario, name: str, samples: Samples, kept: Array) -> OptionAnswer:
    count, by_hour = size_of(samples), hourly(scenario, name)
    central = {key: float(x) for key, x in _with_hours(measured(scenario, name), by_hour).items()}
    found = _with_hours(measured(scenario, name, samples), by_hour)
    spread = {key: as_array(x, count) for key, x in found.items()}
    return OptionAnswer(
        name, evaluate(scenario, name), central,
        {key: percentiles(x, count) for key, x in spread.items()},
        {key: percentiles(x[kept], int(kept.sum())) for key, x in spread.items()},
        float(np.mean(spread[SAVING][kept] > 0)), by_hour,
    )  # fmt: skip


def _with_hours(measures: dict[str, Numbers], by_hour: HourlyAnswer | None) -> dict[str, Numbers]:
    """Return measures with the CO2e that purchases leave, where some are made."""
    if by_hour is None:
        return measures
    return {**measures, HOURLY: measures["gwh_per_year"] * by_hour.residual_kg_per_kwh * T_PER_GWH}


def _anchor(scenario: Scenario, anchor: Anchor, samples: Samples, kept: Array) -> AnchorAnswer:
    count, about = size_of(samples), (anchor.measure, anchor.work, anchor.of, anchor.beside)
    spread = as_array(ratio(Values(scenario, samples), *about), count)
    central = float(ratio(Values(scenario, {}), *about))
    return AnchorAnswer(
        anchor, central, percentiles(spread, count), percentiles(spread[kept], int(kept.sum()))
    )
