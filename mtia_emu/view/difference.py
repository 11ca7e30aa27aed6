"""What differs between two runs, on a terminal: totals, ops, layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console, RenderableType

from ..results.difference import Difference, LayerRow, Pair, Side, ratio
from . import units
from .page import Cell, Page

_SAME = "-"


def print_difference(difference: Difference, console: Console, *, rows: int = 12) -> None:
    """Print a difference; `rows` limits the tables of ops and of layers."""
    page = Page(console)
    page.print(
        *(
            page.text(f"{name}: {_about(side)}", "bold")
            for name, side in (("A", difference.a), ("B", difference.b))
        ),
        "",
        _totals(page, difference),
        _ops(page, difference, rows),
        _layers(page, difference, rows),
    )


def _about(side: Side) -> str:
    dims = [f"{name}={size}" for name, size in side.dims.items()]
    return f"{side.file}: " + ", ".join([f"{side.model} on {side.chip}", side.dtype, *dims])


def _totals(page: Page, difference: Difference) -> RenderableType:
    a, b = difference.a, difference.b
    rows = [
        _change("time", units.seconds, a.seconds, b.seconds),
        _change("energy", units.joules, a.joules, b.joules),
        _change("power", units.watts, a.watts, b.watts),
        _change("multiply-adds", units.count, a.macs, b.macs),
        _change("DRAM", units.size, a.dram_bytes, b.dram_bytes),
        _change("SRAM", units.size, a.sram_bytes, b.sram_bytes),
    ]
    if not math.isclose(a.clock_hz, b.clock_hz, rel_tol=1e-9):
        rows.append(_change("clock", units.hertz, a.clock_hz, b.clock_hz))
    for name in ("cycles", "layers", "launches", "blocks", "commands"):
        one, other = getattr(a, name), getattr(b, name)
        if one is not None and other is not None:
            rows.append(_change(name, lambda x: f"{x:,.0f}", one, other))
    return page.section("Totals", page.table(["", "A", "B", "B - A", "B / A"], rows))


def _change(name: str, show: units.Show, a: float, b: float) -> list[Cell]:
    return [name, show(a), show(b), _signed(show, b - a), _ratio(a, b)]


def _signed(show: units.Show, change: float) -> str:
    return _SAME if not change else ("+" if change > 0 else "") + show(change)


def _ratio(a: float, b: float) -> str:
    text = ratio(a, b)
    return _SAME if text is None else units.ratio(text)


def _ops(page: Page, difference: Difference, limit: int) -> RenderableType:
    groups: dict[str, tuple[list[LayerRow], list[LayerRow]]] = {}
    for pair in difference.pairs:
        for at, row in enumerate((pair.a, pair.b)):
            if row is not None:
                groups.setdefault(row.op, ([], []))[at].append(row)

    def seconds(rows: Sequence[LayerRow]) -> float:
        return math.fsum(row.seconds for row in rows)

    ranked = sorted(groups.items(), key=lambda g: (-abs(seconds(g[1][1]) - seconds(g[1][0])), g[0]))
    rows: list[list[Cell]] = []
    for op, (a, b) in ranked[:limit]:
        time = _change(op, units.seconds, seconds(a), seconds(b))
        rows.append([op, len(a), len(b), *time[1:]])
    columns = ["op", "layers, A", "B", "time, A", "B", "B - A", "B / A"]
    note = f"{limit} of {len(ranked)}, those that differ most" if len(ranked) > limit else ""
    return page.section("Time by op", page.table(columns, rows, flex=0), note=note)


def _layers(page: Page, difference: Difference, limit: int) -> RenderableType:
    changed = [pair for pair in difference.pairs if not pair.equal]
    counted = difference.a.commands is not None and difference.b.commands is not None
    rows = [_layer(pair, counted) for pair in changed[:limit]]
    note = f"{len(rows)} of {len(changed)} that differ; {len(difference.pairs) - len(changed)} are equal"
    columns = ["layer", "op", "time, A", "B", "B - A", "B / A", "bound by", "DRAM", "SRAM", "energy"]
    columns += ["commands"] if counted else []
    if not rows:
        return page.section("Layers", note=note)
    return page.section("Layers", page.table(columns, rows, flex=0, optional=(6, 9, 7, 8, 1)), note=note)


def _layer(pair: Pair, counted: bool) -> list[Cell]:
    """Return the row of a layer; one that only one run has shows no time in the other."""
    x = pair.either
    times = [_SAME if row is None else units.seconds(row.seconds) for row in (pair.a, pair.b)]
    one, other = (row.seconds if row else 0.0 for row in (pair.a, pair.b))
    factor = _ratio(one, other) if pair.a and pair.b else "only A" if pair.a else "only B"
    bounds = list(dict.fromkeys(row.bound_by for row in (pair.a, pair.b) if row))
    return [
        x.name,
        x.op,
        *times,
        _signed(units.seconds, pair.change("seconds")),
        factor,
        " -> ".join(bounds),
        _signed(units.size, pair.change("dram_bytes")),
        _signed(units.size, pair.change("sram_bytes")),
        _signed(units.joules, pair.change("joules")),
        *([_signed(lambda x: f"{x:,.0f}", pair.more_commands or 0)] if counted else []),
    ]
