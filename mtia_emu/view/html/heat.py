"""A map of cells, paler where there is less."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .elements import Element, el
from .frame import Row, canvas, letters, pointed
from .scales import ChartAxis

SWATCHES = 5


@dataclass(frozen=True)
class HeatMap:
    """Values by row and column; `names` are those of columns and of rows, `axes` what they are.

    `columns_axis` and `rows_axis` say what runs across and down, `z` what a cell holds.
    """

    title: str
    summary: str
    columns_axis: ChartAxis
    rows_axis: ChartAxis
    z: ChartAxis
    across: Sequence[str]
    down: Sequence[str]
    cells: Sequence[Sequence[float]]

    @property
    def columns(self) -> Row:
        """Return the table's columns."""
        return [f"{self.rows_axis.label}; {self.z.label}", *self.across]

    def rows(self) -> list[Row]:
        """Return the table's rows."""
        shown = [[self.z.show(v) for v in row] for row in self.cells]
        return [[name, *row] for name, row in zip(self.down, shown, strict=True)]

    @cached_property
    def range(self) -> tuple[float, float]:
        """Return the least and the most of the cells that hold a number."""
        known = [v for row in self.cells for v in row if math.isfinite(v)]
        return (min(known), max(known)) if known else (0.0, 0.0)

    def draw(self, width: float) -> Element:
        """Draw the cells, and what their colours mean above them."""
        left, top = 44.0, 62.0
        wide = (width - left - 2) / max(len(self.across), 1)
        tall = min(max(230.0 / max(len(self.down), 1), 9.0), 22.0)
        parts = self._key(width)
        for r, row in enumerate(self.cells):
            for c, value in enumerate(row):
                box = self._cell(value, left + c * wide, top + r * tall, (wide, tall))
                parts.append(pointed(box, f"{self.down[r]}, {self.across[c]}: {self.z.amount(value)}"))
        parts += self._names(left, top, (wide, tall))
        bottom = top + tall * len(self.down)
        middle = (left + width) / 2
        parts.append(letters(self.columns_axis.label, middle, bottom + 34, anchor="middle", look="axis"))
        return canvas(self, width, bottom + 42, parts)

    def _cell(self, value: float, x: float, y: float, size: tuple[float, float]) -> Element:
        wide, tall = size
        if not math.isfinite(value):
            return el("rect", x=x, y=y, width=wide, height=tall, class_="unknown")
        return el("rect", x=x, y=y, width=wide, height=tall, class_="heat", fill_opacity=self._part(value))

    def _part(self, value: float) -> float:
        low, high = self.range
        return 0.05 + 0.95 * (value - low) / (high - low) if high > low else 0.5

    def _names(self, left: float, top: float, size: tuple[float, float]) -> list[Element]:
        wide, tall = size
        bottom = top + tall * len(self.down) + 15
        by_column = 1 + int(30 / wide)
        by_row = 1 + int(13 / tall)
        parts = [
            letters(name, left + (c + 0.5) * wide, bottom, anchor="middle", look="tick")
            for c, name in list(enumerate(self.across))[::by_column]
        ]
        return parts + [
            letters(name, left - 6, top + (r + 0.5) * tall + 4, anchor="end", look="tick")
            for r, name in list(enumerate(self.down))[::by_row]
        ]

    def _key(self, width: float) -> list[Element]:
        low, high = self.range
        parts = [letters(self.z.label, 0, 12, look="axis"), letters(self.rows_axis.label, 0, 54, look="axis")]
        start, wide = 0.0, 34.0
        parts.append(letters(self.z.show(low), start, 32, look="tick"))
        start += 52
        for number in range(SWATCHES):
            value = low + (high - low) * number / (SWATCHES - 1)
            parts.append(self._cell(value, start + number * wide, 22, (wide, 12.0)))
        parts.append(letters(self.z.show(high), start + SWATCHES * wide + 6, 32, look="tick"))
        return parts
