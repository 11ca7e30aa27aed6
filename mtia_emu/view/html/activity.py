"""Units over time: how busy each was, and when nothing ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from .bars import Lanes
from .elements import Element, el, fitted
from .frame import UNDER, Row, canvas, legend, pointed, series, under
from .scales import ChartAxis, scale, share

TALL = 18.0  # pixels of a lane that is busy whole
MOST_LANES = 24
STRIP = "what bounds"


@dataclass(frozen=True)
class Busy:
    """One lane: the share of it that was busy in each of equal parts of the time, from 0 to 1."""

    name: str
    shares: Sequence[float]

    @property
    def mean(self) -> float:
        """Return the share over all of the time."""
        return sum(self.shares) / len(self.shares)

    def longest_gap(self) -> tuple[int, int]:
        """Return where its longest rest starts, and how many parts of the time it lasts."""
        return _longest([not value for value in self.shares])


@dataclass(frozen=True)
class ActivityChart:
    """Lanes over a time that is cut into equal parts, up to `end` in the axis' unit.

    `strip` names what bound each part, "" where nothing ran; its names are coloured in the order of `kinds`.
    Of more than `MOST_LANES` lanes the busiest are drawn; the table has all.
    """

    title: str
    summary: str
    x: ChartAxis
    end: float
    lanes: Sequence[Busy]
    strip: Sequence[str] = ()
    kinds: Sequence[str] = ()

    @property
    def columns(self) -> Row:
        """Return the table's columns."""
        return ["unit", "busy on average", *map(self.x.headed, ("longest rest", "it starts at"))]

    def rows(self) -> list[Row]:
        """Return the table's rows."""
        return [
            [lane.name, share(lane.mean), *(self.x.show(self._at(lane, n)) for n in reversed(gap))]
            for lane in self.lanes
            for gap in [lane.longest_gap()]
        ]

    def _at(self, lane: Busy, part: int) -> float:
        return self.end * part / len(lane.shares)

    def draw(self, width: float) -> Element:
        """Draw each lane as high as it was busy, under it what bound the time."""
        drawn = busiest(self.lanes, MOST_LANES)
        names, top = legend(self.kinds, width, filled=True) if self.strip else ([], 0.0)
        titles = [*([STRIP] if self.strip else []), *(lane.name for lane in drawn)]
        rows = Lanes.of(titles, width, top)
        along = scale([0.0, self.end], (rows.left, width - 14))
        parts = [*names, *rows.names()]
        if self.strip:
            parts += self._strip(rows.middle(0), (along(0.0), along(self.end)))
        for number, lane in enumerate(drawn, start=len(titles) - len(drawn)):
            parts += _skyline(lane, rows.middle(number), (along(0.0), along(self.end)))
        return canvas(self, width, rows.bottom + UNDER, [*parts, *under(self.x, along, rows.bottom)])

    def _strip(self, y: float, ends: tuple[float, float]) -> list[Element]:
        parts, at, each = [], 0, (ends[1] - ends[0]) / len(self.strip)
        for name, run in groupby(self.strip):
            length = len(list(run))
            if name:
                look = f"fill {series(self.kinds.index(name))}"
                box = el("rect", x=ends[0] + at * each, width=length * each, y=y - TALL / 2, height=TALL,
                         class_=look)  # fmt: skip
                span = (self.x.show(self.end * n / len(self.strip)) for n in (at, at + length))
                parts.append(pointed(box, f"{name}: {' to '.join(span)}"))
            at += length
        return parts


def busiest(lanes: Sequence[Busy], most: int) -> list[Busy]:
    """Return so many lanes, the busiest, in their own order."""
    kept = sorted(range(len(lanes)), key=lambda n: -lanes[n].mean)[:most]
    return [lanes[n] for n in sorted(kept)]


def _skyline(lane: Busy, y: float, ends: tuple[float, float]) -> list[Element]:
    """Return a lane as one outline over its base line."""
    base, each = y + TALL / 2, (ends[1] - ends[0]) / len(lane.shares)
    line = el("line", x1=ends[0], x2=ends[1], y1=base, y2=base, class_="grid")
    steps, at = [f"M{ends[0]:.1f} {base:.1f}"], 0
    for value, run in groupby(lane.shares, key=lambda v: round(min(max(v, 0.0), 1.0) * TALL, 1)):
        length = len(list(run))
        steps.append(f"V{base - value:.1f}H{ends[0] + (at + length) * each:.1f}")
        at += length
    outline = el("path", d="".join([*steps, f"V{base:.1f}Z"]), class_=f"fill {series(0)}")
    return [line, pointed(outline, f"{fitted(lane.name, 400)}: busy {share(lane.mean)} of the time")]


def _longest(flags: Sequence[bool]) -> tuple[int, int]:
    """Return start and length of the longest run of what is true; the first of equal ones."""
    best, at = (0, 0), 0
    for flag, run in groupby(flags):
        length = len(list(run))
        if flag and length > best[1]:
            best = (at, length)
        at += length
    return best


def rests(lanes: Sequence[Busy]) -> tuple[float, int, int]:
    """Return the share of the time in which no lane was busy, and the longest such time: start and parts."""
    idle = [not any(values) for values in zip(*(lane.shares for lane in lanes), strict=True)]
    return (sum(idle) / len(idle) if idle else 0.0), *_longest(idle)
