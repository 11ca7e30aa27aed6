"""How busy what runs was over time, in equal parts of it: units of a chip, or chips and links of a system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..engine.launches import costs, part
from ..engine.lookups import Lookups
from ..engine.sequence import launch_runs
from ..machine.chip import Chip
from ..program.commands import QUEUES
from ..program.isa import Program
from ..results.report import Report
from ..results.training import LINKS, PHASES, Training
from ..view.html.activity import Busy
from .drawings import overlap, under_way

Array = np.ndarray[Any, Any]
PARTS = 240  # of the time


def unit_activity(program: Program, chip: Chip, lookups: Mapping[int, Lookups] | None = None) -> list[Busy]:
    """Return, for each kind of unit, the share of its instances that have a command under way.

    A lane more is for launches that are being started. `lookups` as in `engine.launches.costs`.
    """
    runs = list(launch_runs(program, chip, costs(program, chip, lookups)))
    edges = np.linspace(0.0, float(runs[-1].span.end if runs else 1), PARTS + 1)
    times, begins = [run.cost.time for run in runs], [run.span.begin for run in runs]
    started = overlap([run.span.start for run in runs], begins, edges)
    lanes = [Busy("launch", _shares(started))]
    each = {id(time): time.unit for time in times}.values()
    pes = part(program, chip).pes
    for unit in sorted({int(u) for units in each for u in np.unique(units)}):
        queue = QUEUES[unit]
        busy = under_way(times, begins, unit, edges) / (1 if queue.chip_wide else pes)
        lanes.append(Busy(queue.name, _shares(busy)))
    return lanes


def track_activity(report: Report) -> list[Busy]:
    """Return, for each track of a report, the share of the time in which a layer ran on it."""
    edges = np.linspace(0.0, report.seconds or 1.0, PARTS + 1)
    lanes = []
    for track in report.tracks:
        mine = sorted((x.start_cycle, x.end_cycle) for x in report.layers if x.track == track)
        starts, ends = (np.array([pair[n] for pair in mine]) / track.clock_hz for n in (0, 1))
        lanes.append(Busy(track.name, _shares(overlap(*_joined(starts, ends), edges))))
    return lanes


def phase_activity(training: Training) -> list[Busy]:
    """Return, for each phase of a training step and for links, the share of the time in which it ran."""
    report = training.report
    edges = np.linspace(0.0, report.seconds or 1.0, PARTS + 1)
    named = [(name, training.layers_of(name)) for name in PHASES]
    named.append((LINKS, [x for x in report.layers if x.bound_by == LINKS]))
    lanes = []
    for name, layers in named:
        spans = sorted((x.start_cycle / x.track.clock_hz, x.end_cycle / x.track.clock_hz) for x in layers)
        starts, ends = (np.array([span[n] for span in spans]) for n in (0, 1))
        if spans:
            lanes.append(Busy(name, _shares(overlap(*_joined(starts, ends), edges))))
    return lanes


def _joined(starts: Array, ends: Array) -> tuple[Array, Array]:
    """Return spans, sorted by their starts, with those that touch or overlap as one."""
    if not len(starts):
        return starts, ends
    latest = np.maximum.accumulate(ends)
    first = np.flatnonzero(np.concatenate([[True], starts[1:] > latest[:-1]]))
    return starts[first], latest[np.concatenate([first[1:] - 1, [len(ends) - 1]])]


def _shares(values: Array) -> tuple[float, ...]:
    return tuple(round(float(v), 4) for v in np.clip(values, 0.0, 1.0))


def bounds_over_time(report: Report) -> tuple[str, ...]:
    """Return what bound the first track's layers in each part of the time: "" where none ran."""
    clock, edges = report.tracks[0].clock_hz, np.linspace(0.0, report.seconds or 1.0, PARTS + 1)
    layers = [x for x in report.layers if x.track == report.tracks[0]]
    kinds = list(dict.fromkeys(x.bound_by for x in layers))
    most = np.zeros((len(kinds) + 1, PARTS))
    for row, kind in enumerate(kinds, start=1):
        mine = [x for x in layers if x.bound_by == kind]
        starts, ends = (np.array([getattr(x, n) for x in mine]) / clock for n in ("start_cycle", "end_cycle"))
        most[row] = overlap(starts, ends, edges)
    names = ["", *kinds]
    return tuple(names[n] for n in most.argmax(axis=0))
