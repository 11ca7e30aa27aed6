"""The network on chip: a link along each row and each column of PEs; which PEs one load feeds."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from .memory import STRICT, unit

Array = np.ndarray[Any, Any]
Numbers = Array | float


class Cast(IntEnum):
    """Which PEs one load feeds: its own, its row, its column, or all, of its own band."""

    NONE = 0
    ROW = 1
    COL = 2
    ALL = 3


class Noc(BaseModel):
    """The network on chip: a link along each row and each column of PEs, both with multicast."""

    model_config = STRICT

    row_bytes_per_cycle: float = Field(
        gt=0, description="bandwidth of one row's link", json_schema_extra=unit("B/cycle")
    )
    col_bytes_per_cycle: float = Field(
        gt=0, description="bandwidth of one column's link", json_schema_extra=unit("B/cycle")
    )
    hop_cycles: float = Field(
        ge=0, description="latency from one PE to the next", json_schema_extra=unit("cycles")
    )
    broadcast: bool = Field(
        description="true: one read may feed all PEs; false: those of one row or one column only",
        json_schema_extra=unit("yes or no"),
    )

    def cost(self, bytes_: Numbers, by_col: Numbers, hops: Numbers) -> tuple[Array, Array]:
        """Return the cycles for which links are taken, and those over so many hops; in any shape."""
        rate = np.where(by_col, self.col_bytes_per_cycle, self.row_bytes_per_cycle)
        return np.asarray(bytes_) / rate, self.latency(hops)

    def latency(self, hops: Numbers) -> Array:
        """Return the cycles over so many links, in any shape."""
        return np.asarray(hops) * self.hop_cycles


class Grid(BaseModel):
    """The grid of processing elements."""

    model_config = STRICT

    rows: int = Field(gt=0, le=256, description="rows of PEs", json_schema_extra=unit("PEs"))
    cols: int = Field(gt=0, le=256, description="columns of PEs", json_schema_extra=unit("PEs"))

    def near(self, number: Numbers) -> Array:
        """Return the PE that stands at a number, from 0 on, when those nearest the west edge come first.

        Numbers go down the first column, then the next, and begin again after the last PE: work that is
        handed out so takes the shortest ways, and the links into rows take equal shares of it.
        """
        place = np.asarray(number) % (self.rows * self.cols)
        return np.asarray(place % self.rows * self.cols + place // self.rows)

    def hops(self, pe: Numbers, cast: Numbers, bands: Array | None = None) -> Array:
        """Return the links from the memory to the furthest PE that each load of PE `pe` feeds.

        A memory feeds rows from the west edge and columns from the north. `bands[row]` are the first and the
        last (excluded) row of each row's band; without them the grid is one.
        """
        pe, kind = np.asarray(pe), np.asarray(cast)
        if not kind.any():  # one PE each, as most: quicker; adding 0 keeps the shape
            return np.asarray(pe % self.cols + 1 + kind)
        low, high = (0, self.rows) if bands is None else bands[pe // self.cols].T
        return np.choose(kind, [pe % self.cols + 1, self.cols, high, high - low + self.cols])
