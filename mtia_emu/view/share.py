"""Whose time it was: the time of a run, divided among layers that may overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..results.report import Layer, Report
from ..results.spans import Track, seconds_by
from ..sums import add_up

BETWEEN = "between layers"


def overlaps(layers: Sequence[Layer]) -> bool:
    """Return whether any two layers of a track run at once."""
    latest: dict[Track, int] = {}
    for x in sorted(layers, key=lambda x: (x.start_cycle, x.end_cycle)):
        if x.end_cycle > x.start_cycle:
            if x.start_cycle < latest.get(x.track, x.start_cycle):
                return True
            latest[x.track] = x.end_cycle
    return False


def grouped(layers: Iterable[Layer], key: Callable[[Layer], str]) -> dict[str, float]:
    """Return the layers' own seconds summed by `key`, largest first."""
    return seconds_by((key(x), x.track, x.cycles) for x in layers)


def seconds_by_bound(report: Report) -> dict[str, float]:
    """Return the seconds of the run by what bound them, largest first; last `BETWEEN`, when no layer ran."""
    sums = grouped(report.layers, lambda layer: layer.bound_by)
    rest = report.track_seconds - add_up(sums.values())
    if rest > 1e-9 * report.track_seconds:
        sums[BETWEEN] = sums.get(BETWEEN, 0.0) + rest
    return sums


@dataclass(frozen=True)
class SecondBottleneck:
    """What bounds the layers of a run next: the resource that does so for most of the time, and the slack.

    `seconds_left` are what the layers' second bottlenecks alone take, and `slack` the share of the layers'
    time that is not left: the most that can be won by relieving what bounds them first.
    """

    name: str
    slack: float
    seconds_left: float


def second_bottleneck(report: Report) -> SecondBottleneck | None:
    """Return the second bottleneck of a run on one track; None where layers do not know theirs."""
    known = [x for x in report.layers if x.next_bound]
    whole = add_up(x.seconds for x in known)
    if not whole or len(known) < len(report.layers):
        return None
    left = add_up((1.0 - x.slack) * x.seconds for x in known)
    name = next(iter(grouped(known, lambda x: x.next_bound)))
    return SecondBottleneck(name, 1.0 - left / whole, left)
