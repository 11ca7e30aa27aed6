"""An explanation as one page: where the time went, what bounds each layer first and next, what would help."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..results.bounds import BOUNDS
from ..results.explanation import Effect, Explanation, ParameterStep
from . import run_charts as charts
from . import units
from .html.bars import BarChart, StackedBar
from .html.elements import Element
from .html.page import figure, footer, header, notes, section, table, write_page
from .html.scales import ChartAxis
from .run_page import layers_table, name_of

MOST_STEPS = 40  # parameters that are listed
LEAST = 5e-4  # of the time or the energy, that is listed
SAVED = ChartAxis("time saved by a step of a tenth", "% of the run", show=lambda v: f"{v:.2g}%")


def write_explain_page(path: str | os.PathLike[str], explanation: Explanation, origin: str) -> None:
    """Write the page: one file, nothing fetched, its size bounded whatever the model's."""
    report = explanation.report
    title = f"Why {name_of(report.model)} takes its time on {name_of(report.machine)}"
    write_page(path, title, list(_parts(explanation, title, origin)))


def _parts(explanation: Explanation, title: str, origin: str) -> Iterator[Element]:
    report = explanation.report
    dims = ", ".join([report.dtype, *(f"{name_of(k)}={v:,}" for k, v in report.dims.items())])
    yield header(title, verdict(explanation), dims)
    yield figure(where(explanation))
    if report.layers:
        yield from map(figure, filter(None, [charts.second(report)]))
        yield figure(charts.roofline(report, explanation.roofs))
        yield figure(charts.time_by_op(report))
    judged = [e for e in explanation.effects or () if not e.refused]
    if judged:
        yield figure(helps(judged))
        yield section("What a better chip would change", *_effects(judged))
    if report.layers:
        yield layers_table(report)
    if said := explanation.said:
        yield section("Notes", notes(said[:MOST_STEPS]))
    yield footer(origin)


def verdict(explanation: Explanation) -> str:
    """Return what the time went to most, and what would help most, in a sentence."""
    report, parts = explanation.report, explanation.seconds_by_part
    text = f"{units.seconds(report.seconds)} a run"
    if parts:
        first = next(iter(parts))
        text += f", {units.percent(parts[first] / report.track_seconds)} of them on {first}"
    effects = [e for e in explanation.effects or () if not e.refused and e.seconds_change < -LEAST]
    if effects:
        best = min(effects, key=lambda e: e.per_tenth(e.seconds_change))
        change = f"{best.seconds_change:+.1%} of the time for {best.step.fraction:+.0%}"
        text += f"; {best.step.key} helps most: {change}"
    return f"{text}."


def where(explanation: Explanation) -> BarChart:
    """Return where the time went, launching, idling and the busiest resource apart."""
    parts = explanation.seconds_by_part
    said = "; ".join(f"{name}: {BOUNDS[name]}" for name in list(parts)[:3] if name in BOUNDS)
    bars = [StackedBar(name, [seconds]) for name, seconds in parts.items()]
    return BarChart("Where the time went", f"{said}." if said else "Nothing ran.", charts.TIME, bars)


def helps(effects: list[Effect]) -> BarChart:
    """Return the parameters that save the most time, in proportion to a step of a tenth."""
    saved = {e.step.key: -100 * e.per_tenth(e.seconds_change) for e in effects if e.seconds_change < 0}
    ranked = sorted(saved.items(), key=lambda item: -item[1])[: charts.MOST_BARS]
    bars = [StackedBar(key, [percent]) for key, percent in ranked]
    text = f"{len(saved)} of {len(effects)} parameters that were tried save time, one at a time."
    return BarChart("What would help", text, SAVED, bars)


def _effects(effects: list[Effect]) -> Iterator[Element]:
    large = [e for e in effects if max(abs(e.seconds_change), abs(e.joules_change)) >= LEAST]
    rows = [
        [
            e.step.key,
            _amount(e.step, e.step.old),
            _amount(e.step, e.step.new),
            f"{e.step.fraction:+.1%}",
            f"{e.seconds_change:+.2%}",
            f"{e.joules_change:+.2%}",
            "new" if e.step.kind == "recompiled" else "same",
        ]
        for e in large[:MOST_STEPS]
    ]
    columns = ["parameter", "from", "to", "step", "time", "energy", "program"]
    small = f"{len(effects) - len(large)} of {len(effects)} parameters change less than {LEAST:.2%}"
    caption = f"{len(rows)} of {len(large)}, what changes the time most first; {small}"
    yield table(columns, rows, caption=caption)


def _amount(step: ParameterStep, value: float) -> str:
    """Return a value of a parameter, with a prefix where its unit takes one."""
    if step.unit in ("s", "Hz", "B", "B/s"):
        return units.si(value, step.unit)
    return f"{step.shown(value)} {step.unit}".rstrip()
