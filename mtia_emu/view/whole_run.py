"""What a whole training takes, in words: for the terminal and for a page."""

from __future__ import annotations

import math

from ..results.training import Training
from ..results.whole_run import WholeRun
from . import units


def whole_rows(t: Training, run: WholeRun) -> list[tuple[str, str, str]]:
    """Return rows of what, how much, and what it is: time where it has an end, shares where chips fail."""
    rows, stops = list[tuple[str, str, str]](), run.stops
    if run.steps:
        learnt = units.count(float(run.steps * t.items), t.counted.removesuffix("s"))
        time = units.duration(run.seconds) if math.isfinite(run.seconds) else "without end"
        rows.append(("time", time, f"{units.many(run.steps, 'step')}, {learnt}"))
    if stops is not None:
        many = (
            f"{units.count(round(run.failures, 1))} in all, "
            if run.steps and math.isfinite(run.failures)
            else ""
        )
        every, written = units.duration(stops.every_s), units.seconds(stops.checkpoint_s)
        rows += [
            ("goodput", units.percent(stops.goodput), "of the time makes steps that are not lost"),
            ("checkpoints", units.percent(stops.checkpoints), f"every {every} of steps, {written} each"),
            ("restarts", units.percent(stops.restarts), f"{units.duration(stops.restart_s)} each"),
            (
                "done again",
                units.percent(stops.again),
                f"failures: {many}one in {units.duration(stops.mtbf_s)}",
            ),
        ]
    return rows
