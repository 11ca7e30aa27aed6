"""How embedding tables are cut, as a mixed-integer programme, solved by HiGHS through scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .sharding import COLUMNS, COPIED, ROWS, WHOLE, ShardJob
from .tables import EmbeddingTable

GAP = 0.002  # the solver stops this near to its bound,
NODES = 2000  # or after so many nodes: a limit of time would give other answers on other machines
US = 1e6  # times are in microseconds and memory in shares of a chip's, so that numbers are of one size


@dataclass
class _Programme:
    """Variables from 0 to a limit with a price, and rows between limits; the sum of prices is to be least."""

    price: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    entries: list[tuple[int, int, float]] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def variable(self, most: float, *, price: float = 0.0, whole: bool = True) -> int:
        self.price.append(price)
        self.most.append(most)
        self.whole.append(int(whole))
        return len(self.price) - 1

    def row(self, low: float, high: float) -> int:
        self.low.append(low)
        self.high.append(high)
        return len(self.low) - 1

    def put(self, row: int, variable: int, value: float) -> None:
        self.entries.append((row, variable, value))

    def solution(self) -> tuple[Any, float]:
        """Return (values or None, bound)."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array

        rows, places, values = zip(*self.entries, strict=True)
        matrix = coo_array((values, (rows, places)), shape=(len(self.low), len(self.price))).tocsr()
        found = milp(
            np.asarray(self.price), constraints=LinearConstraint(matrix, self.low, self.high),
            integrality=np.asarray(self.whole), bounds=Bounds(np.zeros(len(self.most)), self.most),
            options={"mip_rel_gap": GAP, "node_limit": NODES},
        )  # fmt: skip
        bound = found.mip_dual_bound
        return found.x, float(bound) if bound is not None and np.isfinite(bound) else 0.0


@dataclass(frozen=True)
class TableCut:
    """How some of a group's tables are cut: a kind of placement, into so many `parts`; so many tables."""

    table: int
    kind: str
    parts: int
    tables: int


def solved(
    job: ShardJob, kinds: Sequence[str], room: float = 1.0
) -> tuple[tuple[TableCut, ...] | None, float]:
    """Return how all tables are cut, None where nothing fits, and a time that no placement is below.

    Which chip takes which piece is left open: chips are as good as equal, and there are many more pieces than
    chips. Least: look-ups, pooled rows that a rank sends and indices that it gets, each at least the mean of
    all chips and at least the largest piece, and the sums of tables in rows. Memory holds in sum, of which a
    share `room` is used. Exchanges have one rate a byte, that of a large one.
    """
    model = _Programme()
    sums = _Sums.of(model, job, room)
    chosen: list[_Chosen] = []
    for number, table in enumerate(job.tables):
        once = model.row(table.count, table.count)
        chosen += [_chosen(model, sums, job, cut, once) for cut in _cuts(job, number, kinds, room)]
    _leave_room(model, job, chosen, room)
    x, bound = model.solution()
    if x is None:
        return None, bound / US
    counts = [(c.cut, round(float(x[c.tables]))) for c in chosen]
    return tuple(TableCut(c.table, c.kind, c.parts, k) for c, k in counts if k), bound / US


@dataclass(frozen=True)
class _Sums:
    """What all cuts add to: memory; look-ups, pooled rows, indices, and the slowest of each of the three."""

    memory: int
    means: tuple[int, ...]
    slowest: tuple[int, ...]

    @classmethod
    def of(cls, model: _Programme, job: ShardJob, room: float) -> _Sums:
        """Return the sums of a job, before any cut; rows that all chips keep are looked up on each."""
        hot = US * sum(
            t.count * job.batch * t.pooling * t.hot_share * job.read_s(0, t.row_bytes) for t in job.tables
        )
        memory = model.row(-np.inf, room * float(job.memory_bytes.sum()) / _unit_bytes(job))
        means = tuple(model.row(-np.inf, -float(x)) for x in (hot, 0.0, 0.0))
        slowest = tuple(model.variable(np.inf, price=1.0, whole=False) for _ in means)
        for row, variable in zip(means, slowest, strict=True):
            model.put(row, variable, -float(job.ranks))
        return cls(memory, means, slowest)


