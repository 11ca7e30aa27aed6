"""Costs between anchors: piecewise linear in each direction, constant below the first anchor.

Values have three columns: seconds, joules, and how many seconds the interpolation may be wrong by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
SECONDS, JOULES, ERROR_S = range(3)
KEPT_ROWS = 4096  # of a surface, each a few kB


@dataclass(frozen=True, eq=False)
class Curve:
    """Costs [n, 3] at n increasing sizes."""

    sizes: Floats
    values: Floats

    @property
    def last(self) -> int:
        """Return the largest size."""
        return int(self.sizes[-1])

    def at(self, size: float) -> Floats:
        """Return the cost at a size: float64[3]."""
        below, share = _cell(self.sizes, size)
        low: Floats = self.values[below]
        return low + share * (self.values[below + 1] - low) if share else low


@dataclass(frozen=True, eq=False)
class Surface:
    """Costs [n, m, 3] at n increasing sizes x and m increasing sizes y."""

    x: Floats
    y: Floats
    values: Floats
    _rows: dict[int, tuple[Floats, Floats]] = field(default_factory=dict, repr=False)

    @property
    def last_x(self) -> int:
        """Return the largest x."""
        return int(self.x[-1])

    @property
    def last_y(self) -> int:
        """Return the largest y."""
        return int(self.y[-1])

    def each(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
        """Return the costs at points: float64[k, 3]."""
        (i, s), (j, t) = _cells(self.x, np.asarray(x, float)), _cells(self.y, np.asarray(y, float))
        i1, j1 = np.minimum(i + 1, len(self.x) - 1), np.minimum(j + 1, len(self.y) - 1)
        s, t, v = s[:, None], t[:, None], self.values
        low = v[i, j] * (1 - t) + v[i, j1] * t
        return np.asarray(low * (1 - s) + (v[i1, j] * (1 - t) + v[i1, j1] * t) * s)

    def mean(self, x: int, y: npt.NDArray[np.int64]) -> Floats:
        """Return the mean over y of the costs at one x: float64[3]."""
        base, slope = self._lines(x)
        cell = self._cell_of[y]
        return np.asarray((base[cell] + slope[cell] * y[:, None]).sum(0) / len(y))

    def means(self, x: int, y: npt.NDArray[np.int64], steps: int) -> Floats:
        """Return the mean at one x over y, over y + 1, and so on: float64[steps, 3]."""
        base, slope = self._lines(x)
        later = y[None, :] + np.arange(steps)[:, None]
        cell = self._cell_of[later]
        values = np.empty((steps, base.shape[1]))
        for column in range(base.shape[1]):
            values[:, column] = (base[cell, column] + slope[cell, column] * later).sum(1)
        return values / len(y)

    def _lines(self, x: int) -> tuple[Floats, Floats]:
        """Return what is above 0 and by y of the costs in each cell of y, at one x."""
        if x not in self._rows:
            if len(self._rows) >= KEPT_ROWS:
                self._rows.clear()
            below, share = _cell(self.x, x)
            row = self.values[below]
            row = row + share * (self.values[below + 1] - row) if share else row
            slope = np.zeros((len(self.y) + 1, row.shape[1]))
            slope[1:-1] = np.diff(row, axis=0) / np.diff(self.y)[:, None]
            first = np.concatenate([row[:1], row])  # cell 0 is below the first anchor
            at = np.concatenate([self.y[:1], self.y])
            self._rows[x] = first - slope * at[:, None], slope
        return self._rows[x]

    @cached_property
    def _cell_of(self) -> npt.NDArray[np.int64]:
        """Return the cell of each whole y up to the last: 0 below the first anchor."""
        return np.searchsorted(self.y, np.arange(self.last_y + 1), side="right")


@dataclass(frozen=True, eq=False)
class MixedRatio:
    """Attention of prompts and decodes in one kernel, as a ratio to the sum of each alone.

    `axes` are chunk tokens, past tokens, decoding sequences, their context; `ratios` has that shape.
    """

    axes: tuple[Floats, Floats, Floats, Floats]
    ratios: Floats

    def at(self, point: tuple[float, float, float, float]) -> float:
        """Return the ratio at a point, that of the nearest one on the grid's edge for one outside."""
        block = self.ratios
        for axis, x in zip(self.axes, point, strict=True):
            below, share = _cell(axis, min(x, float(axis[-1])))
            low = block[below]
            block = low + share * (block[below + 1] - low) if share else low
        return float(block)


def _cell(anchors: Floats, size: float) -> tuple[int, float]:
    """Return the anchor at or below a size, and how far on the way to the next it is; 0 below the first."""
    if size <= anchors[0]:
        return 0, 0.0
    below = int(np.searchsorted(anchors, size, side="right")) - 1
    if below == len(anchors) - 1:
        return below, 0.0
    low = float(anchors[below])
    return below, (size - low) / (float(anchors[below + 1]) - low)


def _cells(anchors: Floats, sizes: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return `_cell` of each size."""
    held = np.clip(sizes, anchors[0], anchors[-1])
    below = np.minimum(np.searchsorted(anchors, held, side="right") - 1, max(len(anchors) - 2, 0))
    if len(anchors) == 1:
        return np.zeros(len(sizes), np.int64), np.zeros(len(sizes))
    return below, (held - anchors[below]) / (anchors[below + 1] - anchors[below])
