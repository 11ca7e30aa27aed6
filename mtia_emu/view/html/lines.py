"""Lines over an axis, with bands and marked places; and points with a front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from .elements import Element, el
from .frame import Extent, Frame, Row, canvas, frame, legend, letters, pointed, series
from .scales import ChartAxis

SPARSE = 40  # points of a line that show their values, at most


@dataclass(frozen=True)
class Line:
    """A line: `up` over `across`, and between which values it may lie, if that is known."""

    name: str
    across: Sequence[float]
    up: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Marked:
    """A place on the axis across that is named in the drawing."""

    across: float
    text: str


@dataclass(frozen=True)
class LineChart:
    """Lines over one axis; a value that is not finite leaves a gap."""

    title: str
    summary: str
    x: ChartAxis
    y: ChartAxis
    lines: Sequence[Line]
    marked: Sequence[Marked] = ()
    zero: bool = False

    @property
    def columns(self) -> Row:
        """Return the table's columns."""
        return ["line", self.x.label, self.y.label, "low", "high"]

    def rows(self) -> list[Row]:
        """Return the table's rows, of a line at most `SPARSE`."""
        return [row for line in self.lines for row in self._rows_of(line)]

    def _rows_of(self, line: Line) -> list[Row]:
        step = -(-len(line.across) // SPARSE)
        nothing = [""] * len(line.across)
        low = [self.y.show(v) for v in line.low] or nothing
        high = [self.y.show(v) for v in line.high] or nothing
        points = zip(line.across, line.up, low, high, strict=True)
        return [[line.name, self.x.show(x), self.y.show(y), a, b] for x, y, a, b in list(points)[::step]]

    def draw(self, width: float) -> Element:
        """Draw the lines, bands below them."""
        names, top = legend([line.name for line in self.lines], width)
        across = [v for line in self.lines for v in line.across] + [m.across for m in self.marked]
        up = [v for line in self.lines for part in (line.up, line.low, line.high) for v in part]
        room = 16.0 if self.marked else 0.0
        on = frame(Extent(self.x, across), Extent(self.y, up, self.zero), width, top=top, over=room)
        parts = [*names, *on.parts]
        for number, line in enumerate(self.lines):
            parts += _band(line, on, number)
        for number, line in enumerate(self.lines):
            parts += _strokes(line, on, number)
            parts += self._spots(line, on, number)
        for mark in self.marked:
            parts += _marked(mark, on)
        return canvas(self, width, on.height, parts)

    def _spots(self, line: Line, on: Frame, number: int) -> list[Element]:
        """Return what shows a value when it is pointed at."""
        return [
            pointed(
                el("circle", cx=on.x(x), cy=on.y(y), r=5, class_=f"hit {series(number)}"),
                f"{line.name}: {self.y.show(y)} at {self.x.amount(x)}",
            )
            for x, y in list(zip(line.across, line.up, strict=True))[:: -(-len(line.across) // SPARSE)]
            if math.isfinite(x) and math.isfinite(y)
        ]


def path(points: Sequence[tuple[float, float]]) -> str:
    """Return the path through points in pixels."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _strokes(line: Line, on: Frame, number: int) -> list[Element]:
    pairs = list(zip(line.across, line.up, strict=True))
    runs = groupby(pairs, key=lambda p: all(map(math.isfinite, p)))
    return [
        el("path", d=path([(on.x(x), on.y(y)) for x, y in run]), class_=f"line {series(number)}")
        for finite, run in runs
        if finite
    ]


def _band(line: Line, on: Frame, number: int) -> list[Element]:
    if not line.low:
        return []
    above = [(on.x(x), on.y(v)) for x, v in zip(line.across, line.high, strict=True)]
    below = [(on.x(x), on.y(v)) for x, v in zip(line.across, line.low, strict=True)]
    return [el("path", d=path([*above, *reversed(below)]) + "Z", class_=f"band {series(number)}")]


def _marked(mark: Marked, on: Frame) -> list[Element]:
    """Return an upright line and its text, on the side where there is room."""
    x, right = on.x(mark.across), on.x(mark.across) > (on.x.start + on.x.end) / 2
    return [
        el("line", x1=x, x2=x, y1=on.y.start, y2=on.y.end, class_="mark"),
        letters(mark.text, x, on.y.end - 5, anchor="end" if right else "start"),
    ]


@dataclass(frozen=True)
class Spot:
    """A point, of a group that has a colour of its own."""

    name: str
    across: float
    up: float
    group: str = ""
    front: bool = False


@dataclass(frozen=True)
class ScatterChart:
    """Points over two axes; those of the front are filled, and a line runs through them."""

    title: str
    summary: str
    x: ChartAxis
    y: ChartAxis
    spots: Sequence[Spot]

    @property
    def columns(self) -> Row:
        """Return the table's columns."""
        return ["point", "group", self.x.label, self.y.label, "on the front"]

    def rows(self) -> list[Row]:
        """Return the table's rows."""
        return [
            [s.name, s.group, self.x.show(s.across), self.y.show(s.up), "yes" if s.front else "no"]
            for s in self.spots
        ]

    def draw(self, width: float) -> Element:
        """Draw the points."""
        groups = list(dict.fromkeys(s.group for s in self.spots))
        names, top = legend(groups, width, filled=True)
        on = frame(
            Extent(self.x, [s.across for s in self.spots]),
            Extent(self.y, [s.up for s in self.spots]),
            width,
            top=top,
        )
        front = sorted((on.x(s.across), on.y(s.up)) for s in self.spots if s.front)
        parts = [*names, *on.parts, *([el("path", d=path(front), class_="mark")] if front else [])]
        for spot in self.spots:
            look = f"spot {series(groups.index(spot.group))}{'' if spot.front else ' hollow'}"
            text = f"{spot.name}: {self.x.label} {self.x.show(spot.across)}, "
            text += f"{self.y.label} {self.y.show(spot.up)}"
            dot = el("circle", cx=on.x(spot.across), cy=on.y(spot.up), r=4.5, class_=look)
            parts.append(pointed(dot, text))
        return canvas(self, width, on.height, parts)
