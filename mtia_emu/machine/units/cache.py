"""A set-associative cache: lines kept by least recent use, written back when they leave.

It stands for shared SRAM used as the last-level cache: MTIA 2i's 256 MB can be set apart for that in
parts of 32 MB (ISCA 2025, table 2). What it holds lasts from call to call, as it does from launch to launch.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator

from ...errors import UserError
from ...numerics import jitted
from .memory import STRICT, unit

Array = np.ndarray[Any, Any]

MOST_LINES = 1 << 25  # a cache object takes 9 bytes a line


class CacheShape(BaseModel):
    """The sizes of a cache."""

    model_config = STRICT

    bytes: int = Field(gt=0, le=1 << 40, description="capacity", json_schema_extra=unit("B"))
    line_bytes: int = Field(gt=0, le=1 << 20, description="bytes of a line", json_schema_extra=unit("B"))
    ways: int = Field(gt=0, le=1024, description="lines of a set", json_schema_extra=unit("lines"))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.bytes % (self.line_bytes * self.ways):
            raise ValueError(
                f"bytes is {self.bytes}: not whole sets of {self.ways} lines of {self.line_bytes} B each"
            )
        if self.bytes // self.line_bytes > MOST_LINES:
            raise ValueError(f"{self.bytes // self.line_bytes} lines: at most {MOST_LINES} are modelled")
        return self

    @property
    def sets(self) -> int:
        """Return the number of sets; line n is in set n modulo that."""
        return self.bytes // (self.line_bytes * self.ways)


def whole_sets(bytes_: int, line_bytes: int, ways: int) -> CacheShape:
    """Return the largest cache of whole sets within `bytes_`; raise `UserError` for one that cannot be."""
    sets = bytes_ // (line_bytes * ways)
    try:
        return CacheShape(bytes=sets * line_bytes * ways, line_bytes=line_bytes, ways=ways)
    except ValidationError as error:
        shape = f"a cache of {bytes_} B in lines of {line_bytes} B and {ways} ways"
        raise UserError(f"{shape}: {error.errors()[0]['msg'].lower()}") from None


class Cache:
    """A cache and what it holds; it starts empty. Equal accesses give equal results, always."""

    def __init__(self, shape: CacheShape) -> None:
        self.shape = shape
        self.accesses = self.misses = 0  # so far
        self.write_backs = 0  # dirty lines that have left so far
        self._lines = np.full((shape.sets, shape.ways), -1, np.int64)  # of each set, the latest used first
        self._dirty = np.zeros((shape.sets, shape.ways), np.bool_)

    def access(self, lines: Array, write: Array | bool = False) -> Array:
        """Return hit[n] of accesses to lines[n] (byte address over line size, at least 0), one after another.

        A line that misses comes in and replaces the one of its set that was used longest ago, written or not.
        `write` (a value for each, or one for all) makes lines dirty.
        """
        asked = np.ascontiguousarray(lines, dtype=np.int64).ravel()
        dirties = np.ascontiguousarray(np.broadcast_to(write, np.shape(lines)), dtype=np.bool_).ravel()
        hit = np.zeros(len(asked), np.bool_)
        self.write_backs += int(_access(asked, dirties, self._lines, self._dirty, hit))
        self.accesses += len(hit)
        self.misses += len(hit) - int(np.count_nonzero(hit))
        return hit.reshape(np.shape(lines))

    def flush(self) -> int:
        """Write every dirty line back and empty the cache; return how many lines were dirty."""
        count = int(self._dirty.sum())
        self.write_backs += count
        self._lines.fill(-1)
        self._dirty.fill(False)
        return count


def lines_of(address: Array, size_bytes: Array | int, line_bytes: int) -> Array:
    """Return the lines that `size_bytes` bytes at each address[n] touch, in order: int64, flat.

    All take as many bytes, or each its own.
    """
    first = np.asarray(address, np.int64).ravel() // line_bytes
    last = (np.asarray(address, np.int64).ravel() + size_bytes - 1) // line_bytes
    count = last - first + 1
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(first, count) + within


@jitted
def _access(asked: Array, write: Array, lines: Array, dirty: Array, hit: Array) -> int:
    """Fill hit[n] of asked[n], change lines[set, way] and dirty; return the dirty lines that left."""
    sets, ways = lines.shape
    left = 0
    for n in range(len(asked)):
        line, s, at = asked[n], asked[n] % sets, 0
        while at < ways - 1 and lines[s, at] != line:
            at += 1
        hit[n] = lines[s, at] == line
        stained = dirty[s, at]
        if not hit[n]:
            left += stained
            stained = False
        for w in range(at, 0, -1):
            lines[s, w], dirty[s, w] = lines[s, w - 1], dirty[s, w - 1]
        lines[s, 0], dirty[s, 0] = line, stained or write[n]
    return left
