"""Where embedding tables lie: the placement whose slowest chip and exchanges take the least time together.

How tables are cut is a mixed-integer programme (HiGHS, through scipy: the extra `plan`); which chip takes
which piece, a greedy placement, the heaviest first, and swaps. A rule of thumb cuts tables where scipy is
absent, and beside the solver to hold it to: of the two, what costs less is taken.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from .balance import Chips, balance
from .programme import TableCut, solved
from .sharding import (
    COLUMNS,
    COPIED,
    ROWS,
    WHOLE,
    ShardCost,
    ShardJob,
    TablePlacement,
    check_fits,
    cost,
    in_order,
)

Array = np.ndarray[Any, Any]
KINDS = (WHOLE, COLUMNS, ROWS, COPIED)
ROOMS = (1.0, 0.95, 0.85)  # shares of memory that the solver may fill: pieces must find places, too
TIE = 0.05  # what a piece adds to its chip counts so much, where it adds nothing to the slowest
SMALL = 0.01  # of a chip's memory: tables up to this, all together, are copied by the rule of thumb


@dataclass(frozen=True)
class ShardPlan:
    """A placement, what it costs, who found it, and the time that no placement of these kinds is below.

    `least_s` is the bound of the programme's sums, in which exchanges have one rate; 0 without a solver.
    """

    job: ShardJob
    placements: tuple[TablePlacement, ...]
    cost: ShardCost
    solver: str
    least_s: float


def plan(job: ShardJob, kinds: Sequence[str] = KINDS) -> ShardPlan:
    """Return the best placement found, of tables whole, in columns, in rows or copied, as `kinds` allows.

    Raises `UserError` where the tables do not fit, and where the kinds cannot hold a table.
    """
    check_fits(job)
    tried, least = [("rule of thumb", by_rule(job, kinds))], 0.0
    if importlib.util.find_spec("scipy") is not None:
        for room in ROOMS:
            cuts, bound = solved(job, kinds, room)
            least = bound if room == ROOMS[0] else least
            found = placed(job, cuts) if cuts is not None else None
            tried.append(("HiGHS", found))
    plans = [ShardPlan(job, p, cost(job, p), name, least) for name, p in tried if p is not None]
    if not plans:
        largest, room = max(t.bytes for t in job.tables), job.memory_bytes.min()
        raise UserError(
            f"no placement by {', '.join(kinds)} fits: the largest table has {largest / 1e9:,.1f} GB, "
            f"a chip has {room / 1e9:,.1f} GB for tables (right: --shard {','.join(KINDS)}, or more memory)"
        )
    return min(plans, key=lambda each: each.cost.seconds)


def by_rule(job: ShardJob, kinds: Sequence[str]) -> tuple[TablePlacement, ...] | None:
    """Return a placement without a solver: small tables copied, others cut down to a fair share."""
    load = [t.count * job.cold(t) * job.read_s(0, t.row_bytes) for t in job.tables]
    fair, left = sum(load) / job.ranks, SMALL * float(job.memory_bytes.min())
    cuts: list[TableCut] = []
    for number, table in sorted(enumerate(job.tables), key=lambda each: each[1].bytes):
        if COPIED in kinds and table.count * table.bytes <= left:
            left -= table.count * table.bytes
            cuts.append(TableCut(number, COPIED, 1, table.count))
        else:
            cuts.append(_fair(job, kinds, number, fair))
    return placed(job, cuts)


def _fair(job: ShardJob, kinds: Sequence[str], number: int, fair_s: float) -> TableCut:
    """Return the least cut of a group whose pieces fit a chip and look up no more than a fair share."""
    table = job.tables[number]
    cuts = [c for c in job.cuts(table) if (WHOLE if c == 1 else COLUMNS) in kinds]
    for parts in cuts:
        light = job.cold(table) * job.read_s(0, table.row_bytes / parts) <= fair_s
        if table.bytes / parts <= job.memory_bytes.max() and (light or parts == cuts[-1]):
            return TableCut(number, WHOLE if parts == 1 else COLUMNS, parts, table.count)
    kind = ROWS if ROWS in kinds else COPIED if COPIED in kinds else WHOLE
    return TableCut(number, kind, job.ranks if kind == ROWS else 1, table.count)


def placed(job: ShardJob, cuts: Sequence[TableCut]) -> tuple[TablePlacement, ...] | None:
    """Return cut tables on chips, None where a piece has no room.

    The heaviest pieces come first, each where the slowest chip gets least slower; then pieces are moved and
    swapped as long as that helps.
    """
    spread = [cut for cut in cuts if cut.kind in (ROWS, COPIED)]
    kinds = [cut for cut in cuts if cut.kind in (WHOLE, COLUMNS)]
    seconds = np.array([_piece_s(job, cut) for cut in kinds]).reshape(-1, 3)
    bytes_ = np.array([job.tables[cut.table].bytes / cut.parts for cut in kinds])
    busy, left = _spread(job, spread)
    chips = Chips(busy, left, np.zeros((len(kinds), job.ranks), int), seconds, bytes_)
    if (left < 0).any() or not _filled(job, chips, [cut.parts * cut.tables for cut in kinds]):
        return None
    balance(chips)
    out = [TablePlacement(c.table, c.kind, -1, c.tables, 1) for c in spread]
    for cut, held in zip(kinds, chips.held.tolist(), strict=True):
        out += [TablePlacement(cut.table, cut.kind, rank, k, cut.parts) for rank, k in enumerate(held) if k]
    return in_order(out)


def _spread(job: ShardJob, cuts: Sequence[TableCut]) -> tuple[Array, Array]:
    """Return (times [3, ranks], memory that is left [ranks]) with the tables that lie on all chips."""
    n = job.ranks
    busy, left = np.zeros((3, n)), job.memory_bytes.copy()
    for cut in cuts:
        t = job.tables[cut.table]
        left -= cut.tables * t.bytes / (n if cut.kind == ROWS else 1)
        shares = t.block_shares(n) if cut.kind == ROWS else np.full(n, (1.0 - t.hot_share) / n)
        busy[0] += cut.tables * job.batch * t.pooling * shares * job.read_s(0, t.row_bytes)
    return busy, left


def _filled(job: ShardJob, chips: Chips, counts: Sequence[int]) -> bool:
    """Put so many pieces of each kind on chips, the heaviest first; return whether all found room."""
    room = float(job.memory_bytes.max())
    fair = max(float(np.dot(counts, chips.seconds.sum(axis=1))) / job.ranks, 1e-18) if counts else 1.0
    weight = np.maximum(chips.seconds.sum(axis=1) / fair, chips.bytes / room)
    for kind in np.argsort(-weight, kind="stable").tolist():
        for _ in range(counts[kind]):
            after = chips.busy + chips.seconds[kind][:, None]
            ends = np.maximum(after, chips.busy.max(axis=1, keepdims=True)).sum(axis=0)
            ends += TIE * after.sum(axis=0)
            rank = int(np.argmin(np.where(chips.left >= chips.bytes[kind], ends, np.inf)))
            if chips.left[rank] < chips.bytes[kind]:
                return False
            chips.left[rank] -= chips.bytes[kind]
            chips.busy[:, rank] = after[:, rank]
            chips.held[kind, rank] += 1
    return True


def _piece_s(job: ShardJob, cut: TableCut) -> Array:
    """Return what a piece costs its chip, in seconds: look-ups, pooled rows sent, indices got."""
    t = job.tables[cut.table]
    lookups = job.cold(t) * job.read_s(0, t.row_bytes / cut.parts)
    pooled, indices = job.pooled_bytes(t) / cut.parts, job.index_bytes(t) * (1.0 - t.hot_share)
    return np.array([lookups, job.exchange_s[0] * pooled, job.exchange_s[0] * indices])
