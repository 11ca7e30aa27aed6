"""Whose time it was: the cycles of a run, divided among layers that may overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..results.report import Layer, Report, own_cycles
from ..sums import add_up

BETWEEN = "between layers"


def overlaps(layers: Sequence[Layer]) -> bool:
    """Return whether any two layers run at once."""
    spans = [(layer.start_cycle, layer.end_cycle) for layer in layers]
    ordered = sorted(span for span in spans if span[1] > span[0])
    latest = float("-inf")
    for start, end in ordered:
        if start < latest:
            return True
        latest = max(latest, end)
    return False


def grouped(layers: Iterable[Layer], own: Iterable[float], key: Callable[[Layer], str]) -> dict[str, float]:
    """Return own cycles summed by `key`, largest first."""
    sums: dict[str, float] = {}
    for layer, cycles in zip(layers, own, strict=True):
        sums[key(layer)] = sums.get(key(layer), 0.0) + cycles
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def seconds_by_bound(report: Report) -> dict[str, float]:
    """Return the seconds of the run by what bound them, largest first; last `BETWEEN`, when no layer ran."""
    sums = grouped(report.layers, own_cycles(report.layers), lambda layer: layer.bound_by)
    rest = report.cycles - add_up(sums.values())
    if rest > 1e-9 * report.cycles:
        sums[BETWEEN] = sums.get(BETWEEN, 0.0) + rest
    return {name: cycles / report.clock_hz for name, cycles in sums.items()}
