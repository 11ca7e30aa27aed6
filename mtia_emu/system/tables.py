"""Embedding tables that are spread over chips: sizes, and how look-ups fall on their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from ..errors import UserError
from ..files import toml
from ..streams import Law, parse, spread
from .library import STRICT, faults

Array = np.ndarray[Any, Any]
MOST_TABLES = 4096
QUANTILES = 1 << 16  # equal parts of a table's look-ups, by which shares of its rows are found
INDEX_BYTES = 8  # int64, as torchrec sends them


@dataclass(frozen=True)
class EmbeddingTable:
    """So many equal tables: `rows` of `dim` elements, `pooling` look-ups a sample, drawn by a law.

    An element is `element_bytes` where it lies; pooled rows are sent in `output_bytes` an element. The
    hottest `hot_rows` are kept by every chip.
    """

    name: str
    count: int
    rows: int
    dim: int
    pooling: float
    skew: str = "uniform"
    element_bytes: float = 2.0
    output_bytes: float = 2.0
    hot_rows: int = 0

    @property
    def row_bytes(self) -> float:
        """Return the bytes of a row."""
        return self.dim * self.element_bytes

    @property
    def bytes(self) -> float:
        """Return the bytes of one of the tables."""
        return self.rows * self.row_bytes

    @property
    def hot_bytes(self) -> float:
        """Return the bytes of the rows of one of the tables that every chip keeps."""
        return self.hot_rows * self.row_bytes

    @cached_property
    def law(self) -> Law:
        """Return how look-ups fall on rows."""
        return parse(self.skew, "skew")

    @cached_property
    def _ranks(self) -> Array:
        """Return the ranks of rows at the middles of equal parts of the look-ups, int64[QUANTILES]."""
        middle = (np.arange(QUANTILES) + 0.5) / QUANTILES
        return np.minimum(self.law.ranks(middle, self.rows).astype(np.int64), self.rows - 1)

    @property
    def hot_share(self) -> float:
        """Return the share of look-ups that hit the rows which every chip keeps."""
        return float(np.searchsorted(self._ranks, self.hot_rows)) / QUANTILES

    def block_shares(self, blocks: int) -> Array:
        """Return the shares of look-ups that fall on equal blocks of rows, without the hot ones: [blocks]."""
        cold = self._ranks[self._ranks >= self.hot_rows]
        return self._in_blocks(cold, blocks) / QUANTILES

    def drawn(self, rng: np.random.Generator, lookups: int, blocks: int) -> Array:
        """Return how many of so many drawn look-ups fall on each block, without the hot rows: [blocks]."""
        ranks = np.minimum(self.law.ranks(rng.random(lookups), self.rows).astype(np.int64), self.rows - 1)
        return self._in_blocks(ranks[ranks >= self.hot_rows], blocks)

    def _in_blocks(self, ranks: Array, blocks: int) -> Array:
        place = spread(ranks, self.rows) // -(-self.rows // blocks)
        return np.bincount(place, minlength=blocks).astype(float)

    @cached_property
    def _rates(self) -> tuple[Array, Array]:
        """Return (look-ups a sample of each row, how many rows to there), the hottest rows first."""
        ranks, counts = np.unique(self._ranks, return_counts=True)
        spans = np.diff(np.append(ranks, self.rows))
        rates = self.pooling * counts / QUANTILES / np.maximum(spans, 1)
        return np.minimum.accumulate(rates), ranks + spans

    def rows_above(self, per_sample: float) -> int:
        """Return how many of the hottest rows are each looked up at least so often a sample."""
        rates, ends = self._rates
        able = int(np.searchsorted(-rates, -per_sample, side="right"))
        return int(ends[able - 1]) if able else 0


class TableGroup(BaseModel):
    """A group of equal tables in a file."""

    model_config = STRICT

    name: str = Field(min_length=1, max_length=64)
    count: int = Field(default=1, gt=0, le=MOST_TABLES)
    rows: int = Field(gt=0, le=1 << 31)
    dim: int = Field(gt=0, le=1 << 16)
    pooling: float = Field(gt=0, le=1e5)
    skew: str = Field(default="uniform", max_length=200)
    element_bytes: float = Field(default=2.0, ge=0.5, le=8)
    output_bytes: float = Field(default=2.0, ge=0.5, le=8)


class TablesFile(BaseModel):
    """A file of embedding tables."""

    model_config = STRICT

    text: str = Field(default="", max_length=200)
    tables: tuple[TableGroup, ...] = Field(min_length=1, max_length=MOST_TABLES)


def load_tables(path: str) -> tuple[EmbeddingTable, ...]:
    """Return the tables of a .toml file; raise `UserError` naming what is wrong in it."""
    values = toml.parse(toml.file_text(Path(path), "tables file", ["a .toml file"]), f"tables {path}")
    try:
        file = TablesFile.model_validate(toml.tuples(values))
    except ValidationError as error:
        raise UserError(f"tables {path}: {faults(error)}") from None
    return checked([EmbeddingTable(**group.model_dump()) for group in file.tables], f"tables {path}")


def checked(tables: Sequence[EmbeddingTable], where: str) -> tuple[EmbeddingTable, ...]:
    """Return tables of different names, laws that exist, and no more than `MOST_TABLES`."""
    names = [t.name for t in tables]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{where}: two groups of tables are called '{twice[0]}'; each has its own name")
    if sum(t.count for t in tables) > MOST_TABLES:
        raise UserError(f"{where}: {sum(t.count for t in tables)} tables; at most {MOST_TABLES}")
    for table in tables:
        _ = table.law
    return tuple(tables)


def with_hot_rows(tables: Sequence[EmbeddingTable], budget_bytes: float) -> tuple[EmbeddingTable, ...]:
    """Return tables whose most looked-up rows are kept by every chip, as far as a budget of bytes goes.

    Those rows are taken first, of all tables, that are looked up most often a byte.
    """
    if budget_bytes <= 0:
        return tuple(tables)
    low, high = -18.0, 3.0  # log10 of look-ups a sample and byte

    def at(level: float) -> list[int]:
        return [t.rows_above(10.0**level * t.row_bytes) for t in tables]

    for _ in range(60):
        middle = (low + high) / 2
        held = sum(t.count * t.row_bytes * rows for t, rows in zip(tables, at(middle), strict=True))
        low, high = (low, middle) if held <= budget_bytes else (middle, high)
    return tuple(replace(t, hot_rows=rows) for t, rows in zip(tables, at(high), strict=True))
