"""Bars that lie: amounts side by side or in parts, a tornado of what moves a result, spans in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...sums import add_up
from .elements import Element, el, fitted, text_width
from .frame import UNDER, Row, canvas, legend, letters, pointed, series, under
from .scales import ChartAxis, Scale, scale

THICK, ROW, NAMED = 18.0, 26.0, 44.0  # pixels of a bar, of its row, and of a row with its name above
ROOMY = 560.0  # from this width on, names stand at the left of their bars


@dataclass(frozen=True)
class StackedBar:
    """One bar: its name, its parts in the order of the chart's, and from where to where its sum may be."""

    name: str
    parts: Sequence[float]
    low: float | None = None
    high: float | None = None

    @property
    def total(self) -> float:
        """Return the sum of its parts."""
        return add_up(self.parts)


@dataclass(frozen=True)
class BarChart:
    """Bars one under the other, each in parts; `names` are those of the parts. No part is below zero."""

    title: str
    summary: str
    x: ChartAxis
    bars: Sequence[StackedBar]
    names: Sequence[str] = ("amount",)

    def __post_init__(self) -> None:
        for bar in self.bars:
            if len(bar.parts) != len(self.names) or min(bar.parts, default=0.0) < 0:
                raise ValueError(f"{bar.name!r} has parts {list(bar.parts)}: one for each name, none below 0")

    @property
    def columns(self) -> Row:
        """Return the table's columns."""
        names = [self.x.headed(name) for name in self.names]
        return ["bar", *names, *(["sum"] if len(names) > 1 else []), "low", "high"]

    def rows(self) -> list[Row]:
        """Return the table's rows."""
        show = self.x.show
        ends = [["" if v is None else show(v) for v in (b.low, b.high)] for b in self.bars]
        sums = [[show(b.total)] if len(self.names) > 1 else [] for b in self.bars]
        named = zip(self.bars, sums, ends, strict=True)
        return [[b.name, *map(show, b.parts), *total, *end] for b, total, end in named]

    def draw(self, width: float) -> Element:
        """Draw the bars, what they come to at their ends."""
        names, top = legend(self.names, width, filled=True)
        lane = Lanes.of([b.name for b in self.bars], width, top)
        values = [v for b in self.bars for v in (b.total, b.high) if v is not None]
        room = max((text_width(self.x.show(v)) for v in values), default=0.0) + 10
        along = scale(values, (lane.left, width - room), zero=True)
        parts = [*names, *lane.names()]
        for number, bar in enumerate(self.bars):
            parts += self._bar(bar, lane.middle(number), along)
        parts += under(self.x, along, lane.bottom)
        return canvas(self, width, lane.bottom + UNDER, parts)

    def _bar(self, bar: StackedBar, y: float, along: Scale) -> list[Element]:
        parts, before = [], 0.0
        for number, value in enumerate(bar.parts):
            x0, x1 = along(before), along(before + value)
            box = el("rect", x=x0, width=max(x1 - x0, 0.0), y=y - THICK / 2, height=THICK,
                     class_=f"fill {series(number)}")  # fmt: skip
            parts.append(pointed(box, f"{bar.name}, {self.names[number]}: {self.x.show(value)}"))
            before += value
        if bar.low is not None and bar.high is not None:
            parts.append(_whisker(along(bar.low), along(bar.high), y))
        end = along(max(bar.total, bar.high or 0.0))
        return [*parts, letters(self.x.show(bar.total), end + 6, y + 4, look="amount")]


def _whisker(x0: float, x1: float, y: float) -> Element:
    return el(
        "path", d=f"M{x0:.1f} {y - 5}V{y + 5}M{x0:.1f} {y}H{x1:.1f}M{x1:.1f} {y - 5}V{y + 5}", class_="edge"
    )


@dataclass(frozen=True)
class Lanes:
    """Rows of a drawing with their names: at the left where there is room, else above each."""

    texts: Sequence[str]
    left: float
    top: float
    row: float

    @classmethod
    def of(cls, texts: Sequence[str], width: float, top: float) -> Lanes:
        """Return lanes under `top` pixels for a drawing of that width."""
        if width < ROOMY:
            return cls([fitted(t, width - 8) for t in texts], 8.0, top, NAMED)
        kept = [fitted(t, width * 0.42) for t in texts]
        return cls(kept, max(map(text_width, kept), default=0.0) + 20, top, ROW)

    @property
    def bottom(self) -> float:
        """Return the pixel under the last row."""
        return self.top + self.row * len(self.texts) + 4

    def middle(self, number: int) -> float:
        """Return the pixel of the middle of a row's bar."""
        return self.top + self.row * (number + 1) - ROW / 2

    def names(self) -> list[Element]:
        """Return the texts."""
        if self.row == NAMED:
            return [letters(t, 2, self.middle(n) - 15, look="name") for n, t in enumerate(self.texts)]
        return [
            letters(t, self.left - 8, self.middle(n) + 4, anchor="end", look="name")
            for n, t in enumerate(self.texts)
        ]


