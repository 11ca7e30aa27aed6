"""Pictures of reports: the roofline of one, and an overview of several beside the GPU's. Needs matplotlib."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import UserError
from ..report import Report
from . import units
from .files import write_atomic
from .share import BETWEEN, own_cycles, seconds_by_bound
from .text import clean, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")
# What is drawn in both panels and on both machines keeps its colour: memory blue, arithmetic orange.
_COLOURS = {
    "dram": "#1f5fa8", "hbm": "#1f5fa8", "memory": "#1f5fa8", "sram": "#56a3d9", "local": "#9ccbe8",
    "array": "#d9730d", "matrix": "#d9730d", "compute": "#d9730d", "simd": "#f0a94e", "vector": "#f0a94e",
    "noc": "#3d8f5f", "dma": "#7cb98b", "gather": "#8f5fb0", "core": "#b5446e", "control": "#8c6d5a",
    "launch": "#6f5647", "issue": "#b99f8d", "latency": "#7f7fae", "static": "#9a9a9a", BETWEEN: "#d0d0d0",
    "clock": "#c9b458",
}  # fmt: skip
_SPARE = ("#c2185b", "#5b6c8f", "#a8b545", "#2f8f9d", "#e07a7a", "#6e5a2f")
_STYLE: dict[Any, Any] = {
    "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "text.parse_math": False, "svg.hashsalt": "mtia-emu", "svg.fonttype": "path", "savefig.dpi": 150,
    "figure.facecolor": "white", "legend.frameon": False,
}  # fmt: skip


Pairs = Sequence[tuple[Report, Report | None]]


@dataclass(frozen=True)
class _Point:
    """One spot of a roofline: MAC per byte, MAC/s, and the layers that fall on it."""

    intensity: float
    rate: float
    bound_by: str
    hollow: bool
    share: float = 0.0
    layers: int = 0


def roofline(
    report: Report,
    peak_macs_per_s: float,
    dram_bytes_per_s: float,
    sram_bytes_per_s: float,
    path: str | os.PathLike[str],
) -> None:
    """Draw each layer's multiply-adds a second over its multiply-adds a DRAM byte, under the machine's roofs.

    Both axes are logarithmic; area is the layer's share of the time, colour what bound it. A layer without
    DRAM traffic is hollow and stands at its multiply-adds per SRAM byte; a layer without multiply-adds cannot
    be drawn and is counted in the subtitle. Writes SVG or PNG by the suffix, the same bytes for the same
    input. Raise `UserError` for another suffix, without matplotlib, and when the file cannot be written.
    """
    with _figure(path, (8.4, 5.0)) as figure:
        axes = figure.add_subplot()
        points = _points(report)
        handles = _roofs(axes, points, peak_macs_per_s, {"DRAM": dram_bytes_per_s, "SRAM": sram_bytes_per_s})
        colours = _colours({point.bound_by for point in points})
        for point in points:
            colour = colours[point.bound_by]
            fill = "white" if point.hollow else colour
            area = 20 + 700 * point.share
            axes.scatter(point.intensity, point.rate, area, fill, edgecolors=colour, alpha=0.8, zorder=3)
        handles += [_mark(axes, f"bound by {_name(name, 20)}", colours[name]) for name in sorted(colours)]
        if any(point.hollow for point in points):
            handles.append(_mark(axes, "no DRAM traffic:\nMAC per SRAM byte", "#555555", "white"))
        figure.legend(handles=handles, loc="outside right upper")
        _roofline_texts(axes, report, points)


def summary(reports: Pairs, path: str | os.PathLike[str]) -> None:
    """Draw, for each model, time by what bound it and energy by part: the chip's bar over the GPU's.

    The bars of a model are scaled to the longer of the two, whose length is 100%; the amounts stand at their
    ends. Suffixes, determinism and errors are those of `roofline`.
    """
    if not reports:
        raise UserError("an overview picture needs at least one report")
    inches = 0.27 * (_tops(reports)[-1] + 2) + 0.5, 0.6
    with _figure(path, (10.5, sum(inches) + 0.4)) as figure:
        (left, right), legends = figure.subplots(2, 2, sharey="row", height_ratios=inches)
        _panel(left, legends[0], reports, seconds_by_bound, lambda report: units.seconds(report.seconds))
        _panel(right, legends[1], reports, _energy, lambda report: units.joules(report.joules))
        _rows(left, reports)
        left.set_title("Time, by what bound it", loc="left", weight="bold")
        right.set_title("Energy, by what spent it", loc="left", weight="bold")


@contextmanager
def _figure(path: str | os.PathLike[str], inches: tuple[float, float]) -> Iterator[Figure]:
    """Give a figure to draw on, in our style whatever the user's settings, and write it at the end."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"cannot draw {os.fspath(path)!r}: the suffix must be {' or '.join(SUFFIXES)}")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("pictures need matplotlib: pip install 'mtia-emu[plot]'") from error
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script
        figure = Figure(figsize=inches, layout="constrained")
        yield figure
        write_atomic(path, lambda file: _save(figure, file, suffix[1:]))


def _save(figure: Figure, file: IO[bytes], kind: str) -> None:
    """Write the figure without dates and versions."""
    nothing: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(file, format=kind, metadata=nothing)


