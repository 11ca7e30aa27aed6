"""The roofline of a run as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .. import units
from ..roofline import Roofline, RooflinePoint, bandwidth
from .elements import Element, el
from .frame import Extent, Frame, Row, canvas, frame, legend, letters, pointed, series
from .lines import path
from .scales import ChartAxis, plain, share

X = ChartAxis("arithmetic intensity", "op/B", log=True)
Y = ChartAxis("achieved rate", "op/s", log=True)
MOST_POINTS = 160  # drawn and listed: those of the most time


@dataclass(frozen=True)
class RooflineChart:
    """Layers under a machine's roofs: each as large as its share of the time, coloured by what bound it.

    `kinds` are the names that have colours; what is none of them has the last one's.
    """

    title: str
    summary: str
    line: Roofline
    kinds: Sequence[str]

    @property
    def shown(self) -> Sequence[RooflinePoint]:
        """Return the points that are drawn."""
        return self.line.points[:MOST_POINTS]

    @property
    def columns(self) -> Row:
        """Return the table's columns."""
        return ["bound by", X.label, Y.label, "bytes of", "layers", "share of the time"]

    def rows(self) -> list[Row]:
        """Return the table's rows."""
        return [
            [p.bound_by, "none" if p.moves else X.show(p.intensity), Y.show(p.rate), p.memory.upper(),
             str(p.layers), share(p.share)]
            for p in self.shown
        ]  # fmt: skip

    def draw(self, width: float) -> Element:
        """Draw roofs and points; the roof of DRAM is a line, that of SRAM dashed."""
        names, top = legend(self.kinds, width, filled=True)
        line, peak = self.line, self.line.roofs.matrix_ops_per_s
        least = min([line.roof(line.low, "dram"), *(p.rate for p in self.shown if p.rate > 0)])
        on = frame(Extent(X, [line.low, line.high]), Extent(Y, [least / 2, peak * 1.5]), width, top=top)
        parts = [*names, *on.parts, *self._roofs(on)]
        for point in reversed(self.shown):  # large ones last: not hidden, and small ones over them
            parts.append(self._spot(point, on))
        return canvas(self, width, on.height, parts)

    def _roofs(self, on: Frame) -> list[Element]:
        line, peak = self.line, self.line.roofs.matrix_ops_per_s
        parts = []
        for memory, look in (("dram", "edge"), ("sram", "mark")):
            ridge = peak / bandwidth(line.roofs, memory)
            turn = [(line.low, line.roof(line.low, memory)), (ridge, peak), (line.high, peak)]
            text = f"{memory.upper()} {units.size(bandwidth(line.roofs, memory))}/s"
            drawn = el("path", d=path([(on.x(x), on.y(y)) for x, y in turn]), class_=look)
            parts.append(pointed(drawn, f"{text}, products {plain(peak)} op/s"))
            middle = math.sqrt(line.low * ridge)
            spot = on.x(middle) - 6, on.y(line.roof(middle, memory)) - 4
            parts.append(letters(text, *spot, anchor="end", look="tick halo"))
        return parts

    def _spot(self, point: RooflinePoint, on: Frame) -> Element:
        number = self.kinds.index(point.bound_by) if point.bound_by in self.kinds else len(self.kinds) - 1
        look = f"spot {series(number)}{' hollow' if point.memory == 'sram' else ''}"
        radius = 3.0 + 11.0 * math.sqrt(point.share)
        text = (
            f"{units.many(point.layers, 'layer')} bound by {point.bound_by}, {share(point.share)} of the "
            f"time: {plain(point.rate)} op/s at {plain(point.intensity)} op/B of {point.memory.upper()}"
        )
        return pointed(
            el("circle", cx=on.x(point.intensity), cy=on.y(point.rate), r=radius, class_=look), text
        )