@dataclass(frozen=True)
class TornadoBar:
    """What a result is when one input is at its low end, and when it is at its high end."""

    name: str
    low: float
    high: float
    low_text: str = "low"
    high_text: str = "high"
    guess: bool = False


@dataclass(frozen=True)
class Tornado:
    """Swings about a base, the widest first; what rests on a guess is hatched."""

    title: str
    summary: str
    x: ChartAxis
    base: float
    swings: Sequence[TornadoBar]

    @property
    def columns(self) -> Row:
        """Return the table's columns."""
        return ["input", "at its low end", self.x.headed("result"), "at its high end", "result", "a guess"]

    def ordered(self) -> list[TornadoBar]:
        """Return the swings, the widest first."""
        return sorted(self.swings, key=lambda s: -abs(s.high - s.low))

    def rows(self) -> list[Row]:
        """Return the table's rows."""
        show = self.x.show
        return [
            [s.name, s.low_text, show(s.low), s.high_text, show(s.high), "yes" if s.guess else "no"]
            for s in self.ordered()
        ]

    def draw(self, width: float) -> Element:
        """Draw the swings: blue towards an input's low end, orange towards its high end."""
        swings = self.ordered()
        names, top = legend(["input at its low end", "input at its high end"], width, filled=True)
        lane = Lanes.of([s.name + (" (guess)" if s.guess else "") for s in swings], width, top)
        values = [v for s in swings for v in (s.low, s.high)]
        room = max((text_width(t) for s in swings for t in (s.low_text, s.high_text)), default=0.0) + 10
        along = scale([*values, self.base], (lane.left + room, width - room))
        parts = [*names, *lane.names()]
        for number, swing in enumerate(swings):
            parts += self._swing(swing, lane.middle(number), along)
        middle = along(self.base)
        parts.append(el("line", x1=middle, x2=middle, y1=top, y2=lane.bottom, class_="base"))
        parts += under(self.x, along, lane.bottom)
        return canvas(self, width, lane.bottom + UNDER, parts)

    def _swing(self, swing: TornadoBar, y: float, along: Scale) -> list[Element]:
        parts = []
        base, ends = along(self.base), ((swing.low, swing.low_text), (swing.high, swing.high_text))
        apart = (swing.low - self.base) * (swing.high - self.base) < 0
        for number, (value, text) in enumerate(ends):
            x = along(value)
            box = el("rect", x=min(base, x), width=abs(x - base), y=y - THICK / 2, height=THICK,
                     class_=f"fill {series(number)}{' guess' if swing.guess else ''}")  # fmt: skip
            parts.append(pointed(box, f"{swing.name} {text}: {self.x.show(value)}"))
            left = value < self.base or (not apart and number == 0 and value <= self.base)
            x += -5 if left else 5
            far = apart or abs(value - self.base) == max(abs(v - self.base) for v, _ in ends)
            if far:
                parts.append(letters(text, x, y + 4, anchor="end" if left else "start", look="amount"))
        return parts


@dataclass(frozen=True)
class Period:
    """From `start` to `end`; it may last until `late`."""

    name: str
    start: float
    end: float
    late: float | None = None
    group: int = 0


@dataclass(frozen=True)
class TimeChart:
    """Spans in time, one under the other; places in time that are named."""

    title: str
    summary: str
    x: ChartAxis
    spans: Sequence[Period]

    @property
    def columns(self) -> Row:
        """Return the table's columns."""
        return ["what", self.x.headed("from"), "to", "or as late as"]

    def rows(self) -> list[Row]:
        """Return the table's rows."""
        show = self.x.show
        return [
            [s.name, show(s.start), show(s.end), "" if s.late is None else show(s.late)] for s in self.spans
        ]

    def draw(self, width: float) -> Element:
        """Draw the spans, pale what may come on top."""
        lane = Lanes.of([s.name for s in self.spans], width, 0.0)
        times = [t for s in self.spans for t in (s.start, s.end, s.late) if t is not None]
        along = scale([t for t in times if math.isfinite(t)], (lane.left, width - 14))
        parts = lane.names()
        for number, span in enumerate(self.spans):
            y = lane.middle(number) - THICK / 2
            look = f"fill {series(span.group)}"
            x0, x1 = along(span.start), along(span.end)
            box = el("rect", x=x0, width=max(x1 - x0, 2.0), y=y, height=THICK, class_=look)
            text = f"{span.name}: {self.x.show(span.start)} to {self.x.amount(span.end)}"
            if span.late is not None and span.late > span.end:
                rest = el("rect", x=x1, width=along(span.late) - x1, y=y, height=THICK, class_=f"{look} pale")
                parts.append(pointed(rest, f"{text}, or as late as {self.x.show(span.late)}"))
            parts.append(pointed(box, text))
        return canvas(self, width, lane.bottom + UNDER, [*parts, *under(self.x, along, lane.bottom)])
