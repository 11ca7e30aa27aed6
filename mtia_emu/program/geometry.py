"""Where tiles lie in memory, and how far they go: runs of bytes, receivers, links and hops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..numerics import jitted
from .isa import Cast, Operand

Array = np.ndarray[Any, Any]


@jitted
def receivers(cast: int, p: int, low: int, high: int, cols: int) -> tuple[int, int, int]:
    """Return first, last (excluded) and step of the PEs that a command of PE p writes.

    The band of PE p has rows low .. high of a grid of `cols` columns: no multicast leaves it.
    """
    if cast == 1:
        first = p // cols * cols
        return first, first + cols, 1
    if cast == 2:
        return low * cols + p % cols, high * cols, cols
    return (low * cols, high * cols, 1) if cast == 3 else (p, p + 1, 1)


def reached(c: Array, bands: Array, chip: Chip) -> Array:
    """Return how many PEs each command writes; `bands` as of `Block.band_rows`."""
    cols, cast = chip.grid.cols, c["cast"]
    if len(np.unique(bands)) == 2:
        return np.array([1, cols, len(bands), chip.pes])[cast]
    rows = (bands[:, 1] - bands[:, 0])[c["pe"] // cols]
    return np.choose(cast, [np.ones_like(rows), np.full_like(rows, cols), rows, rows * cols])


def links(chip: Chip) -> int:
    """Return how many links a chip has: into each row of PEs, into each column, and out of each row."""
    return 2 * chip.grid.rows + chip.grid.cols


def links_in(pe: Array, cast: Array, chip: Chip) -> Array:
    """Return the number of the link by which data come to pe[n], or to its column, [n]."""
    grid = chip.grid
    return np.where(cast == Cast.COL, grid.rows + pe % grid.cols, pe // grid.cols)


def links_out(pe: Array, chip: Chip) -> Array:
    """Return the number of the link by which data leave the row of pe[n], [n]."""
    grid = chip.grid
    return grid.rows + grid.cols + pe // grid.cols


def _lead(operand: Operand) -> tuple[int, int, int]:
    """Return the stride of an operand's rows, how often each is repeated, and how many lie at that stride."""
    shape, strides = operand.shape[: -operand.across], operand.strides[: -operand.across]
    dims = [d for d in zip(shape, strides, strict=True) if d[0] > 1]
    again, span = 1, 1
    while dims and dims[-1][1] == 0:
        again *= dims.pop()[0]
    stride = dims[-1][1] if dims else operand.cols
    while dims and dims[-1][1] == stride * span:
        span *= dims.pop()[0]
    return stride, again, span


def distinct(operand: Operand, row: Array, rows: Array) -> Array:
    """Return the distinct rows of tiles: a broadcast row is moved once."""
    _, again, _ = _lead(operand)
    return (row + rows - 1) // again - row // again + 1.0


def _in_line(operand: Operand) -> int:
    """Return how many elements of a row lie one after another in memory."""
    return in_line(operand.shape[-operand.across :], operand.strides[-operand.across :])


def in_line(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return how many elements, from the first, lie one after another in dimensions of these strides."""
    line = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n > 1 and stride != line:
            break
        line *= n
    return line


def runs_of(operand: Operand, rows: Array, cols: Array) -> tuple[Array, Array, bool]:
    """Return the bytes and the number, [n] each, of contiguous runs of tiles, and whether they are turned.

    `rows` are distinct; a window's row is cut where its columns do not lie one after another. The layout unit
    turns a tile whose runs in memory lie across the direction in which local memory keeps it.
    """
    size, col = operand.dtype.bytes, operand.strides[-1]
    if operand.across > 1:
        length = np.minimum(cols, _in_line(operand))
        return length * size, rows * np.ceil(cols / length), operand.by_column
    row, _, span = _lead(operand)
    if col == 0 or operand.cols == 1:
        col, cols = 1, np.ones_like(cols)
    thin = operand.rows == 1 or operand.cols == 1
    length = np.minimum(rows, span)
    if col == 1 and not (row == 1 and operand.cols == 1):
        length = np.where((row == operand.cols) & (cols == operand.cols), length, 1)
        return length * cols * size, np.ceil(rows / length), operand.by_column and not thin
    if row == 1:
        together = np.where((col == span) & (length == span), cols, 1)  # columns that lie one behind another
        turned = not operand.by_column and not thin
        return length * together * size, np.ceil(rows / length) * (cols / together), turned
    return np.full_like(rows, size), rows * cols, not thin
