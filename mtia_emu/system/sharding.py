"""What a placement of embedding tables costs: memory and look-ups of each chip, and what is exchanged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import UserError
from .collectives import Collective, timed
from .reading import row_seconds
from .tables import INDEX_BYTES, EmbeddingTable
from .topology import System

Array = np.ndarray[Any, Any]
WHOLE, COLUMNS, ROWS, COPIED = "table", "column", "row", "copied"
LEAST_ROW_BYTES = 32  # columns are not cut below this
SHOT_BYTES = 16 << 20  # of the exchange whose rate stands for all in a planner's sums


@dataclass(frozen=True)
class TablePlacement:
    """How some of a group's equal tables lie.

    `table` is the group's number. A "table" lies whole on a chip, a "column" is one of `parts` equal cuts of
    its columns; so many (`count`) of them lie on rank `rank`. "row": so many tables are cut into blocks of
    rows, one on each chip. "copied": every chip has all of them. `rank` is -1 for these two.
    """

    table: int
    kind: str
    rank: int
    count: int
    parts: int = 1


def in_order(placements: Iterable[TablePlacement]) -> tuple[TablePlacement, ...]:
    """Return placements by table, kind and rank."""
    return tuple(sorted(placements, key=lambda p: (p.table, p.kind, p.parts, p.rank)))


@dataclass(frozen=True)
class ShardJob:
    """What is to be spread: tables, the samples of a batch over all ranks, the system and memory a chip.

    `some` are the chips that share it, in the order of ranks; all of the system's without.
    """

    system: System
    tables: tuple[EmbeddingTable, ...]
    batch: int
    memory_share: float = 0.8
    some: tuple[int, ...] = ()

    @cached_property
    def chips(self) -> tuple[int, ...]:
        """Return the number of each rank's chip in the system."""
        return self.some or tuple(range(len(self.system.ranks)))

    @property
    def ranks(self) -> int:
        """Return the number of chips."""
        return len(self.chips)

    @cached_property
    def memory_bytes(self) -> Array:
        """Return what each chip has for tables, after the rows that all of them keep: [ranks]."""
        hot = sum(t.count * t.hot_bytes for t in self.tables)
        room = [self.system.endpoints[c].dram_bytes * self.memory_share - hot for c in self.chips]
        return np.maximum(np.asarray(room), 0.0)

    def cold(self, table: EmbeddingTable) -> float:
        """Return the look-ups of a batch in one table that miss the rows which every chip keeps."""
        return self.batch * table.pooling * (1.0 - table.hot_share)

    def read_s(self, rank: int, row_bytes: float) -> float:
        """Return the seconds of one row's look-up on a rank."""
        return row_seconds(self.system.endpoints[self.chips[rank]].source, row_bytes)

    def pooled_bytes(self, table: EmbeddingTable) -> float:
        """Return the bytes of one table's pooled rows of a whole batch."""
        return self.batch * table.dim * table.output_bytes

    def index_bytes(self, table: EmbeddingTable) -> float:
        """Return the bytes of one table's indices of a whole batch."""
        return self.batch * table.pooling * INDEX_BYTES

    def cuts(self, table: EmbeddingTable) -> list[int]:
        """Return into how many columns a table may be cut, 1 for not at all."""
        most = min(self.ranks, int(table.row_bytes // LEAST_ROW_BYTES))
        return [c for c in (1, 2, 4, 8, 16) if c == 1 or (c <= most and table.dim % c == 0)]

    @cached_property
    def exchange_s(self) -> tuple[float, float]:
        """Return seconds a byte that a rank sends in an all-to-all, and a byte of a whole reduce-scatter."""
        out = []
        for kind in ("all_to_all", "reduce_scatter"):
            found = timed(self.system, Collective(kind, float(SHOT_BYTES), self.chips))
            out.append((found.seconds - found.fixed_s) / SHOT_BYTES)
        return out[0], out[1]


@dataclass(frozen=True)
class ShardCost:
    """What a placement costs a batch.

    Arrays are by rank. `seconds` is the exchange of indices, the look-ups of the slowest chip, and the
    exchange of pooled rows, one after another; `exchanged_j` are joules of links and switches.
    """

    memory_bytes: Array
    lookup_s: Array
    index_s: float
    pooled_s: float
    sums_s: float
    exchanged_j: float

    @property
    def seconds(self) -> float:
        """Return the time of all of it."""
        return float(self.index_s + self.lookup_s.max() + self.pooled_s + self.sums_s)


def cost(
    job: ShardJob, placements: Sequence[TablePlacement], drawn: dict[int, Array] | None = None
) -> ShardCost:
    """Return what placements cost; `drawn` are shares of look-ups by block of rows in place of expected ones.

    Each rank holds an equal part of the samples: it sends their indices to who has the rows, and gets their
    pooled rows. Tables in blocks of rows give partial sums, which a reduce-scatter adds up.
    """
    n = job.ranks
    memory, lookups = np.zeros(n), np.zeros(n)
    pooled, indices, partial = np.zeros(n), np.zeros(n), 0.0
    for p in placements:
        t = job.tables[p.table]
        if p.kind in (WHOLE, COLUMNS):
            memory[p.rank] += p.count * t.bytes / p.parts
            lookups[p.rank] += p.count * job.cold(t) * job.read_s(p.rank, t.row_bytes / p.parts)
            pooled[p.rank] += p.count * job.pooled_bytes(t) / p.parts
            indices[p.rank] += p.count * job.index_bytes(t)
            continue
        each = np.array([job.read_s(rank, t.row_bytes) for rank in range(n)])
        if p.kind == ROWS:
            shares = (drawn or {}).get(p.table)
            shares = t.block_shares(n) if shares is None else shares
            memory += p.count * t.bytes / n
            lookups += p.count * job.batch * t.pooling * shares * each
            partial += p.count * job.pooled_bytes(t)
            indices += p.count * job.index_bytes(t) * shares
        else:
            memory += p.count * t.bytes
            lookups += p.count * job.cold(t) / n * each
    for t in job.tables:  # rows that all keep are looked up by whose samples ask for them
        memory += t.count * t.hot_bytes
        hot = t.count * job.batch * t.pooling * t.hot_share / n
        lookups += hot * np.array([job.read_s(rank, t.row_bytes) for rank in range(n)])
    return _exchanged(job, (memory, lookups), (pooled, indices), partial)


def _exchanged(
    job: ShardJob, chips: tuple[Array, Array], sent: tuple[Array, Array], partial: float
) -> ShardCost:
    """Return a cost with its exchanges timed: each rank's pooled rows and indices in equal parts to all."""
    n, ranks = job.ranks, job.chips
    pooled, indices = (np.tile(each[:, None] / n, (1, n)) for each in sent)
    times, joules = [], 0.0
    for matrix in (indices.T, pooled):
        rows = tuple(tuple(row) for row in matrix.tolist())
        found = timed(job.system, Collective("all_to_all", 0.0, ranks, rows)) if matrix.any() else None
        times.append(found.seconds if found else 0.0)
        joules += found.joules if found else 0.0
    sums = timed(job.system, Collective("reduce_scatter", partial, ranks)) if partial and n > 1 else None
    joules += sums.joules if sums else 0.0
    return ShardCost(*chips, times[0], times[1], sums.seconds if sums else 0.0, joules)


def check_fits(job: ShardJob) -> None:
    """Raise `UserError` where the tables fit no placement, saying by how much and what would do."""
    need, have = sum(t.count * t.bytes for t in job.tables), float(job.memory_bytes.sum())
    if need > have:
        more = int(np.ceil(need / (have / job.ranks))) if have else 0
        what = f"{more} such chips would do" if more else "the rows that every chip keeps fill it"
        raise UserError(
            f"the tables have {need / 1e9:,.1f} GB, {job.system.name} has {have / 1e9:,.1f} GB for them "
            f"({job.memory_share:.0%} of its DRAM): {(need - have) / 1e9:,.1f} GB too little; {what}"
        )


def slowest_s(job: ShardJob, placements: Sequence[TablePlacement], batches: int, seed: int) -> Array:
    """Return the look-ups' time of the slowest chip in each of some drawn batches, in seconds: [batches].

    Tables of fixed pooling that lie whole take the same time in each batch; blocks of rows do not.
    """
    rng = np.random.default_rng(seed)
    blocks = sorted({p.table for p in placements if p.kind == ROWS})
    out = []
    for _ in range(batches):
        drawn = {}
        for number in blocks:
            table = job.tables[number]
            lookups = min(int(job.batch * table.pooling), MOST_DRAWN)
            drawn[number] = table.drawn(rng, lookups, job.ranks) / lookups
        out.append(float(cost(job, placements, drawn).lookup_s.max()))
    return np.asarray(out)


MOST_DRAWN = 1 << 20  # look-ups of a table that are drawn for a batch
