"""Pictures of a sweep as SVG or PNG; needs matplotlib. The same plots as on the page."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..results.report import Joules
from ..sums import add_up
from ..view import units
from ..view.plot import figure, write_title
from ..view.text import clean, shorten
from .labels import SCALED, label_of, name_of
from .row import GROUP_FIELDS, Row
from .study import Array, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Path = str | os.PathLike[str]
WIDE = (8.4, 5.0)
MOST_BARS = 16
LOG_FROM = 30.0  # an axis whose ends are further apart than this is logarithmic
GREY, BLUE, ORANGE, RED = "#b9c0c8", "#1f5fa8", "#d9730d", "#b5446e"
_COLOURS = (
    "#d9730d", "#9ccbe8", "#56a3d9", "#1f5fa8", "#3d8f5f", "#8c6d5a", "#9a9a9a", "#7f7fae", "#c9a227",
    "#8f5fb0", "#2f8f9d", "#6e5a2f",
)  # fmt: skip
PARTS = dict(
    zip(Joules.__dataclass_fields__, _COLOURS, strict=False)
)  # of a run's energy, each with its colour


def pareto(study: Study, path: Path, x: str | None = None, y: str | None = None) -> None:
    """Draw two columns against each other: all points, the front, the base chip, the GPU with its band."""
    names = study.spec.objectives
    x, y = x or names[0], y or (names[1] if len(names) > 1 else "area_mm2")
    xs, ys = study.numbers(x), study.numbers(y)
    front = study.front([x, y]) if len(xs) else np.zeros(0, bool)
    with figure(path, WIDE) as canvas:
        axes = canvas.add_subplot()
        axes.scatter(xs[~front], ys[~front], 16, GREY, label=f"{(~front).sum()} points", zorder=2)
        order = np.argsort(xs[front], kind="stable")
        axes.plot(
            xs[front][order],
            ys[front][order],
            "o-",
            color=BLUE,
            ms=5,
            lw=1,
            label=f"front ({front.sum()})",
            zorder=3,
        )
        (bx,), (by,) = study.column(x, [study.base]), study.column(y, [study.base])
        if bx is not None and by is not None:
            axes.plot([bx], [by], "*", color=ORANGE, ms=14, label=_short(study.spec.chip), zorder=5)
        _gpu(axes, study, x, y)
        _scales(axes, x, y)
        canvas.legend(loc="outside right upper")


def _gpu(axes: Axes, study: Study, x: str, y: str) -> None:
    gx, gy = study.gpu.get(x), study.gpu.get(y)
    if gx is None or gy is None:
        return
    errors: Any = {
        f"{side}err": value * band
        for side, name, value in (("x", x, gx), ("y", y, gy))
        if (band := gpu_band(study, name))
    }
    axes.errorbar(
        [gx], [gy], fmt="D", color=RED, ms=7, capsize=4, label=_short(study.gpu["name"]), zorder=4, **errors
    )


def gpu_band(study: Study, column: str) -> float:
    """Return the share by which a column of the GPU may be off, 0 where it is not known: only times are."""
    share = study.gpu.get("seconds_error_share")
    timed = column == "seconds" or column.endswith(".seconds")
    return float(share) if share and timed else 0.0


def _scales(axes: Axes, x: str, y: str) -> None:
    """Label the axes; one that spans much is logarithmic."""
    spans = (
        (x, axes.xaxis, axes.set_xscale, axes.dataLim.intervalx),
        (y, axes.yaxis, axes.set_yscale, axes.dataLim.intervaly),
    )
    for name, axis, scale, (low, high) in spans:
        if low > 0 and high / low > LOG_FROM:
            scale("log")
        unit = name_of(name)[1]
        axis.set_major_formatter(partial(_tick, unit if unit in SCALED else ""))
        axis.set_minor_formatter(lambda v, _: "")
        axis.set_label_text(_short(label_of(name), 60))
    axes.grid(True, which="both", color="#ececec", linewidth=0.5)


def _tick(unit: str, value: float, place: int) -> str:
    return units.si(value, unit) if value > 0 else f"{value:g}"


def parallel(study: Study, path: Path) -> None:
    """Draw parallel coordinates: a line a point, parameters then objectives, the front on top."""
    names = [*study.spec.set, *study.spec.objectives]
    with figure(path, (max(6.0, 1.5 * len(names)), 4.6)) as canvas:
        axes = canvas.add_subplot()
        scaled = np.stack([_unit(study, axes, at, name) for at, name in enumerate(names)], axis=1)
        front: Array = study.front(study.spec.objectives) if len(scaled) else np.zeros(0, bool)
        for mask, colour, width, name in ((~front, GREY, 0.5, "other points"), (front, BLUE, 1.2, "front")):
            lines = axes.plot(np.arange(len(names)), scaled[mask].T, color=colour, lw=width, alpha=0.7)
            if lines:
                lines[0].set_label(f"{name} ({mask.sum()})")
        axes.set_xticks(range(len(names)), [_short(label_of(n), 32) for n in names], rotation=20, ha="right")
        axes.set_yticks([])
        axes.set_ylim(-0.08, 1.1)
        canvas.legend(loc="outside right upper")


def _unit(study: Study, axes: Axes, at: int, name: str) -> Any:
    """Return a column scaled to 0 .. 1, its ends written at its axis; names stand in their order."""
    given = study.column(name)
    if any(isinstance(v, str) for v in given):
        ranked = sorted(set(map(str, given)))
        values, ends = np.array([float(ranked.index(str(v))) for v in given]), (ranked[0], ranked[-1])
    else:
        values = study.numbers(name)
        ends = (_number(np.nanmin(values)), _number(np.nanmax(values))) if len(values) else ("", "")
    axes.axvline(at, color="#888888", lw=0.8)
    axes.text(at, -0.05, _short(ends[0]), ha="center", fontsize=8)
    axes.text(at, 1.03, _short(ends[1]), ha="center", fontsize=8)
    low, high = (np.nanmin(values), np.nanmax(values)) if len(values) else (0.0, 1.0)
    return (values - low) / (high - low) if high > low else np.full(len(values), 0.5)


def _number(value: float) -> str:
    return units.si(float(value), "")


def sensitivity(study: Study, path: Path) -> None:
    """Draw how much of each objective's variance each parameter explains by itself."""
    names = study.spec.objectives
    with figure(path, (8.4, 1.2 + 0.32 * len(names) * max(1, len(study.spec.set)))) as canvas:
        axes = canvas.add_subplot()
        height = 0.8 / len(names)
        for at, name in enumerate(names):
            shares, chance = study.sensitivity(name), study.by_chance(name)
            rows = [i + (at - (len(names) - 1) / 2) * height for i in range(len(shares))]
            drawn = axes.barh(rows, list(shares.values()), height * 0.92).patches
            axes.barh([0], [0], color=drawn[0].get_facecolor(), label=_short(label_of(name), 40))
            for bar, key in zip(drawn, shares, strict=True):
                bar.set_alpha(1.0 if shares[key] > chance[key] else 0.3)
        axes.set_yticks(range(len(study.spec.set)), [_short(key, 32) for key in study.spec.set])
        axes.invert_yaxis()
        explained = "share of the variance (of the logarithm) that the parameter explains alone"
        pale = "pale: chance would explain as much in one of twenty such sweeps"
        axes.set(xlim=(0, 1), xlabel=f"{explained}\n{units.many(len(study.good), 'point')}; {pale}")
        canvas.legend(loc="outside right upper")


