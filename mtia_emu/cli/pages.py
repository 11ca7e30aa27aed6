"""Pages of runs, as `--html` writes them."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from .. import __version__

if TYPE_CHECKING:
    from ..api import Outcome
    from ..results.training import Training
    from ..study.system_run import SystemOutcome

LONGEST = 600  # letters of a command that is shown


def write_run(outcome: Outcome | SystemOutcome, path: str) -> None:
    """Write the page of a run, on one chip or over many."""
    from ..api import Outcome
    from ..engine.bounds import roofs
    from ..study.activity import bounds_over_time, track_activity, unit_activity
    from ..types import dtype
    from ..view.run_page import RunPage, write_run_page

    report = outcome.report
    if isinstance(outcome, Outcome):
        chip = outcome.chip.at_clock(report.clock_hz)
        lanes = unit_activity(outcome.program, chip, outcome.lookups)
        line = roofs(chip, dtype(report.dtype))
    else:
        lanes, line = track_activity(report), None
    beside = (outcome.gpu, outcome.check, outcome.basis)
    strip = () if line is None else bounds_over_time(report)  # many chips are bound each by its own
    write_run_page(path, RunPage(report, lanes, strip, line, *beside, origin()))


def write_training(training: Training, path: str) -> None:
    """Write the page of a training step, on one chip or over many."""
    from ..study.activity import bounds_over_time, phase_activity
    from ..view.training_page import TrainingPage, write_training_page

    strip = bounds_over_time(training.report)
    write_training_page(path, TrainingPage(training, phase_activity(training), strip, origin=origin()))


def origin() -> str:
    """Return which program, and which command of it, makes a page."""
    words = shlex.join(sys.argv[1:])
    words = words if len(words) <= LONGEST else f"{words[:LONGEST]}..."
    return f"mtia-emu {__version__}: mtia-emu {words}"
