"""An explanation on a terminal: where the time went, layer by layer, the roofline, and what would help."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console, RenderableType

from ..results.bounds import BOUNDS
from ..results.explanation import Effect, Explanation, LayerTime
from ..sums import add_up
from . import units
from .page import Cell, Page
from .roofline import chart, roofline_of
from .share import grouped

_BAR = 14
_BUSY = 3  # resources named for a layer
_LEAST_BUSY = 0.05
_LEAST_CHANGE = 5e-4  # of time or energy: smaller changes are counted, not shown


def print_explanation(explanation: Explanation, console: Console, *, rows: int = 12) -> None:
    """Print an explanation; `rows` limits each table. Needs 80 columns to show every table well."""
    page, report = Page(console), explanation.report
    dims = [f"{name}={size}" for name, size in report.dims.items()]
    about = [report.dtype, *dims, units.seconds(report.seconds), units.joules(report.joules)]
    title = page.text(f"{report.model} on {report.machine}", "bold")
    parts: list[RenderableType] = [title, page.text(", ".join(about), "dim"), ""]
    parts += [
        _where(page, explanation),
        _layers(page, explanation.layers, rows),
        _roofline(page, explanation),
    ]
    if explanation.effects is not None:
        judged = [e for e in explanation.effects if not e.refused]
        parts += _what_would_help(page, judged, rows)
    if notes := explanation.said:
        parts.append(page.section("Notes", *(page.text(f"- {text}") for text in notes)))
    page.print(*parts)


def _where(page: Page, explanation: Explanation) -> RenderableType:
    report, seconds = explanation.report, explanation.seconds_by_part
    bound = grouped(report.layers, lambda layer: layer.bound_by)
    rows: list[list[Cell]] = []
    for (name, spent), share in zip(seconds.items(), units.percents(list(seconds.values())), strict=True):
        layers = sum(layer.bound_by == name for layer in report.layers)
        mine = units.percent(bound.get(name, 0.0) / report.track_seconds)
        bar = page.bar(spent / report.track_seconds, _BAR)
        rows.append([name, layers, mine, units.seconds(spent), share, bar, BOUNDS.get(name, "")])
    columns = ["", "layers bound", "their time", "spent on it", "share", "", "what it is"]
    return page.section("Where the time went", page.table(columns, rows, flex=6, optional=(6,)))


def _roofline(page: Page, explanation: Explanation) -> RenderableType:
    line = roofline_of(explanation.report, explanation.roofs)
    hidden = len(explanation.report.layers) - sum(point.layers for point in line.points)
    note = "letter: what bound a layer; capital: a tenth of the time or more"
    note += f"; {hidden} without traffic not drawn" if hidden else ""
    return page.section("Roofline", *chart(page, line), note=note)


def _layers(page: Page, layers: Sequence[LayerTime], limit: int) -> RenderableType:
    """Return the table of layers; those that ran the same commands and were bound alike are one row."""
    groups: dict[tuple[int, int, str], list[LayerTime]] = {}
    for x in layers:
        groups.setdefault((x.block, x.band, x.layer.bound_by), []).append(x)
    whole = add_up(x.layer.seconds for x in layers) or 1
    ranked = sorted(groups.values(), key=lambda group: -add_up(x.layer.seconds for x in group))
    rows = [_row(group, whole) for group in ranked[:limit]]
    shown = add_up(x.layer.seconds for group in ranked[:limit] for x in group)
    note = f"{len(rows)} of {len(ranked)} kinds, {units.percent(shown / whole)} of the time"
    columns = ["layer", "op", "n", "share", "bound by", "of roof", "busy"]
    table = page.table(columns, rows, flex=0, optional=(1, 5))
    return page.section("Layers", table, note=note)


def _row(group: Sequence[LayerTime], whole: float) -> list[Cell]:
    first = group[0]
    seconds = add_up(x.layer.seconds for x in group)
    busy = sorted(first.busy.items(), key=lambda item: -item[1])
    words = " ".join(f"{name} {share:.0%}" for name, share in busy[:_BUSY] if share >= _LEAST_BUSY)
    roof = units.percent(add_up(x.roof_share * x.layer.seconds for x in group) / seconds) if seconds else "-"
    name, op = first.layer.name, first.layer.op
    return [name, op, len(group), units.percent(seconds / whole), first.layer.bound_by, roof, words]


def _what_would_help(page: Page, effects: Sequence[Effect], limit: int) -> list[RenderableType]:
    return [
        _ranked(page, "What would change the time", effects, lambda e: e.seconds_change, limit),
        _ranked(page, "What would change the energy", effects, lambda e: e.joules_change, limit),
    ]


def _ranked(
    page: Page, title: str, effects: Sequence[Effect], change: Callable[[Effect], float], limit: int
) -> RenderableType:
    large = [e for e in effects if abs(change(e)) >= _LEAST_CHANGE]
    ranked = sorted(large, key=lambda e: -abs(e.per_tenth(change(e))))[:limit]
    note = "largest in proportion to the step first"
    note += f"; {len(large) - limit} more" if len(large) > limit else ""
    small = len(effects) - len(large)
    note += f"; {small} change less than {_LEAST_CHANGE:.2%}" if small else ""
    if not ranked:
        return page.section(title, page.text("no parameter does"), note=note)
    columns = ["parameter", "from", "to", "step", "time", "energy", "program"]
    rows = [_effect(e) for e in ranked]
    return page.section(title, page.table(columns, rows, flex=0, optional=(1,)), note=note)


def _effect(e: Effect) -> list[Cell]:
    program = "new" if e.step.kind == "recompiled" else "same"
    values = [e.step.shown(e.step.old), e.step.shown(e.step.new), f"{e.step.fraction:+.1%}"]
    return [e.step.key, *values, _signed(e.seconds_change), _signed(e.joules_change), program]


def _signed(change: float) -> str:
    """Return a change in percent with its sign."""
    return f"{change:+.2%}" if abs(change) >= 5e-5 else "0%"
