"""Pictures of reports: the roofline of one, and an overview of several beside the GPU's. Needs matplotlib."""

from __future__ import annotations

import math
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import UserError
from ..files import disk_cache
from ..files.scratch import scratch
from ..files.writing import write_atomic
from ..options import BOARD
from ..results.report import FILL, Report
from ..results.roofs import Roofs
from ..sums import add_up
from . import units
from .roofline import Roofline, bandwidth, roofline_of
from .share import BETWEEN, seconds_by_bound
from .text import clean, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")
TITLE = 46  # letters of a title that stand beside a legend in a picture 8.4 inches wide
FONTS = "MPLCONFIGDIR"  # where matplotlib keeps what it found out about the fonts that there are
# What is drawn in both panels and on both machines keeps its colour: memory blue, arithmetic orange.
_COLOURS = {
    "dram": "#1f5fa8", "hbm": "#1f5fa8", "memory": "#1f5fa8", "sram": "#56a3d9", "local": "#9ccbe8",
    "array": "#d9730d", "matrix": "#d9730d", "compute": "#d9730d", "simd": "#f0a94e", "vector": "#f0a94e",
    "noc": "#3d8f5f", "dma": "#7cb98b", "gather": "#8f5fb0", "core": "#b5446e", "control": "#8c6d5a",
    "clock": "#c9b458", "board": "#6b7f3f",
    "launch": "#6f5647", "issue": "#b99f8d", "latency": "#7f7fae", FILL: "#c3b1d6",
    "reduce": "#c99a2e", "static": "#9a9a9a", BETWEEN: "#d0d0d0",
}  # fmt: skip
_SPARE = ("#c2185b", "#5b6c8f", "#a8b545", "#2f8f9d", "#e07a7a", "#6e5a2f")
_STYLE: dict[Any, Any] = {
    "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "text.parse_math": False, "svg.hashsalt": "mtia-emu", "svg.fonttype": "path", "savefig.dpi": 150,
    "figure.facecolor": "white", "legend.frameon": False,
}  # fmt: skip


Pairs = Sequence[tuple[Report, Report | None]]


def roofline(report: Report, roofs: Roofs, path: str | os.PathLike[str]) -> None:
    """Draw each layer's operations a second over its operations a byte, under the machine's roofs.

    Both axes are logarithmic; area is the layer's share of the time, colour what bound it. A layer without
    DRAM traffic is hollow and stands at its operations per SRAM byte; one that only moves bytes is a triangle
    at the left edge, as far below its memory's roof as its bandwidth is below the memory's. Writes SVG or PNG
    by the suffix, the same bytes for the same input. Raise `UserError` for another suffix, without
    matplotlib, and when the file cannot be written.
    """
    with figure(path, (8.4, 5.0)) as canvas:
        axes = canvas.add_subplot()
        line = roofline_of(report, roofs)
        handles = _roofs(axes, line)
        colours = colours_of({point.bound_by for point in line.points})
        for point in line.points:
            colour = colours[point.bound_by]
            fill, shape = "white" if point.memory == "sram" else colour, ">" if point.moves else "o"
            area = 20 + 700 * point.share
            spot = axes.scatter(point.intensity, point.rate, area, fill, marker=shape)
            spot.set(edgecolor=colour, alpha=0.8, zorder=3, clip_on=False)
        handles += [_mark(axes, f"bound by {_name(name, 20)}", colours[name]) for name in sorted(colours)]
        if any(point.memory == "sram" for point in line.points):
            handles.append(_mark(axes, "no DRAM traffic:\nper SRAM byte", "#555555", "white"))
        if any(point.moves for point in line.points):
            handles.append(_mark(axes, "no arithmetic:\nshare of bandwidth", "#555555", marker=">"))
        canvas.legend(handles=handles, loc="outside right upper")
        _roofline_texts(axes, report, line)


def summary(reports: Pairs, path: str | os.PathLike[str]) -> None:
    """Draw, for each model, time by what bound it and energy of the board by part: chip over GPU.

    The bars of a model are scaled to the longer of the two, whose length is 100%; the amounts stand at their
    ends. Suffixes, determinism and errors are those of `roofline`.
    """
    if not reports:
        raise UserError("an overview picture needs at least one report")
    inches = 0.27 * (_tops(reports)[-1] + 2) + 0.5, 0.6
    with figure(path, (10.5, add_up(inches) + 0.4)) as canvas:
        (left, right), legends = canvas.subplots(2, 2, sharey="row", height_ratios=inches)
        _panel(left, legends[0], reports, seconds_by_bound, lambda report: units.seconds(report.seconds))
        _panel(right, legends[1], reports, _energy, lambda report: units.joules(_board_joules(report)))
        _rows(left, reports)
        left.set_title("Time, by what bound it", loc="left", weight="bold")
        right.set_title("Energy of the board, by what spent it", loc="left", weight="bold")


