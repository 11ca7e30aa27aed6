"""Bars over time: what each unit of a chip did, and in which layer. Needs matplotlib."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .plot import colours_of, figure, write_title
from .text import clean, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS = 90  # of a line of the title
LEGIBLE = 5  # letters; a name that has room for fewer is left out
LETTER = 0.0062  # of the time axis' width, that a letter of a bar's name takes


@dataclass(frozen=True)
class Bar:
    """From `start` to `end` in cycles; `share` of what the lane stands for was busy, `name` is written in."""

    start: float
    end: float
    kind: str
    share: float = 1.0
    name: str = ""


@dataclass(frozen=True)
class Lane:
    """One row of bars; with `legend` a list of its kinds stands beside the picture."""

    name: str
    bars: tuple[Bar, ...]
    legend: bool = False


def gantt(
    title: str, lanes: Sequence[Lane], cycles: float, clock_hz: float, path: str | os.PathLike[str]
) -> None:
    """Draw lanes of bars over time, the first on top; what was busy in part is drawn paler.

    Writes SVG or PNG by the suffix, the same bytes for the same input; errors as in `plot.figure`.
    """
    kinds = list(dict.fromkeys(bar.kind for lane in lanes for bar in lane.bars))
    colour = colours_of(kinds)
    with figure(path, (12.0, 1.2 + 0.3 * len(lanes))) as canvas:
        from matplotlib.patches import Patch  # `figure` has said by now where matplotlib is absent

        axes = canvas.add_subplot()
        for row, lane in enumerate(lanes):
            _draw(axes, row, lane, colour, cycles)
        axes.set_yticks(range(len(lanes)), [shorten(clean(lane.name), 28) for lane in lanes])
        axes.set_ylim(max(len(lanes), 1) - 0.5, -0.5)
        axes.set_xlim(0, max(cycles, 1.0))
        axes.set_xlabel(f"cycles at {clock_hz / 1e9:g} GHz")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        write_title(axes, shorten(clean(title), 240), letters=LETTERS)
        axes.tick_params(axis="y", length=0)
        named = {bar.kind for lane in lanes for bar in lane.bars if lane.legend}
        marks = [Patch(color=colour[kind], label=clean(kind)) for kind in kinds if kind in named]
        if marks:
            canvas.legend(handles=marks, loc="outside right upper")


def _draw(axes: Axes, row: int, lane: Lane, colour: dict[str, str], cycles: float) -> None:
    from matplotlib.colors import to_rgba

    spans = [(bar.start, bar.end - bar.start) for bar in lane.bars]
    fills = [to_rgba(colour[bar.kind], 0.15 + 0.85 * bar.share) for bar in lane.bars]
    axes.broken_barh(spans, (row - 0.38, 0.76), facecolors=fills, linewidth=0)
    for bar in lane.bars:
        room = int((bar.end - bar.start) / max(cycles, 1.0) / LETTER) - 1
        if bar.name and room >= min(len(bar.name), LEGIBLE):
            at = ((bar.start + bar.end) / 2, row)
            axes.annotate(shorten(clean(bar.name), room, gap=".."), at, ha="center", va="center", size=7)
