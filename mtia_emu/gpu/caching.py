"""What L2 keeps of what a run reads, by least recent use: rows of tables, and weights from run to run.

How long a line stays after its last use is one time for all lines, the characteristic time (Che, Tung and
Wang, IEEE JSAC 20, 2002), here in runs: after so many, as many bytes of other lines were asked for that the
cache is full of them. A row that is asked for `rate` times a run is found with probability 1 - exp(-rate *
time) in a steady state; in a first run, only if it was asked for before in that run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..types import AttentionWork, BagWork, ImplicitGemmWork, ProductWork, TableUse, Work
from .facts import Facts

Array = np.ndarray
CLASSES = 256  # of rows of a table, by how often they are asked for: each takes as many look-ups
HALVINGS = 48  # of the logarithm of the time, between LEAST and MOST
LEAST, MOST = 1e-9, 1e9  # runs


@dataclass(frozen=True)
class Keeping:
    """How many runs a line stays in L2 after its last use; whether there were runs before (`warm`)."""

    runs: float
    warm: bool = False

    @property
    def weights(self) -> float:
        """Return the share of the weights that a run finds from the one before.

        All where L2 keeps 4/3 of a run, none below 4/5: sets of a cache do not fill alike.
        """
        return min(1.0, max(0.0, (1.25 - 1 / self.runs) / 0.5)) if self.warm else 0.0


EMPTY = Keeping(1.0)
"""L2 of a first run that fits into it."""


def row_bytes(facts: Facts, work: BagWork) -> int:
    """Return the bytes of L2 and DRAM that a row takes, in whole sectors."""
    return math.ceil(work.dim * work.dtype.bytes / facts.dram_sector_bytes) * facts.dram_sector_bytes


def tables(work: BagWork) -> tuple[TableUse, ...]:
    """Return how the tables of a bag are looked up: all as one, every row alike, where nothing is known."""
    return work.tables or (TableUse(work.rows, work.lookups),)


def keeping(facts: Facts, works: Iterable[Work], warm: bool) -> Keeping:
    """Return how long L2 keeps a line while works run one after another, run after run where it is `warm`."""
    units, rates, others = [], [], 0.0
    for work in works:
        if isinstance(work, BagWork):
            for table in tables(work):
                rows, rate = _classes(table)
                units.append(rows * row_bytes(facts, work))
                rates.append(rate)
        others += _passing(work)
    size, rate = (np.concatenate(x) if x else np.zeros(0) for x in (units, rates))
    capacity = facts.l2_usable * facts.l2_bytes
    low, high = math.log(LEAST), math.log(MOST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        runs = math.exp(middle)
        held = float((size * -np.expm1(-rate * runs)).sum()) + others * min(1.0, runs)
        low, high = (middle, high) if held < capacity else (low, middle)
    return Keeping(math.exp(low), warm)


def _passing(work: Work) -> float:
    """Return the bytes that a work brings into L2 beside rows of tables: weights, keys, and its results."""
    fresh = work.read_bytes
    if isinstance(work, ImplicitGemmWork):
        fresh = min(work.read_bytes, work.left_bytes)
    elif isinstance(work, ProductWork):
        fresh = min(work.read_bytes, work.batch * work.m * work.k * work.dtype.bytes)
    elif isinstance(work, AttentionWork):
        fresh = work.rows * work.key_size * work.dtype.bytes
    return float(work.read_bytes - fresh + work.write_bytes)


def _classes(table: TableUse) -> tuple[Array, Array]:
    """Return the rows of each class, and how often a run asks for one of them, both [class]."""
    if table.law is None or not table.rows:
        rows = np.array([float(table.rows)])
    else:
        edges = table.law.shares(np.linspace(0.0, 1.0, CLASSES + 1), table.rows)
        rows = np.diff(edges) * table.rows
    each = np.full(len(rows), table.lookups / len(rows))
    return rows, np.divide(each, rows, out=np.zeros(len(rows)), where=rows > 0)


def misses(table: TableUse, kept: Keeping) -> float:
    """Return how many look-ups of a table read DRAM.

    Rows that were counted (`distinct`) take the place of those that the law would give.
    """
    rows, rate = _classes(table)
    runs, lookups = kept.runs, rows * rate
    first = float((rows * -np.expm1(-rate)).sum())
    if kept.warm:
        missed = float((lookups * np.exp(-rate * runs)).sum())
    else:
        inside = min(runs, 1.0)
        missed = float(
            (rows * -np.expm1(-rate * inside) + (1 - inside) * lookups * np.exp(-rate * inside)).sum()
        )
    again = table.lookups - first
    distinct = first if table.distinct is None else table.distinct
    repeated = max(0.0, missed - first) / again if again > 0 else 0.0
    return min(missed, first) / first * distinct + repeated * (table.lookups - distinct) if first else 0.0
