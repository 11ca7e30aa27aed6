"""Streams of embedding look-ups: how often each row of a table is asked for.

A law says which share of the look-ups the most looked-up rows take. It is drawn from by rank and the ranks
are spread over the table, as rows that are hot lie anywhere in it. Draws are independent: a real stream may
also ask for a row again soon, of which the published histograms say nothing.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import UserError, refuse_unknown
from ..files import toml

Array = np.ndarray[Any, Any]

UNIFORM, ZIPF, HISTOGRAM = "uniform", "zipf", "histogram"
SPELLING = "uniform|zipf:A|histogram:NAME|FILE.csv"
MOST_ROWS = 1 << 31  # of one table: products of two such numbers fit in 64 bits
MOST_EXPONENT = 10
COLUMNS = ["rows", "lookups"]
GOLDEN = (math.sqrt(5) - 1) / 2


class Law(Protocol):
    """How look-ups fall on the rows of a table, the most looked-up first."""

    def ranks(self, u: Array, rows: int) -> Array:
        """Return the ranks, 0 to below `rows`, below which shares u of look-ups fall; in any shape."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Every row alike."""

    def ranks(self, u: Array, rows: int) -> Array:
        """Return ranks in proportion to u of any shape."""
        return u * rows


@dataclass(frozen=True)
class Zipf:
    """Look-ups of a row about (rank + 1) ** -exponent: the continuous law."""

    exponent: float

    def ranks(self, u: Array, rows: int) -> Array:
        """Return ranks of u, of any shape, by the inverse of the continuous law's distribution."""
        if abs(self.exponent - 1.0) < 1e-9:
            return np.exp(u * math.log(rows + 1.0)) - 1.0
        power = 1.0 - self.exponent
        return (1.0 + u * ((rows + 1.0) ** power - 1.0)) ** (1.0 / power) - 1.0


@dataclass(frozen=True)
class Histogram:
    """The most looked-up `rows[i]` rows take the share `lookups[i]` of all look-ups; both rise to 1.

    Both are shares, of a table's rows and of its look-ups: a smaller table has the same shape. Rows between
    two points are alike.
    """

    rows: tuple[float, ...]
    lookups: tuple[float, ...]

    def ranks(self, u: Array, rows: int) -> Array:
        """Return ranks of u, of any shape, by the inverse of the curve."""
        return np.interp(u, (0.0, *self.lookups), (0.0, *self.rows)) * rows

    def static_hits(self, share: Array) -> Array:
        """Return the share of look-ups that an ideal cache of a share of the rows (any shape) serves."""
        return np.interp(share, (0.0, *self.rows), (0.0, *self.lookups))


@dataclass(frozen=True)
class Popularity:
    """How unevenly rows are looked up, where a table may be several that are stored as one, all by a law."""

    law: Law
    tables: int = 1

    def shares(self, lookups: Array, rows: int) -> Array:
        """Return the share of a table's rows, the hottest first, that take shares of look-ups, any shape."""
        each = max(rows // self.tables, 1)
        return np.clip(self.law.ranks(lookups, each) / each, 0.0, 1.0)


def draw(law: Law, rng: np.random.Generator, rows: int, shape: Sequence[int]) -> Array:
    """Return row numbers int64[shape] of a table of `rows` rows, at most 2^31, drawn by a law."""
    if not 0 < rows <= MOST_ROWS:
        raise UserError(f"a table of {rows} rows: look-ups are drawn from 1 to {MOST_ROWS}")
    ranks = np.minimum(law.ranks(rng.random(tuple(shape)), rows).astype(np.int64), rows - 1)
    return spread(ranks, rows)


def spread(ranks: Array, rows: int) -> Array:
    """Return a row for each rank, a different one for each: neighbours in rank lie far apart in the table."""
    step = max(1, round(rows * GOLDEN))
    while math.gcd(step, rows) > 1:
        step += 1
    return ranks * step % rows


def parse(text: str, flag: str = "--skew") -> Law:
    """Return the law that a text names: uniform, zipf:A, histogram:NAME or histogram:FILE.csv.

    Raises `UserError`, which names the flag that gave the text, for any other.
    """
    kind, colon, value = text.partition(":")
    if text == UNIFORM:
        return Uniform()
    if kind == ZIPF:
        return Zipf(_exponent(text, value, flag))
    if kind == HISTOGRAM and colon:
        return histogram(value)
    raise UserError(f"{flag} {text!r}: none of {SPELLING} (right: {flag} zipf:1.05)")


def _exponent(text: str, value: str, flag: str) -> float:
    try:
        exponent = float(value)
    except ValueError:
        exponent = -1.0
    if not 0 < exponent <= MOST_EXPONENT:
        raise UserError(
            f"{flag} {text!r}: A of zipf:A must be above 0 and at most {MOST_EXPONENT} "
            f"(right: {flag} zipf:1.05)"
        )
    return exponent


def histogram_names() -> list[str]:
    """Return the names of the histograms that ship with the product."""
    folder = resources.files(__name__)
    return sorted(f.name.removesuffix(".csv") for f in folder.iterdir() if f.name.endswith(".csv"))


def histogram(name: str) -> Histogram:
    """Return a shipped histogram, or that of a CSV file with columns `rows` and `lookups`.

    `rows` counts the most looked-up rows, `lookups` is the share of look-ups that they take; both rise, the
    last share is 1, lines that start with # are comments. Raises `UserError` for anything else.
    """
    if name.endswith(".csv") or "/" in name:
        return _curve(toml.file_text(Path(name), "histogram", histogram_names()), f"histogram {name}")
    if name not in histogram_names():
        raise refuse_unknown("histogram", name, histogram_names())
    text = (resources.files(__name__) / f"{name}.csv").read_text(encoding="utf-8")
    return _curve(text, f"histogram {name}")


def _curve(text: str, where: str) -> Histogram:
    try:
        lines = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))
    except csv.Error as error:
        raise UserError(f"{where}: not CSV: {error}") from None
    head, *body = lines or [[]]
    if head != COLUMNS or not body:
        raise UserError(f"{where}: columns are {head}; right: {','.join(COLUMNS)}, and a line for each point")
    try:
        points = np.array([[float(x) for x in line] for line in body])
    except ValueError:
        points = np.zeros((0, 0))
    if points.shape != (len(body), 2) or not np.isfinite(points).all():
        raise UserError(f"{where}: every line must have two numbers")
    rises = (np.diff(points, axis=0, prepend=0.0) > 0).all()
    if not rises or points[-1, 1] != 1.0:
        raise UserError(
            f"{where}: rows and lookups must rise from above 0, lookups to 1 (seen: {points[-1, 1]:g})"
        )
    hotness = np.diff(points[:, 1], prepend=0.0) / np.diff(points[:, 0], prepend=0.0)
    if (np.diff(hotness) > 1e-9 * hotness[:-1]).any():
        raise UserError(
            f"{where}: later rows are looked up more often than earlier ones; right: the hottest first"
        )
    return Histogram(tuple(points[:, 0] / points[-1, 0]), tuple(points[:, 1]))
