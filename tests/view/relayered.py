"""A synthetic report with other layers, or on another clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mtia_emu.results.report import Layer, Report, Stretch
from mtia_emu.results.spans import Track


def relayered(
    report: Report, layers: Iterable[Layer], cycles: int | None = None, clock_hz: float | None = None
) -> Report:
    """Return the report with these layers on its track; as long, and on the same clock, but as given."""
    track = Track(report.machine, clock_hz or report.clock_hz)
    length = track.exact_seconds(report.cycles if cycles is None else cycles)
    stretch = Stretch(tuple(replace(x, track=track) for x in layers), length)
    return replace(report, tracks=(track,), stretches=(stretch,))
