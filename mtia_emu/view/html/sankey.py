"""Flows from left to right whose widths are amounts; what flows into a place flows out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap

from ...sums import add_up
from .elements import Element, el, fitted, text_width
from .frame import Row, canvas, letters, pointed, series
from .scales import ChartAxis

THIN = 12.0  # pixels of a place
LINE = 13.0  # pixels of a line of text
APART = 30.0  # pixels between two places
EXACT = 1e-6  # of the whole, that a place may gain or lose


@dataclass(frozen=True)
class Ribbon:
    """An amount that goes from one place to another."""

    source: str
    target: str
    amount: float


@dataclass(frozen=True)
class Sankey:
    """Flows between places. Raise `ValueError` where a place inside does not give what it gets.

    `x` names what flows, and its unit.
    """

    title: str
    summary: str
    x: ChartAxis
    flows: Sequence[Ribbon]

    def __post_init__(self) -> None:
        if any(f.amount < 0 for f in self.flows):
            raise ValueError("a flow is below zero")
        whole = max((self.amount(p) for p in self.places), default=0.0)
        for place in self.places:
            got, given = self.into(place), self.out_of(place)
            if got and given and abs(got - given) > EXACT * whole:
                raise ValueError(f"{place!r} gets {got:g} {self.x.unit} and gives {given:g}")

    @property
    def columns(self) -> Row:
        """Return the table's columns."""
        return ["from", "to", self.x.label]

    def rows(self) -> list[Row]:
        """Return the table's rows."""
        return [[f.source, f.target, self.x.show(f.amount)] for f in self.flows]

    @cached_property
    def places(self) -> list[str]:
        """Return the places in the order of a walk along flows, each branch to its end: few flows cross."""
        found: dict[str, None] = {}
        pending = [f.source for f in reversed(self.flows)]
        while pending:
            place = pending.pop()
            if place not in found:
                found[place] = None
                pending += [f.target for f in reversed(self.flows) if f.source == place]
        return list(found)

    def into(self, place: str) -> float:
        """Return what flows into a place."""
        return add_up(f.amount for f in self.flows if f.target == place)

    def out_of(self, place: str) -> float:
        """Return what flows out of a place."""
        return add_up(f.amount for f in self.flows if f.source == place)

    def amount(self, place: str) -> float:
        """Return what flows through a place."""
        return max(self.into(place), self.out_of(place))

    @cached_property
    def layers(self) -> dict[str, int]:
        """Return how many flows lie before each place, the ends all last; raise `ValueError` for a circle."""
        found = dict.fromkeys(self.places, 0)
        for _ in self.places:
            before = dict(found)
            for flow in self.flows:
                found[flow.target] = max(found[flow.target], found[flow.source] + 1)
            if found == before:
                break
        else:
            if self.places:
                raise ValueError("flows go in a circle")
        last = max(found.values(), default=0)
        return {place: layer if self.out_of(place) else last for place, layer in found.items()}

    def draw(self, width: float) -> Element:
        """Draw the places as bars and the flows as ribbons between them."""
        tall = 250.0 if width > 500 else 300.0
        tops, pixels = self._tops(tall)
        last = max(self.layers.values(), default=1) or 1
        step = (width - THIN) / last
        parts = self._ribbons(tops, pixels, step)
        for number, place in enumerate(self.places):
            x, y = self.layers[place] * step, tops[place]
            size = max(self.amount(place) * pixels, 1.5)
            box = el("rect", x=x, y=y, width=THIN, height=size, class_=f"fill {series(number)}")
            parts.append(pointed(box, f"{place}: {self.x.amount(self.amount(place))}"))
            inside = 0 < self.layers[place] < last
            parts += self._name(place, (x, y if inside else y + size / 2), step - THIN - 8)
        return canvas(self, width, tall + 34, parts)

    def _tops(self, tall: float) -> tuple[dict[str, float], float]:
        """Return the upper pixel of each place, and how many pixels a unit has."""
        groups: dict[int, list[str]] = {}
        for place in self.places:
            groups.setdefault(self.layers[place], []).append(place)
        sizes = [
            (tall - APART * (len(g) - 1)) / max(add_up(map(self.amount, g)), 1e-300) for g in groups.values()
        ]
        pixels = min(sizes, default=1.0)
        tops = {}
        for group in groups.values():
            used = add_up(map(self.amount, group)) * pixels + APART * (len(group) - 1)
            y = 16 + (tall - used) / 2
            for place in group:
                tops[place] = y
                y += self.amount(place) * pixels + APART
        return tops, pixels

    def _ribbons(self, tops: dict[str, float], pixels: float, step: float) -> list[Element]:
        used_out, used_in = dict(tops), dict(tops)
        parts = []
        for flow in self.flows:
            size = flow.amount * pixels
            x0 = self.layers[flow.source] * step + THIN
            x1 = self.layers[flow.target] * step
            y0, y1 = used_out[flow.source], used_in[flow.target]
            used_out[flow.source], used_in[flow.target] = y0 + size, y1 + size
            half = (x0 + x1) / 2
            way = f"M{x0:.1f} {y0:.1f}C{half:.1f} {y0:.1f} {half:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
            b0, b1 = y0 + size, y1 + size
            way += f"V{b1:.1f}C{half:.1f} {b1:.1f} {half:.1f} {b0:.1f} {x0:.1f} {b0:.1f}Z"
            ribbon = el("path", d=way, class_=f"ribbon {series(self.places.index(flow.target))}")
            parts.append(pointed(ribbon, f"{flow.source} to {flow.target}: {self.x.amount(flow.amount)}"))
        return parts

    def _name(self, place: str, at_pixel: tuple[float, float], room: float) -> list[Element]:
        """Return a place's name, on two lines at most, and its amount.

        To the right of the first places, to the left of the last, above those between: there no two meet.
        """
        (x, y), layer = at_pixel, self.layers[place]
        last = max(self.layers.values())
        amount = self.x.amount(self.amount(place))
        if 0 < layer < last:
            left = min(1.2 * room, x + THIN - text_width(f" {amount}"))
            name = f"{fitted(place, left)} {amount}"
            return [letters(name, x + THIN, y - 6, anchor="end", look="halo")]
        at, anchor = (x - 5, "end") if layer == last else (x + THIN + 5, "start")
        lines = wrap(fitted(place, 1.8 * room), max(int(room / text_width("x")), 4))[:2]
        top = y + 5 - LINE * len(lines) / 2
        parts = [
            letters(text, at, top + LINE * n, anchor=anchor, look="halo name") for n, text in enumerate(lines)
        ]
        return [*parts, letters(amount, at, top + LINE * len(lines), anchor=anchor, look="halo tick")]
