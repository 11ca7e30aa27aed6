"""Service between bounds: every step as fast, and every step as slow, as its table says that it may be.

A step's seconds may be off by the error of their interpolation, and where the machine's model was held to
measurements, by its band. Steps of one kind err alike, so errors do not cancel over a run; here all err to
the same side at once, which is the widest that a run can be off by. Requests then queue by these times, so
the bounds of a latency are not a factor of it. Joules have a band of their own, whatever the seconds do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import UserError
from .answers import Answers
from .step_table import GroupedSteps, StepTable
from .surfaces import ERROR_S, JOULES, SECONDS, Floats


@dataclass(frozen=True)
class ServiceBounds:
    """The answers with the fastest and the slowest steps, and the greatest rates if these were asked for.

    A rate is None where none keeps the level. The joules of a token are the least and the most of what the
    three runs spend, their steps' joules at the ends of the machine's band; None where they are not known.
    """

    fast: Answers
    slow: Answers
    joules_per_output_token: tuple[float, float] | None
    fast_rate_per_s: float | None = None
    slow_rate_per_s: float | None = None


def bound(table: StepTable, *, slow: bool) -> GroupedSteps:
    """Return a table with each time at an end of what its error and the machine's band allow.

    Joules err by the share of the interpolation's seconds, without the band. Raises `UserError` for a table
    that says nothing of errors.
    """
    if not isinstance(table, GroupedSteps):
        raise UserError(f"{table.machine}: a step table without errors has no bounds (right: one of groups)")
    sign, factor = 1 if slow else -1, table.facts.seconds_band[slow]

    def at_end(values: Floats) -> Floats:
        return _at_end(values, sign, factor)

    return _changed(table, at_end)


def _at_end(values: Floats, sign: int, factor: float) -> Floats:
    seconds = values[..., SECONDS]
    share = np.divide(values[..., ERROR_S], seconds, out=np.zeros_like(seconds), where=seconds > 0)
    left = np.maximum(1 + sign * share, 0.0)
    out = np.zeros_like(values)
    out[..., SECONDS] = seconds * left * factor
    out[..., JOULES] = values[..., JOULES] * left
    return out


def _changed(table: GroupedSteps, change: Callable[[Floats], Floats]) -> GroupedSteps:
    linear, head = (replace(curve, values=change(curve.values)) for curve in (table.linear, table.head))
    prefill, decode = (replace(s, values=change(s.values), _rows={}) for s in (table.prefill, table.decode))
    return GroupedSteps(table.facts, linear, head, prefill, decode, table.mixed)


def joules_bounds(table: StepTable, runs: Sequence[Answers]) -> tuple[float, float] | None:
    """Return the least and the most joules of an output token in runs of one load, within the band."""
    assert isinstance(table, GroupedSteps)
    low, high = table.facts.joules_band
    steps, idle, tokens = [], [], []
    for run in runs:
        if run.joules is None or run.idle_joules is None:
            return None
        steps.append(run.joules - run.idle_joules)
        idle.append(run.idle_joules)
        tokens.append(run.output_tokens_per_s * run.span_s)
    least, most = (np.array(steps) * end + idle for end in (low, high))
    return float((least / tokens).min()), float((most / tokens).max())
