"""What a run says, as a JSON object."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .answers import Answers
from .bounds import ServiceBounds
from .quantiles import Distribution
from .search import GreatestRate
from .served import ServedLoad
from .step_table import GroupedSteps, StepTable

SCHEMA = "mtia-emu.serving.v1"


def as_json(served: ServedLoad) -> dict[str, Any]:
    """Return all that was asked and answered; a value that is not known is null."""
    service, load = served.service, served.load
    handover = None if service.handover is None else asdict(service.handover)
    return {
        "schema": SCHEMA,
        "machine": service.table.machine,
        "model": service.table.model,
        "table": _table(service.table),
        "service": {
            "engines": service.engines,
            "chips": served.answers.chips,
            "route": service.route,
            "cache_blocks": service.cache_blocks,
            "handover": handover,
            "rules": asdict(service.rules) | {"gap_s": service.rules.idle_gap_s},
        },
        "load": {
            "name": load.name,
            "requests": len(load),
            "concurrency": load.concurrency,
            "input_tokens": int(load.input_tokens.sum()),
            "output_tokens": int(load.output_tokens.sum()),
        },
        "greatest_rate": None if served.greatest is None else _greatest(served.greatest),
        "answers": _answers(served.answers),
        "bounds": None if served.bounds is None else _bounds(served.bounds),
    }


def _table(table: StepTable) -> dict[str, Any] | None:
    """Return where a step table comes from, and by what share its steps may be off; None of another kind."""
    if not isinstance(table, GroupedSteps):
        return None
    median, largest = table.error_shares
    return {
        "source": table.facts.source,
        "dtype": table.facts.dtype,
        "error_share": {"median": median, "largest": largest},
        "seconds_band": list(table.facts.seconds_band),
        "joules_band": list(table.facts.joules_band),
    }


def _bounds(found: ServiceBounds) -> dict[str, Any]:
    return {
        "joules_per_output_token": found.joules_per_output_token,
        "fast": {"greatest_rate_per_s": found.fast_rate_per_s, **_answers(found.fast)},
        "slow": {"greatest_rate_per_s": found.slow_rate_per_s, **_answers(found.slow)},
    }


def _answers(found: Answers) -> dict[str, Any]:
    values = {name: getattr(found, name) for name in found.__dataclass_fields__}
    out: dict[str, Any] = {
        name: _distribution(value) if isinstance(value, Distribution) else value
        for name, value in values.items()
    }
    level = None if found.level is None else asdict(found.level)
    return out | {
        "fullness": asdict(found.fullness), "level": level, "keeps_level": found.keeps_level,
        "is_outrun": found.is_outrun,
    }  # fmt: skip


def _distribution(found: Distribution) -> dict[str, Any]:
    out: dict[str, Any] = {"count": found.count}
    for name in ("mean", "p50", "p90", "p99"):
        estimate = getattr(found, name)
        out[name] = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return out


def _greatest(found: GreatestRate) -> dict[str, Any]:
    return {
        "rate_per_s": found.rate_per_s,
        "bounded": found.bounded,
        "reason": found.reason,
        "tried": [asdict(tried) for tried in found.tried],
    }
