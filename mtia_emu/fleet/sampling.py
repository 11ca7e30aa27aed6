"""How sure the answers are: samples of all inputs at once, kept where they agree with what is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from .model import Values, as_array, ratio
from .quantity import Array, Numbers
from .scenario import Scenario

SAMPLES = 4096  # 2^12
MOST_SAMPLES = 1 << 18
MOST_INPUTS = 1000
FEW = 50  # survivors: below, percentiles say little
Samples = Mapping[str, Array]
Answer = Callable[[Mapping[str, Numbers]], Numbers]


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of an answer over samples."""

    p5: float
    p50: float
    p95: float
    mean: float


@dataclass(frozen=True)
class Swing:
    """What one input does alone: an answer with the input at its low end and at its high one."""

    key: str
    low: float
    high: float

    @property
    def width(self) -> float:
        """Return how far apart the two are."""
        return abs(self.high - self.low)


@dataclass(frozen=True)
class Influence:
    """Sobol's indices of an input: the share of an answer's variance that is its own, and with others."""

    key: str
    first: float
    total: float


def _qmc() -> Any:
    try:
        from scipy.stats import qmc
    except ImportError:
        raise UserError("samples need scipy: pip install 'mtia-emu[plan]'") from None
    return qmc


def draw(scenario: Scenario, samples: int = SAMPLES, seed: int = 0) -> Samples:
    """Return samples, [n], of every input that has a band: n is `samples` rounded up to a power of two.

    Points of a scrambled Sobol sequence, through the inverse distribution of each input; inputs are taken
    to be independent. Same seed, same samples.
    """
    if not 2 <= samples <= MOST_SAMPLES:
        raise UserError(f"{samples} samples: right: from 2 to {MOST_SAMPLES}")
    varied = scenario.varied
    if not varied:
        return {}
    if len(varied) > MOST_INPUTS:
        raise UserError(f"{len(varied)} inputs vary: at most {MOST_INPUTS} do")
    points = (
        _qmc().Sobol(len(varied), rng=np.random.default_rng(seed)).random_base2((samples - 1).bit_length())
    )
    return {key: quantity.at(points[:, i]) for i, (key, quantity) in enumerate(varied.items())}


def size_of(samples: Samples) -> int:
    """Return how many samples there are."""
    return len(next(iter(samples.values()))) if samples else 1


def agrees(scenario: Scenario, samples: Samples) -> Array:
    """Return, [n], whether a sample agrees with all published ratios: it lies within each one's band."""
    count, at = size_of(samples), Values(scenario, samples)
    keep = np.ones(count, dtype=bool)
    for anchor in scenario.published:
        found = as_array(ratio(at, anchor.measure, anchor.work, anchor.of, anchor.beside), count)
        keep &= (found >= anchor.low) & (found <= anchor.high)
    return keep


def conditioned(scenario: Scenario, samples: Samples) -> Samples:
    """Return the samples that agree with what is published; raise `UserError` where none does."""
    keep = agrees(scenario, samples)
    if samples and not keep.any():
        raise refuse_all(scenario, len(keep))
    return {key: values[keep] for key, values in samples.items()}


def refuse_all(scenario: Scenario, count: int) -> UserError:
    """Return the error for samples of which none agrees with what is published."""
    names = ", ".join(f"{a.measure} {a.low:g} to {a.high:g}" for a in scenario.published)
    return UserError(
        f"none of {count} samples agrees with what is published ({names}): "
        "draw more, or widen an input's band"
    )


def percentiles(values: Numbers, count: int) -> Percentiles:
    """Return the percentiles of an answer."""
    spread = as_array(values, count)
    low, middle, high = np.percentile(spread, [5, 50, 95])
    return Percentiles(float(low), float(middle), float(high), float(spread.mean()))


def tornado(scenario: Scenario, answer: Answer) -> list[Swing]:
    """Return what each input does alone, all others at their central values; the widest swing first."""
    swings = []
    for key, quantity in scenario.varied.items():
        low, high = (float(answer({key: end})) for end in quantity.ends)
        swings.append(Swing(key, low, high))
    return sorted(swings, key=lambda swing: -swing.width)


def influences(scenario: Scenario, answer: Answer, samples: int = 1024, seed: int = 0) -> list[Influence]:
    """Return Sobol's indices of each input, largest total first; the answer is asked n (d + 2) times.

    Of the unconditioned inputs: indices need inputs that are independent.
    """
    _qmc()
    from scipy.stats import sobol_indices, uniform

    keys = list(scenario.varied)
    if not keys:
        return []

    def func(points: Array) -> Array:
        at = {key: scenario.varied[key].at(points[i]) for i, key in enumerate(keys)}
        return as_array(answer(at), points.shape[1])[None].copy()  # scipy writes in it

    found = sobol_indices(
        func=func, n=samples, dists=[uniform()] * len(keys), rng=np.random.default_rng(seed)
    )
    out = [
        Influence(key, float(first), float(total))
        for key, first, total in zip(keys, found.first_order.ravel(), found.total_order.ravel(), strict=True)
    ]
    return sorted(out, key=lambda one: -one.total)