@contextmanager
def figure(path: str | os.PathLike[str], inches: tuple[float, float]) -> Iterator[Figure]:
    """Give a figure to draw on, in our style whatever the user's settings, and write it at the end."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"cannot draw {os.fspath(path)!r}: the suffix must be {' or '.join(SUFFIXES)}")
    try:
        with _folder_of_ours():
            import matplotlib
            from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("pictures need matplotlib: pip install 'mtia-emu[plot]'") from error
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script
        canvas = Figure(figsize=inches, layout="constrained")
        yield canvas
        write_atomic(path, lambda file: _save(canvas, file, suffix[1:]))


@contextmanager
def _folder_of_ours() -> Iterator[None]:
    """Have matplotlib, where it is imported now, keep its list of fonts in our cache, not in the home.

    Where nothing can be kept, the list is made in a folder that goes: matplotlib would say so at length.
    """
    given = os.environ.get(FONTS)
    if "matplotlib" in sys.modules or (given is not None and _is_writable(given)):
        yield
        return
    with ExitStack() as stack:
        os.environ[FONTS] = str(disk_cache.folder("matplotlib") or stack.enter_context(scratch()))
        try:
            yield
        finally:
            del os.environ[FONTS]
            os.environ.update({} if given is None else {FONTS: given})


def _is_writable(folder: str) -> bool:
    """Return whether a folder is there, or can be made, for us to write to."""
    with suppress(OSError):
        Path(folder).mkdir(parents=True, exist_ok=True)
    return os.path.isdir(folder) and os.access(folder, os.W_OK)


def _save(figure: Figure, file: IO[bytes], kind: str) -> None:
    """Write the figure without dates and versions."""
    nothing: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(file, format=kind, metadata=nothing)


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name: the usual one of what is known, spare ones in order for others."""
    names = list(names)
    unknown = sorted(name for name in names if name not in _COLOURS)
    spare = {name: _SPARE[i % len(_SPARE)] for i, name in enumerate(unknown)}
    return {name: _COLOURS.get(name) or spare[name] for name in names}


def _roofs(axes: Axes, line: Roofline) -> list[Any]:
    """Draw the roofs; return their legend entries."""
    roofs, peak = line.roofs, line.roofs.matrix_ops_per_s
    ends = [peak / bandwidth(roofs, memory) for memory in ("dram", "sram")]
    lines = axes.plot([min(ends), line.high], [peak, peak], "-", color="black", linewidth=1.4)
    lines[0].set_label(f"products {units.count(peak, 'op/s')}")
    simd = [roofs.simd_ops_per_s] * 2
    label = f"SIMD {units.count(simd[0], 'op/s')}"
    lines += axes.plot([line.low, line.high], simd, ":", color=_COLOURS["simd"], linewidth=1.2, label=label)
    for memory, ridge, dash in zip(("dram", "sram"), ends, ("-", "--"), strict=True):
        rate = bandwidth(roofs, memory)
        label = f"{memory.upper()} {units.size(rate)}/s"
        ramp = [line.low, ridge], [line.low * rate, peak]
        lines += axes.plot(*ramp, dash, color=_COLOURS[memory], linewidth=1.4, label=label)
    axes.set(xscale="log", yscale="log", xlim=(line.low, line.high))
    return list(lines)


def _roofline_texts(axes: Axes, report: Report, line: Roofline) -> None:
    """Write title, subtitle and axes."""
    drawn = sum(point.layers for point in line.points)
    hidden = len(report.layers) - drawn
    share = units.percent(math.fsum(point.share for point in line.points))
    about = f"{units.many(drawn, 'layer')}, {share} of the time (area: share)"
    about += f"; {hidden} without traffic not drawn" if hidden else ""
    write_title(
        axes, f"{_name(report.model, 90)} on {_name(report.machine, 40)}, {_name(report.dtype, 12)}", pad=20
    )
    axes.text(0, 1.02, about, transform=axes.transAxes, color="#555555", fontsize=8)
    axes.set_xlabel("arithmetic intensity (operations per DRAM byte)")
    axes.set_ylabel("achieved rate (operations/s)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: units.si(value, ""))
        axis.set_minor_formatter(lambda value, _: "")
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.6)


def write_title(axes: Axes, text: str, *, letters: int = TITLE, pad: float = 6.0) -> None:
    """Write a title over axes, in as many lines of so many letters as it takes: none is cut off."""
    lines = textwrap.wrap(clean(text), letters) or [""]
    axes.set_title("\n".join(lines), loc="left", pad=pad, weight="bold")


def _mark(axes: Axes, label: str, edge: str, fill: str = "", marker: str = "o") -> Any:
    return axes.scatter([], [], 45, fill or edge, edgecolors=edge, label=label, marker=marker)


def _sizes(report: Report) -> str:
    """Return the model's dimensions as text, each followed by a comma."""
    return "".join(f"{name}={size}, " for name, size in report.dims.items())


def _name(text: str, width: int) -> str:
    return shorten(clean(text), width)


def _energy(report: Report) -> dict[str, float]:
    """Return joules by part; what the board takes besides is a part, where a report's own are without it."""
    parts = {name: joules for name, joules in asdict(report.joules_by).items() if joules}
    rest = _board_joules(report) - report.joules
    return parts | ({BOARD: rest} if rest > 0 else {})


def _board_joules(report: Report) -> float:
    """Return the joules of chip, memory and board; a report's own where what is around it is not known."""
    around = report.around
    return report.joules if around is None else around.joules(report.joules, report.seconds, BOARD)


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
    colours = colours_of(names)
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
    return [1 + add_up(heights[:i]) for i in range(len(heights))]


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
