"""The steady state of the cache before DRAM: what it serves of a program that is run again and again.

What dense operands keep there is chosen (`keeping.py`), as a compiler's hints would; the rest holds rows of
tables, by least recent use. How long a row stays is one time for all of them, the characteristic time (Che,
Tung and Wang, IEEE JSAC 20, 2002): so long after a row was asked for, as many bytes of other rows have been
that the cache is full of them; in sets of few lines it differs from set to set. A row that is asked for
`rate` times a run is found with probability 1 - exp(-rate * time). So the state that runs settle in is solved
for, not run up to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..machine.chip import Chip
from ..options import WARM
from ..program.census import census
from ..program.commands import POOLS
from ..program.isa import Block, Operand, Program
from ..types import RowLaw
from .keeping import dense_misses
from .lookups import Lookups, cache_bytes

Array = np.ndarray[Any, Any]
CLASSES = 512  # of rows, by how often they are asked for: each takes as many of the look-ups
SPREAD, STEPS = 8.0, 65  # around the characteristic time: sets differ by less
HALVINGS, LONGEST = 64, 2.0**100  # runs: in which a time is found


class Missed(NamedTuple):
    """Which share of an operand's accesses the cache misses.

    Of bytes that a run asks for the `first` time, of those that it asks for `again`, and, where no data tell
    those two apart, the mean of `all` look-ups.
    """

    first: float = 1.0
    again: float = 1.0
    all: float = 1.0


Misses = tuple[Missed, ...]  # of each operand of a launch's block
NOTHING_KEPT = Missed()


def steady(program: Program, chip: Chip, lookups: Mapping[int, Lookups]) -> dict[int, Misses]:
    """Return what the cache misses of each launch that it serves; {} for a cold run, or without a cache.

    `lookups` give how often tables are looked up and by which law; without them the mean, spread evenly.
    """
    capacity = cache_bytes(program, chip) if program.state == WARM else 0
    if not capacity:
        return {}
    dense, kept = dense_misses(program, capacity)
    tables = dict[int, Table]()
    means = [looked_up(block) for block in program.blocks]
    asked = [
        _asked(program, number, means[launch.block], lookups.get(number))
        for number, launch in enumerate(program.launches)
    ]
    for launch, of in zip(program.launches, asked, strict=True):
        for operand, (count, law) in of.items():
            x, at = program.blocks[launch.block].operands[operand], launch.addresses[operand]
            before = tables[at].looked_up if at in tables else 0.0
            tables[at] = Table(*_unit(x, chip.sram.line_bytes), before + count, law)
    time = stay([t for t in tables.values() if t.looked_up], capacity - kept, chip.sram.ways)
    rows = {at: table.missed(time) for at, table in tables.items()}
    out = {}
    for number, (launch, of) in enumerate(zip(program.launches, asked, strict=True)):
        misses = list(map(_dense, dense[number]))
        if not (number in lookups and lookups[number].carried):
            misses = [rows[launch.addresses[i]] if i in of else x for i, x in enumerate(misses)]
        if any(one != NOTHING_KEPT for one in misses):
            out[number] = tuple(misses)
    return out


def _dense(shares: tuple[float, float]) -> Missed:
    return Missed(*shares)


def _asked(
    program: Program, number: int, means: Mapping[int, float], known: Lookups | None
) -> dict[int, tuple[float, RowLaw | None]]:
    """Return how often a launch looks up each table in DRAM, by operand, and by which law.

    `means` are the block's `looked_up`, `known` the look-ups that it is known to have.
    """
    block = program.blocks[program.launches[number].block]
    out = {}
    for operand, mean in means.items():
        count = mean
        if known is not None:
            pools = block.commands["operand"][POOLS[block.commands["op"]]]
            count = float(known.counts[pools == operand].sum()) if (pools == operand).any() else mean
        out[operand] = (count, known.popularity if known is not None else None)
    return out


def looked_up(block: Block) -> dict[int, float]:
    """Return how many rows a block looks up in each table in DRAM, by operand, as its commands say."""
    return {i: rows for i, rows in census(block).looked_up if block.operands[i].space.off_chip}


@dataclass(frozen=True)
class Table:
    """A table as the cache sees it: units of so many bytes (a row, or the rows of a line), and look-ups."""

    units: float
    unit_bytes: float
    looked_up: float
    law: RowLaw | None = None

    @property
    def classes(self) -> tuple[Array, Array]:
        """Return the units of each class of rows, [class], and the look-ups that it takes in a run."""
        if self.law is None:
            return np.array([self.units]), np.array([self.looked_up])
        edges = self.law.shares(np.linspace(0.0, 1.0, CLASSES + 1), max(round(self.units), 1))
        return np.diff(edges) * self.units, np.full(CLASSES, self.looked_up / CLASSES)

    def missed(self, time: Stay) -> Missed:
        """Return what is missed where a unit stays for so long after it was asked for."""
        units, lookups = self.classes
        rate = rates(units, lookups)
        missed = float((lookups * time.lost(rate)).sum())
        distinct = float((units * -np.expm1(-rate)).sum())
        again = max(self.looked_up - distinct, 0.0)
        return Missed(
            min(missed / distinct, 1.0) if distinct else 0.0,
            min(max(missed - distinct, 0.0) / again, 1.0) if again else 0.0,
            missed / self.looked_up if self.looked_up else 0.0,
        )


def rates(units: Array, lookups: Array) -> Array:
    """Return how often a run asks for a unit of each class, [class]; none of an empty class."""
    return np.divide(lookups, units, out=np.zeros(len(units)), where=units > 0)


def _unit(table: Operand, line_bytes: int) -> tuple[float, float]:
    """Return how many units a table has in the cache, and the bytes of one: lines that a row touches."""
    stride, size = table.strides[0] * table.dtype.bytes, table.cols * table.dtype.bytes
    if 0 < stride <= line_bytes:
        return max(table.rows * stride / line_bytes, 1.0), float(line_bytes)
    whole = -(-size // line_bytes) if stride % line_bytes == 0 else (size - 1) / line_bytes + 1
    return float(table.rows), whole * line_bytes


@dataclass(frozen=True)
class Stay:
    """How long rows stay that nobody asks for: `times` [n] in runs, each with a probability, `shares`."""

    times: Array
    shares: Array

    def lost(self, rate: Array) -> Array:
        """Return the probability that rows asked for `rate` times a run, any shape, have left by then."""
        return np.exp(-rate[..., None] * self.times) @ self.shares


GONE = Stay(np.zeros(1), np.ones(1))
FOR_EVER = Stay(np.full(1, LONGEST), np.ones(1))


def stay(tables: Sequence[Table], capacity: int, ways: int) -> Stay:
    """Return how long rows stay in a cache of sets of so many lines.

    After the characteristic time as many bytes of other rows were asked for as fit. In one set they were
    more, in another fewer: as many lines as a binomial law has it, here by the normal one.
    """
    parts = [(t.unit_bytes * units, rates(units, n)) for t in tables for units, n in [t.classes]]
    if not parts or capacity <= 0:
        return GONE
    bytes_, rate = (np.concatenate(column) for column in zip(*parts, strict=True))
    whole = float(bytes_[rate > 0].sum())
    if whole <= capacity:
        return FOR_EVER
    times = _time(bytes_, rate, capacity) * np.geomspace(1 / SPREAD, SPREAD, STEPS)
    held = np.array([_held(bytes_, rate, t) for t in times])
    lines = ways * held / capacity
    deviation = np.sqrt(np.maximum(lines * (1.0 - held / whole), 1e-12))
    beyond = np.array([math.erf(x) for x in (ways - 0.5 - lines) / deviation / math.sqrt(2)])
    gone = np.maximum.accumulate((1.0 - beyond) / 2)
    gone[-1] = 1.0
    return Stay(times, np.diff(gone, prepend=0.0))


def _held(bytes_: Array, rate: Array, time: float) -> float:
    """Return the bytes [class] that a run of so long asks for, each once."""
    return float((bytes_ * -np.expm1(-rate * time)).sum())


def _time(bytes_: Array, rate: Array, capacity: int) -> float:
    """Return the runs in which rows of as many bytes are asked for as a cache holds: more would not fit."""
    low, high = 0.0, 1.0
    while _held(bytes_, rate, high) < capacity and high < LONGEST:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _held(bytes_, rate, middle) < capacity else (low, middle)
    return high
