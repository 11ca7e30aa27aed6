"""What all figures share: the drawing's frame, axes with grid lines, a legend, values on pointing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .elements import Child, Element, el, fitted, text_width
from .scales import ChartAxis, Scale, scale

NARROW, WIDE = 380.0, 720.0  # pixels that figures are drawn for
SERIES = 6  # colours; each has a dash of its own, for those who see no colours
LEGEND_LINE = 18.0
AREA = 220.0  # pixels between the ends of an upright axis
UNDER = 42.0  # pixels that an axis across takes
Row = Sequence[str]


class Chart(Protocol):
    """A figure as data: it draws itself at a width, and gives its numbers as a table.

    `summary` is one sentence that says what there is to see; screen readers read it.
    """

    @property
    def title(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def columns(self) -> Row: ...
    def rows(self) -> list[Row]: ...
    def draw(self, width: float) -> Element: ...


def canvas(chart: Chart, width: float, height: float, parts: Sequence[Child]) -> Element:
    """Return the drawing as one picture with a name and a description."""
    return el(
        "svg",
        el("title", chart.title),
        el("desc", chart.summary),
        *parts,
        role="img",
        aria_label=f"{chart.title}. {chart.summary}",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        preserveAspectRatio="xMidYMid meet",
    )


def pointed(element: Element, text: str) -> Element:
    """Return the element with a text that shows when it is pointed at."""
    element.insert(0, el("title", text))
    return element


def letters(text: str, x: float, y: float, *, anchor: str = "start", look: str = "") -> Element:
    """Return a text on a drawing; `look` are classes of the style sheet."""
    return el("text", text, x=x, y=y, text_anchor=anchor, class_=look or None)


def legend(names: Sequence[str], width: float, *, filled: bool = False) -> tuple[list[Element], float]:
    """Return the series' names with their colours, in lines as wide as there is room; and their height.

    A colour is shown as a piece of line, or filled, as the series are drawn.
    """
    if len(names) < 2:
        return [], 0.0
    parts, x, y = [], 0.0, 12.0
    for number, name in enumerate(fitted(name, width - 40) for name in names):
        needed = 30 + text_width(name)
        if x and x + needed > width:
            x, y = 0.0, y + LEGEND_LINE
        stroke = el("line", x1=x, x2=x + 20, y1=y - 4, y2=y - 4, class_=f"line {series(number)}")
        box = el("rect", x=x + 6, y=y - 10, width=12, height=12, class_=f"fill {series(number)}")
        parts += [box if filled else stroke, letters(name, x + 25, y)]
        x += needed + 12
    return parts, y + 8


def series(number: int) -> str:
    """Return the class of a series' colour."""
    return f"s{number % SERIES + 1}"


@dataclass(frozen=True)
class Frame:
    """The area between two axes: where values lie, what is drawn already, and the drawing's height."""

    x: Scale
    y: Scale
    parts: tuple[Element, ...]
    height: float


@dataclass(frozen=True)
class Extent:
    """All values along an axis, and whether zero must be on it."""

    axis: ChartAxis
    values: Sequence[float]
    zero: bool = False

    def on(self, pixels: tuple[float, float]) -> Scale:
        """Return the scale that holds them."""
        return scale(self.values, pixels, log=self.axis.log, zero=self.zero)


def frame(across: Extent, up: Extent, width: float, *, top: float = 0.0, over: float = 0.0) -> Frame:
    """Return axes with grid lines, ticks and labels under `top` pixels, `over` pixels above the area free."""
    above = top + 26 + over
    y = up.on((above + AREA, above))
    marks = [(v, up.axis.show(v)) for v in y.ticks(5)]
    left = 10 + max((text_width(t) for _, t in marks), default=0.0)
    right = width - 8 - max(text_width(across.axis.show(v)) / 2 for v in ends(across))
    x = across.on((left, right))
    parts = [letters(up.axis.label, 0, top + 14, look="axis")]
    for value, text in marks:
        parts += [
            el("line", x1=left, x2=right, y1=y(value), y2=y(value), class_="grid"),
            letters(text, left - 6, y(value) + 4, anchor="end", look="tick"),
        ]
    parts += under(across.axis, x, above + AREA)
    return Frame(x, y, tuple(parts), above + AREA + UNDER)


def ends(extent: Extent) -> tuple[float, float]:
    """Return the least and the most of an extent."""
    on = extent.on((0.0, 1.0))
    return on.low, on.high


def under(axis: ChartAxis, along: Scale, bottom: float) -> list[Element]:
    """Return an axis below an area or lanes, with its label; no two texts of its ticks touch."""
    parts = [el("line", x1=along.start, x2=along.end, y1=bottom, y2=bottom, class_="edge")]
    for value, text in fitting(axis, along):
        parts += [
            el("line", x1=along(value), x2=along(value), y1=bottom, y2=bottom + 4, class_="edge"),
            letters(text, along(value), bottom + 17, anchor="middle", look="tick"),
        ]
    middle = (along.start + along.end) / 2
    return [*parts, letters(axis.label, middle, bottom + 35, anchor="middle", look="axis")]


def fitting(axis: ChartAxis, along: Scale) -> list[tuple[float, str]]:
    """Return as many ticks with their texts as have room beside each other."""
    marks: list[tuple[float, str]] = []
    for most in range(8, 0, -1):
        marks = [(v, axis.show(v)) for v in along.ticks(most)]
        needed = sum(text_width(text) + 14 for _, text in marks)
        if needed <= abs(along.end - along.start) and len({t for _, t in marks}) == len(marks):
            break
    return marks