def energy(study: Study, path: Path) -> None:
    """Draw joules by part, a panel a model: the base chip, points of the front, the GPU's whole."""
    rows = bars(study)
    models = [m.name for m in study.spec.model]
    with figure(path, (8.4, 0.9 + len(models) * (0.7 + 0.24 * (len(rows) + 1)))) as canvas:
        panels = canvas.subplots(len(models), 1, squeeze=False)[:, 0]
        for axes, model in zip(panels, models, strict=True):
            left = np.zeros(len(rows))
            for part, colour in PARTS.items():
                width = np.array([float(row.metrics.get(f"{model}.joules_{part}") or 0.0) for row in rows])
                axes.barh(range(len(rows)), width, 0.75, left, color=colour, label=part)
                left += width
            labels = [label(study, row) for row in rows]
            whole = study.gpu.get(f"{model}.joules")
            if whole:
                axes.barh([len(rows)], [whole], 0.75, color=RED, alpha=0.5)
                labels.append(_short(study.gpu["name"]))
            axes.set_yticks(range(len(labels)), labels, fontsize=7)
            axes.invert_yaxis()
            axes.set_title(_short(model, 40), loc="left", weight="bold")
            axes.xaxis.set_major_formatter(lambda v, _: units.joules(v))
        canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")


def bars(study: Study) -> list[Row]:
    """Return the rows that an energy breakdown shows: the base chip, some of the front, fastest first."""
    mask = study.front(study.spec.objectives).tolist() if study.good else []
    rows = [row for row, on in zip(study.good, mask, strict=True) if on]
    rows.sort(key=lambda row: (float(row.metrics.get("seconds") or 0.0), row.index))
    step = max(1, -(-len(rows) // MOST_BARS))
    return [study.base, *rows[::step]]


def label(study: Study, row: Row) -> str:
    """Return what a row is called in a picture."""
    if row.index < 0:
        return _short(study.spec.chip)
    return _short(
        f"{row.index}: "
        + " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in row.params.values()),
        30,
    )


def roofline(study: Study, path: Path, point: int = -1, model: str | None = None) -> None:
    """Draw the layers of one point and model under its roofs, and the GPU's whole model with its band."""
    rows = {row.index: row for row in [study.base, *study.good]}
    names = [m.name for m in study.spec.model]
    model = names[0] if model is None else model
    if model not in names:
        raise UserError(f"no model '{model}' in the sweep (right: {', '.join(names)})")
    if point not in rows:
        raise UserError(
            f"point {point} has no layers to draw: it failed, was excluded, or is not in the sweep"
        )
    row = rows[point]
    peak, dram = float(row.metrics[f"{model}.peak_macs_per_s"]), float(row.metrics["dram_bytes_per_s"])
    with figure(path, WIDE) as canvas:
        axes = canvas.add_subplot()
        spots = [s for g in row.layers.get(model, []) if (s := _spot(g))]
        total = add_up(s[2] for s in spots) or 1.0
        for intensity, rate, seconds, bound in spots:
            axes.scatter(
                intensity,
                rate,
                20 + 700 * seconds / total,
                alpha=0.7,
                color=BLUE if bound == "dram" else ORANGE,
            )
        _roofs(axes, spots, peak, dram)
        _gpu_spot(axes, study, model)
        write_title(axes, f"{_short(model, 64)}, {label(study, row)}")
        axes.set_xlabel("arithmetic intensity (MAC per DRAM byte)")
        axes.set_ylabel("achieved rate (MAC/s)")
        canvas.legend(loc="outside right upper")


def _spot(group: list[Any]) -> tuple[float, float, float, str] | None:
    g = dict(zip(GROUP_FIELDS, group, strict=False))
    span = g.get("span_seconds", g["seconds"])  # an older store has none
    if not (g["macs"] > 0 and g["dram_bytes"] > 0 and span > 0):
        return None
    return g["macs"] / g["dram_bytes"], g["macs"] / span, g["seconds"], g["bound_by"]


def _roofs(axes: Axes, spots: list[tuple[float, float, float, str]], peak: float, dram: float) -> None:
    ridge = peak / dram
    low = min([ridge, *(s[0] for s in spots)]) / 4
    high = max([ridge, *(s[0] for s in spots)]) * 4
    axes.plot([low, ridge], [low * dram, peak], color=BLUE, label=f"DRAM {units.size(dram)}/s")
    axes.plot([ridge, high], [peak, peak], color="black", label=f"peak {units.count(peak, 'MAC/s')}")
    axes.scatter([], [], 40, BLUE, label="bound by DRAM")
    axes.scatter([], [], 40, ORANGE, label="bound by another")
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: _number(value))
        axis.set_minor_formatter(lambda value, _: "")
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.6)


def _gpu_spot(axes: Axes, study: Study, model: str) -> None:
    seconds, macs, moved = (
        float(study.gpu.get(f"{model}.{key}") or 0) for key in ("seconds", "macs", "dram_bytes")
    )
    if not (seconds and macs and moved):
        return
    rate, band = macs / seconds, gpu_band(study, "seconds")
    error: Any = {"yerr": rate * band} if band else {}
    axes.errorbar(
        [macs / moved],
        [rate],
        fmt="D",
        color=RED,
        capsize=4,
        label=f"{_short(study.gpu['name'])}, whole model",
        **error,
    )


def _short(text: str, width: int = 24) -> str:
    return shorten(clean(str(text)), width)
