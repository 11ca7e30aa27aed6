"""What a programme is worth and how sure that is: odds, break-even, slips, and what knowing more is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .answer import FleetAnswer
from .model import Values, as_array, rate
from .programme import GateAnswer, Milestones, ProgrammeResult, own_device, programme
from .quantity import Array, Numbers, mean
from .sampling import Answer, Percentiles, Samples, Swing, percentiles
from .scenario import OwnDevice, Scenario

SLIPS_WEEKS = (4, 13, 26, 52)
ERRORS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)  # standard deviations of the logarithm of a rate
VOLUMES = tuple(float(10 ** (4 + step / 12)) for step in range(29))  # 10,000 to 2,150,000 GPU-equivalents
SWUNG = 512  # samples
DRAWS = 16  # errors drawn for each sample


@dataclass(frozen=True)
class Odds:
    """The chance of a value above 0 at a volume: of a chip that works, and with those that fail."""

    volume: float
    works: float
    risked: float


@dataclass(frozen=True)
class Worth:
    """A programme over some samples."""

    npv_usd: Percentiles  # if the chip works
    outcome_usd: float  # mean, with the chance of failure, where one may stop at gates
    break_even: Percentiles
    break_even_chips: Percentiles
    risked_break_even: Percentiles  # with the chance of failure
    never_share: float  # samples in which no volume pays
    odds: Odds  # at the scenario's volume
    curve: tuple[Odds, ...]
    fixed_usd: Percentiles
    gates: tuple[GateAnswer, ...]


@dataclass(frozen=True)
class Slip:
    """What so many weeks more before production cost: the mean value with the chance of failure, lost."""

    weeks: float
    usd: float
    with_second_usd: float  # where half of the supply has a second source


@dataclass(frozen=True)
class Insight:
    """What a decision is worth beside going ahead blindly or not, knowing a rate with such an error."""

    error_share: float
    usd: float


@dataclass(frozen=True)
class Prospect:
    """A programme's answer: of all samples, and of those that agree with what is published."""

    option: str
    device: str
    volume: float
    schedule: Milestones  # at central values
    central: ProgrammeResult
    prior: Worth
    conditioned: Worth
    swings: tuple[Swing, ...]  # of the mean outcome, about the samples that agree
    swings_base: float
    slips: tuple[Slip, ...]
    insights: tuple[Insight, ...]  # at the scenario's volume
    insights_at_even: tuple[Insight, ...]  # where the decision is hardest: at the risked break-even


def prospect(answer: FleetAnswer) -> Prospect:
    """Return what the programme behind an answer's option is worth; raise `UserError` where there is none."""
    scenario, option = answer.scenario, answer.about
    if len(answer.kept) < 2:
        raise UserError("no input has a band: a programme's odds need one (right: low and high)")
    device = own_device(scenario, option)
    kept = answer.agreeing
    central = programme(scenario, option)

    def outcome(at: Mapping[str, Numbers]) -> Numbers:
        return programme(scenario, option, at).outcome_usd(2)

    prior = _worth(programme(scenario, option, answer.samples), len(answer.kept))
    agreeing = _worth(programme(scenario, option, kept), answer.survivors)
    return Prospect(
        option, device, mean(central.volume), central.schedule, central, prior, agreeing,
        swings_within(scenario, kept, outcome),
        mean(outcome(first(kept))),
        tuple(slip(scenario, option, kept, weeks) for weeks in SLIPS_WEEKS),
        insights(scenario, option, kept, answer.survivors),
        insights(scenario, option, kept, answer.survivors, agreeing.risked_break_even.p50),
    )  # fmt: skip


def first(samples: Samples) -> Samples:
    """Return the first samples: the beginning of a Sobol sequence is as even as the whole."""
    return {key: values[:SWUNG] for key, values in samples.items()}


def swings_within(scenario: Scenario, samples: Samples, answer: Answer) -> tuple[Swing, ...]:
    """Return what each input does to an answer's mean over samples, held at its ends; the widest first.

    All other inputs stay as the samples have them, so that the swings are about the mean that is reported.
    The first `SWUNG` samples are looked at.
    """
    few = first(samples)
    swings = []
    for key, quantity in scenario.varied.items():
        low, high = (mean(answer({**few, key: end})) for end in quantity.ends)
        swings.append(Swing(key, low, high))
    return tuple(sorted((x for x in swings if x.width > 0), key=lambda x: -x.width))


