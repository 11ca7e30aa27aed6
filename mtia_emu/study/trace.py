"""What each unit did, layer by layer, as events of a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..engine.launches import costs, part
from ..engine.lookups import Lookups
from ..engine.sequence import LaunchRun, launch_runs
from ..machine.chip import Chip
from ..program.commands import UNITS
from ..program.isa import Program
from ..view.trace import Event

Array = np.ndarray[Any, Any]


def trace_events(
    program: Program, chip: Chip, lookups: Mapping[int, Lookups] | None = None
) -> Iterator[Event]:
    """Yield the events of a program: tracks `launch` and `layer`, and a track for each kind of unit.

    A unit's event spans from the first to the last command that a unit of that kind ran in the layer, on any
    PE. Of layers side by side each has one more, from its first to its last command, on the track of its rows
    of PEs. `lookups` are those of the execution that the report is of, where there was one.
    """
    cols = part(program, chip).grid.cols
    for run in launch_runs(program, chip, costs(program, chip, lookups)):
        name, span = run.launch.name, run.span
        args = {"op": run.launch.op, "kernel": run.block.kernel, "mapping": run.block.mapping}
        yield Event("launch", name, span.start, span.begin, {})
        yield Event("layer", name, span.begin, span.end, args | {"bound_by": run.cost.split.bound_by})
        if len(run.layers) > 1:
            yield from _beside(run, cols)
        unit = run.cost.time.unit
        for number in np.unique(unit):
            yield _busy(UNITS[int(number)], name, run, unit == number)


def _busy(
    track: str, name: str, run: LaunchRun, mine: Array, args: Mapping[str, object] | None = None
) -> Event:
    """Return the event from the first to the last of a launch's commands that mine[command] selects."""
    time, begin = run.cost.time, run.span.begin
    low, high = float(time.start[mine].min()), float(time.end[mine].max())
    return Event(track, name, begin + low, begin + high, args or {"commands": int(mine.sum())})


def _beside(run: LaunchRun, cols: int) -> Iterator[Event]:
    """Yield an event for each of the layers that a launch runs side by side."""
    band = np.searchsorted(run.block.bands, run.block.commands["pe"] // cols, side="right")
    for layer, first in zip(run.layers, (0, *run.block.bands), strict=True):
        mine = band == layer.band
        if mine.any():
            args = {"op": layer.layer.op, "bound_by": layer.cost.split.bound_by}
            yield _busy(f"layer from row {first}", layer.layer.name, run, mine, args)