@dataclass(frozen=True)
class _Chosen:
    """A way to cut a group's tables, and its variables: how many `tables` are cut so, and whether one is."""

    cut: TableCut
    tables: int
    used: int


def _unit_bytes(job: ShardJob) -> float:
    return float(max(job.memory_bytes.mean(), 1.0))


def _chosen(model: _Programme, sums: _Sums, job: ShardJob, cut: TableCut, once: int) -> _Chosen:
    """Put a cut and what it takes into the programme; its tables count in the row `once` of their group."""
    table = job.tables[cut.table]
    price = US * job.exchange_s[1] * job.pooled_bytes(table) if cut.kind == ROWS else 0.0
    tables = model.variable(table.count, price=price)
    used = model.variable(1.0)
    held, total, largest = _uses(job, cut, table)
    model.put(once, tables, 1.0)
    model.put(sums.memory, tables, held / _unit_bytes(job))
    link = model.row(-np.inf, 0.0)  # tables <= count * used
    model.put(link, tables, 1.0)
    model.put(link, used, -float(table.count))
    for mean, slowest, each, most in zip(sums.means, sums.slowest, total, largest, strict=True):
        model.put(mean, tables, each)
        if most > each / job.ranks * 1.001:
            above = model.row(-np.inf, 0.0)
            model.put(above, used, most)
            model.put(above, slowest, -1.0)
    return _Chosen(cut, tables, used)


def _leave_room(model: _Programme, job: ShardJob, chosen: Sequence[_Chosen], room: float) -> None:
    """Put that on a chip the largest piece has room beside what lies on all of them."""
    most = float(job.memory_bytes.max())
    for c in chosen:
        if c.cut.kind in (WHOLE, COLUMNS):
            row = model.row(-np.inf, room)
            model.put(row, c.used, job.tables[c.cut.table].bytes / c.cut.parts / most)
            for other in chosen:
                if other.cut.kind in (ROWS, COPIED):
                    share = job.ranks if other.cut.kind == ROWS else 1
                    model.put(row, other.tables, job.tables[other.cut.table].bytes / share / most)


def _cuts(job: ShardJob, number: int, kinds: Sequence[str], room: float) -> list[TableCut]:
    """Return the ways in which the tables of a group may be cut, so that a piece takes a share of a chip."""
    table, most = job.tables[number], room * float(job.memory_bytes.max())
    ways = [(WHOLE if parts == 1 else COLUMNS, parts) for parts in job.cuts(table)]
    found = [TableCut(number, kind, parts, 0) for kind, parts in ways if table.bytes / parts <= most]
    found += [TableCut(number, ROWS, job.ranks, 0), TableCut(number, COPIED, 1, 0)]
    return [cut for cut in found if cut.kind in kinds]


Three = tuple[float, float, float]


def _uses(job: ShardJob, cut: TableCut, t: EmbeddingTable) -> tuple[float, Three, Three]:
    """Return what a table takes so cut: memory; look-ups, pooled rows, indices; the largest piece of them.

    Times are in microseconds, of all chips together or of the one that has most of them.
    """
    n, cold = job.ranks, 1.0 - t.hot_share
    send_s, read_s = (
        US * job.exchange_s[0],
        US * job.read_s(0, t.row_bytes / (1 if cut.kind == ROWS else cut.parts)),
    )
    lookups = job.batch * t.pooling * cold * read_s
    if cut.kind == COPIED:
        return n * t.bytes, (lookups, 0.0, 0.0), (lookups / n, 0.0, 0.0)
    indices = send_s * job.index_bytes(t) * cold
    if cut.kind == ROWS:
        top = float(t.block_shares(n).max()) / max(cold, 1e-12)
        return t.bytes, (lookups, 0.0, indices), (lookups * top, 0.0, indices * top)
    pooled = send_s * job.pooled_bytes(t)
    each = (lookups, pooled / cut.parts, indices)
    return t.bytes, (lookups * cut.parts, pooled, indices * cut.parts), each