def _colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name: the usual one of what is known, spare ones in order for others."""
    names = list(names)
    unknown = sorted(name for name in names if name not in _COLOURS)
    spare = {name: _SPARE[i % len(_SPARE)] for i, name in enumerate(unknown)}
    return {name: _COLOURS.get(name) or spare[name] for name in names}


def _points(report: Report) -> list[_Point]:
    """Return layers that can be drawn, those that fall on one spot as one point, large points first."""
    shares: dict[_Point, list[float]] = {}
    for layer, own in zip(report.layers, own_cycles(report.layers), strict=True):
        moved = layer.dram_bytes or layer.sram_bytes
        if layer.macs > 0 and moved > 0 and layer.end_cycle > layer.start_cycle:
            rate = layer.macs * report.clock_hz / (layer.end_cycle - layer.start_cycle)
            spot = _Point(layer.macs / moved, float(f"{rate:.2e}"), layer.bound_by, not layer.dram_bytes)
            shares.setdefault(spot, []).append(own / report.cycles)
    points = [replace(spot, share=math.fsum(parts), layers=len(parts)) for spot, parts in shares.items()]
    return sorted(points, key=lambda point: -point.share)


def _roofs(axes: Axes, points: Sequence[_Point], peak: float, memories: Mapping[str, float]) -> list[Any]:
    """Draw the roofs over a range that holds their ridges and all points; return their legend entries."""
    ridges = [peak / rate for rate in memories.values()]
    xs = [*ridges, *(point.intensity for point in points)]
    low, high = min(xs) / 6, max(xs) * 6
    lines = axes.plot([min(ridges), high], [peak, peak], "-", color="black", linewidth=1.4)
    lines[0].set_label(f"peak {units.count(peak, 'MAC/s')}")
    for (name, rate), dash in zip(memories.items(), ("-", "--"), strict=True):
        ridge = peak / rate
        label = f"{name} {units.size(rate)}/s"
        ends = [low, ridge], [low * rate, peak]
        lines += axes.plot(*ends, dash, color=_COLOURS[name.lower()], linewidth=1.4, label=label)
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    return list(lines)


def _roofline_texts(axes: Axes, report: Report, points: Sequence[_Point]) -> None:
    """Write title, subtitle and axes."""
    drawn = sum(point.layers for point in points)
    hidden = len(report.layers) - drawn
    share = units.percent(math.fsum(point.share for point in points))
    about = f"{drawn} layers, {share} of the time (area: share)"
    about += f"; {hidden} without multiply-adds or traffic not drawn" if hidden else ""
    title = f"{_name(report.model, 32)} on {_name(report.machine, 24)}, {_name(report.dtype, 12)}"
    axes.set_title(title, loc="left", pad=20, weight="bold")
    axes.text(0, 1.02, about, transform=axes.transAxes, color="#555555", fontsize=8)
    axes.set_xlabel("arithmetic intensity (MAC per DRAM byte)")
    axes.set_ylabel("achieved rate (MAC/s)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: units.si(value, ""))
        axis.set_minor_formatter(lambda value, _: "")
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.6)


def _mark(axes: Axes, label: str, edge: str, fill: str = "") -> Any:
    return axes.scatter([], [], 45, fill or edge, edgecolors=edge, label=label)


def _sizes(report: Report) -> str:
    """Return the model's dimensions as text, each followed by a comma."""
    return "".join(f"{name}={size}, " for name, size in report.dims.items())


def _name(text: str, width: int) -> str:
    return shorten(clean(text), width)


def _energy(report: Report) -> dict[str, float]:
    return {name: joules for name, joules in asdict(report.joules_by).items() if joules}


def _panel(
    axes: Axes,
    below: Axes,
    pairs: Pairs,
    parts: Callable[[Report], dict[str, float]],
    total: Callable[[Report], str],
) -> None:
    """Draw one group of bars for each model, top down, and the legend in the axes `below`."""
    amounts = [[(report, parts(report)) for report in pair if report] for pair in pairs]
    names = sorted({name for group in amounts for _, bar in group for name in bar}, key=_rank)
    colours = _colours(names)
    for top, group in zip(_tops(pairs), amounts, strict=True):
        longest = max(math.fsum(bar.values()) for _, bar in group) or 1.0
        for y, (report, bar) in enumerate(group, start=top):
            left = 0.0
            for name in names:
                width = bar.get(name, 0.0) / longest
                axes.barh(y, width, 0.78, left, color=colours[name], edgecolor="white", linewidth=0.4)
                left += width
            axes.text(left + 0.015, y, total(report), va="center", color="#333333")
    axes.set(xlim=(0, 1.22), xlabel="of the longer bar of each model")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    below.axis("off")
    marks = [below.barh([0], [0], color=colours[name], label=_name(name, 16)) for name in names]
    tight = {"borderaxespad": 0.0, "handlelength": 1.2, "columnspacing": 1.4}
    below.legend(handles=marks, ncols=5, loc="upper left", **tight)


def _rank(name: str) -> tuple[int, str]:
    """Return the place of a part in every bar: as in the list of colours, then unknown names."""
    return (list(_COLOURS).index(name) if name in _COLOURS else len(_COLOURS) - 1, name)


def _tops(pairs: Pairs) -> list[int]:
    """Return the row of the first bar of each group; the row above it holds the model's name."""
    heights = [2 + (gpu is not None) for _, gpu in pairs]
    return [1 + sum(heights[:i]) for i in range(len(heights))]


def _rows(axes: Axes, pairs: Pairs) -> None:
    """Name models and machines at the left."""
    ticks, labels = [], []
    for top, pair in zip(_tops(pairs), pairs, strict=True):
        title = _name(f"{pair[0].model}, {_sizes(pair[0])}{pair[0].dtype}", 64)
        axes.text(0, top - 0.85, title, weight="bold", va="center")
        for y, report in enumerate(filter(None, pair), start=top):
            ticks.append(y)
            labels.append(_name(report.machine, 24))
    axes.set_yticks(ticks, labels)
    axes.set_ylim(_tops(pairs)[-1] + (1 if pairs[-1][1] is None else 2) - 0.4, -0.4)
