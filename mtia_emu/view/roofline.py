"""The roofline: where every layer stands under the machine's roofs, and a chart of it in characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.text import Text

from ..results.report import Layer, Report
from ..results.roofs import Roofs
from . import units
from .page import Page

_MARGIN = 6.0  # the range of intensities goes beyond ridges and points by this factor
_ROWS, _LABEL = 17, 11  # of the chart in characters


@dataclass(frozen=True)
class RooflinePoint:
    """One spot: operations per byte of `memory`, operations a second, and the layers that fall on it.

    A layer that only moves bytes has no intensity: it stands at the left edge, as far below its memory's roof
    as its bandwidth is below the memory's. `share` is of the run's time.
    """

    intensity: float
    rate: float
    bound_by: str
    memory: str
    moves: bool
    share: float = 0.0
    layers: int = 0


@dataclass(frozen=True)
class Roofline:
    """Every layer that does or moves something, and the range of intensities, which holds all ridges."""

    roofs: Roofs
    points: tuple[RooflinePoint, ...]
    low: float
    high: float

    def roof(self, intensity: float, memory: str) -> float:
        """Return the operations a second that no layer of that intensity exceeds."""
        return min(self.roofs.matrix_ops_per_s, intensity * bandwidth(self.roofs, memory))


def bandwidth(roofs: Roofs, memory: str) -> float:
    """Return the bytes a second of "dram" or "sram"."""
    return {"dram": roofs.dram_bytes_per_s, "sram": roofs.sram_bytes_per_s}[memory]


def roofline_of(report: Report, roofs: Roofs) -> Roofline:
    """Return the roofline of a report; layers that fall on one spot are one point, large points first.

    Intensity is per DRAM byte, per SRAM byte for a layer without DRAM traffic.
    """
    ridges = [roofs.matrix_ops_per_s / bandwidth(roofs, memory) for memory in ("dram", "sram")]
    intensities = [layer.ops / _moved(layer)[0] for layer in report.layers if layer.ops and _moved(layer)[0]]
    low, high = min([*ridges, *intensities]) / _MARGIN, max([*ridges, *intensities]) * _MARGIN
    shares: dict[RooflinePoint, list[float]] = {}
    for layer in report.layers:
        if _moved(layer)[0] and layer.end_cycle > layer.start_cycle:
            shares.setdefault(_spot(layer, low), []).append(layer.seconds / report.track_seconds)
    merged = [replace(spot, share=math.fsum(parts), layers=len(parts)) for spot, parts in shares.items()]
    return Roofline(roofs, tuple(sorted(merged, key=lambda point: -point.share)), low, high)


def _moved(layer: Layer) -> tuple[int, str]:
    return (layer.dram_bytes, "dram") if layer.dram_bytes else (layer.sram_bytes, "sram")


def _spot(layer: Layer, low: float) -> RooflinePoint:
    moved, memory = _moved(layer)
    intensity = layer.ops / moved if layer.ops else low
    rate = float(f"{intensity * moved / layer.span_s:.2e}")
    return RooflinePoint(intensity, rate, layer.bound_by, memory, not layer.ops)


def chart(page: Page, line: Roofline) -> list[Text]:
    """Return the roofline in characters, both axes logarithmic: roofs as lines, layers as letters.

    A letter stands for what bound the layers in its cell, the one that took the most time; capital where that
    is a tenth of the run or more. The letters are listed below the chart.
    """
    letters = _letters([point.bound_by for point in line.points])
    width = min(page.width - _LABEL - 4, 76)
    floor, top = _range(line)
    cells: dict[tuple[int, int], str] = {}
    for memory, mark in (("sram", "."), ("dram", "-" if page.ascii_only else "·")):
        for x in range(width):
            rate = line.roof(_at(x / (width - 1), line.low, line.high), memory)
            cells[_row(rate, floor, top), x] = "_" if rate >= line.roofs.matrix_ops_per_s else mark
    for point in reversed(line.points):  # large ones last, on top
        x = round(_where(point.intensity, line.low, line.high) * (width - 1))
        letter = letters[point.bound_by]
        cells[_row(point.rate, floor, top), x] = letter.upper() if point.share >= 0.1 else letter
    lines = [_labelled(page, row, floor, top, cells, width) for row in range(_ROWS)]
    ends = f"{units.si(line.low, '')} to {units.si(line.high, '')} operations a byte"
    bounds = ", ".join(f"{letter} {name}" for name, letter in letters.items())
    return [*lines, page.text(" " * _LABEL + " " + ends, "dim"), page.text(f"bound by: {bounds}", "dim")]


def _labelled(
    page: Page, row: int, floor: float, top: float, cells: dict[tuple[int, int], str], width: int
) -> Text:
    """Return one line of the chart, every fourth with its rate."""
    rate = _at(1 - row / (_ROWS - 1), floor, top)
    label = units.si(float(f"{rate:.1e}"), "op/s") if row % 4 == 0 else ""
    line = page.text(f"{label:>{_LABEL}} ", "dim")
    line.append(("|" if page.ascii_only else "│") + "".join(cells.get((row, x), " ") for x in range(width)))
    return line


def _range(line: Roofline) -> tuple[float, float]:
    """Return the lowest and the highest rate of the chart."""
    least = min([line.roof(line.low, "dram"), *(point.rate for point in line.points if point.rate > 0)])
    return least / 2, line.roofs.matrix_ops_per_s * 2


def _at(share: float, low: float, high: float) -> float:
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


def _where(value: float, low: float, high: float) -> float:
    share = (math.log(max(value, low)) - math.log(low)) / (math.log(high) - math.log(low))
    return min(max(share, 0.0), 1.0)


def _row(rate: float, floor: float, top: float) -> int:
    return _ROWS - 1 - round(_where(rate, floor, top) * (_ROWS - 1))


def _letters(names: Sequence[str]) -> dict[str, str]:
    """Return a letter for each name: the first of its own that no name before it has."""
    taken: dict[str, str] = {}
    for name in dict.fromkeys(names):
        free = [c for c in name.lower() + "abcdefghijklmnopqrstuvwxyz" if "a" <= c <= "z"]
        taken[name] = next((c for c in free if c not in taken.values()), "x")
    return taken