def has_programme(scenario: Scenario, option: str) -> bool:
    """Return whether there is a programme to answer for."""
    own = any(isinstance(scenario.device[name], OwnDevice) for name in scenario.option[option].values())
    return scenario.programme is not None and own


def _worth(result: ProgrammeResult, count: int) -> Worth:
    volume = float(np.median(as_array(result.volume, count)))
    even = as_array(result.break_even, count)
    chips = np.full(count, np.inf)  # also where a unit is no chip at all
    np.multiply(even, as_array(result.chips_per_unit, count), out=chips, where=np.isfinite(even))
    return Worth(
        percentiles(result.npv_usd(), count),
        mean(result.outcome_usd(2)),
        _ordered(even), _ordered(chips), _ordered(as_array(result.risked_break_even, count)),
        float(np.mean(~np.isfinite(even))),
        Odds(volume, *result.odds()),
        tuple(Odds(v, *result.odds(v)) for v in VOLUMES),
        percentiles(result.fixed_usd, count),
        result.gates(),
    )  # fmt: skip


def _ordered(values: Array) -> Percentiles:
    """Return percentiles of values of which some may be infinite: each is one of the values."""
    low, middle, high = np.percentile(values, [5, 50, 95], method="lower")
    return Percentiles(float(low), float(middle), float(high), float(values.mean()))


def slip(scenario: Scenario, option: str, samples: Samples, weeks: float) -> Slip:
    """Return what a slip of so many weeks costs, with one source and with half of the supply from two.

    A second source is paid for in both of its cases; it halves the slip.
    """
    halved: dict[str, Numbers] = {**samples, "programme.second_source_share": 0.5}
    lost = [
        mean(
            programme(scenario, option, s).outcome_usd(2)
            - programme(scenario, option, s, late).outcome_usd(2)
        )
        for s, late in ((dict[str, Numbers](samples), weeks), (halved, weeks / 2))
    ]
    return Slip(weeks, *lost)


def insights(
    scenario: Scenario, option: str, samples: Samples, count: int, volume: float | None = None
) -> tuple[Insight, ...]:
    """Return what deciding by an estimate of the chip's rate is worth, by the estimate's error.

    Who decides knows the mean value of the programme given the estimate, and goes ahead where it is above 0;
    without an estimate they go by the mean of all samples. The error of an estimate is normal in logarithms.
    `volume` in place of the scenario's.
    """
    result = programme(scenario, option, samples)
    value = as_array(result.outcome_usd(2, volume), count)
    true = np.log(_rates(scenario, option, samples, count))
    noise = np.random.default_rng(0).standard_normal((DRAWS, count))
    return tuple(Insight(error, value_of_knowing(value, true + error * noise)) for error in ERRORS)


def _rates(scenario: Scenario, option: str, samples: Samples, count: int) -> Array:
    """Return the own device's rate over the baseline's, [count], of the first work that it does."""
    at, device = Values(scenario, samples), own_device(scenario, option)
    work = next(w for w, d in scenario.option[option].items() if d == device)
    base = scenario.option[scenario.baseline][work]
    return as_array(rate(at, work, device) / rate(at, work, base), count)


def value_of_knowing(value: Array, seen: Array) -> float:
    """Return what deciding by what is seen, [draws, n], adds to values, [n]: mean(max(E, 0)) - max(mean, 0).

    E is the mean of the value given what is seen, here a polynomial of degree two: the expected value of
    partial information (Raiffa and Schlaifer 1961), by regression (Strong, Oakley and Brennan 2014).
    """
    spread = np.ptp(seen)
    blind = max(float(value.mean()), 0.0)
    if spread == 0:
        return 0.0
    at = ((seen - seen.mean()) / spread).ravel()
    known = np.tile(value, len(seen))
    expected = np.polynomial.Polynomial.fit(at, known, 2)(at)
    return max(float(np.maximum(expected, 0.0).mean()) - blind, 0.0)
