"""A load served: the run, what it says, and the greatest rate if that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..errors import UserError
from .answers import Answers, answers
from .bounds import ServiceBounds, bound, joules_bounds
from .load import Load
from .record import Log
from .rules import EngineRules
from .search import GreatestRate, greatest_rate
from .simulate import Service, simulate
from .slo import ServiceLevel, parse_level
from .step_table import StepLimits
from .traces import read_trace

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class ServedLoad:
    """What was served by what, and how it went.

    `greatest` is None where no rate was looked for, `bounds` where they were not asked for.
    """

    service: Service
    load: Load
    log: Log
    answers: Answers
    greatest: GreatestRate | None = None
    bounds: ServiceBounds | None = None


def serve(
    service: Service,
    load: Load | str | Path,
    level: ServiceLevel | str | None = None,
    *,
    rate: float | Literal["max"] | None = None,
    bounds: bool = False,
    progress: Progress | None = None,
) -> ServedLoad:
    """Return how `service` serves `load`, requests or a trace file, as they come or at another mean `rate`.

    A rate of "max" looks for the greatest one that keeps `level`, a level or its text as in `--slo`. Where no
    rate keeps it, the answers are of requests that come one at a time. With `bounds`, it is served twice
    more, by the fastest and the slowest steps that the table's errors allow. Raises `UserError` for a request
    that cannot fit, and for a greatest rate without a level.
    """
    requests = load if isinstance(load, Load) else read_trace(load)
    promised = parse_level(level) if isinstance(level, str) else level

    def tick(stage: str) -> Callable[[int, int], object] | None:
        return None if progress is None else lambda done, total: progress(stage, done, total)

    if rate != "max":
        played = requests if rate is None else requests.at_rate(rate)
        log = simulate(service, played, progress=tick("requests"))
        out = ServedLoad(service, played, log, answers(log, promised))
        return _bounded(out, requests) if bounds else out
    if promised is None:
        raise UserError("the greatest rate needs a service level; right is like --slo ttft=0.5,tpot=0.05")
    found = greatest_rate(service, requests, promised, progress=tick("rates"))
    out = ServedLoad(service, found.log.load, found.log, answers(found.log, promised), found)
    return _bounded(out, requests) if bounds else out


def _bounded(served: ServedLoad, requests: Load) -> ServedLoad:
    """Return it with bounds: of the same load, and of the greatest rate at which `requests` come."""
    level, each, rates = served.answers.level, list[Answers](), list[float | None]()
    for slow in (False, True):
        service = replace(served.service, table=bound(served.service.table, slow=slow))
        each.append(answers(simulate(service, served.load), level, seed=None))
        searched = served.greatest is not None and level is not None
        rates.append(greatest_rate(service, requests, level).rate_per_s if searched and level else None)
    best, worst = each
    joules = joules_bounds(served.service.table, [best, served.answers, worst])
    return replace(served, bounds=ServiceBounds(best, worst, joules, rates[0], rates[1]))


def fitted(rules: EngineRules, limits: StepLimits) -> EngineRules:
    """Return the rules with sizes no larger than a step table knows."""
    budget = min(rules.token_budget, limits.tokens, limits.chunk_tokens)
    sequences = min(rules.max_sequences, limits.decodes, limits.sequences, budget)
    return replace(rules, token_budget=budget, max_sequences=sequences)
