"""How the way back of attention lies on the grid: units of rows that PEs hold, and the panels that they meet.

Units of one group stand in bundles of `stack`, which meet each panel together. Bundles go to PEs longest
first, each to the PE with least to do: where a mask hides keys beyond a diagonal, they are of many lengths.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.types import DType

from ..builder import LINE, ceil_div
from ..matmul.plan import RINGS

Array = np.ndarray[Any, Any]
STACKS = (8, 4, 2, 1)


@dataclass(frozen=True)
class BackProblem:
    """The sizes of one walk: `of_keys` for the gradients of keys and values, else that of queries.

    Key j is hidden from query i of a head where j > i + diagonal.
    """

    of_keys: bool
    groups: int
    heads: int
    queries: int
    keys: int
    dim: int
    value_dim: int
    kind: DType
    diagonal: int
    extra_bytes: int = 0


@dataclass(frozen=True)
class BackTiling:
    """Rows a unit, columns a panel, columns of results at a time, units a bundle."""

    rows: int
    width: int
    chunk: int
    stack: int

    def __str__(self) -> str:
        return f"rows={self.rows}x{self.stack} panel={self.width} chunk={self.chunk}"


@dataclass(frozen=True)
class BackPlan:
    """A problem on a grid under a tiling."""

    problem: BackProblem
    tiles: BackTiling
    chip: Chip

    @cached_property
    def bundles(self) -> list[Array]:
        """Return of each bundle [tile, (group, unit of the bundle, head of queries, row, rows, column,
        columns, plain)] in its order: panel by panel, unit by unit."""
        return [b for g in range(self.problem.groups) for b in self._of_group(g)]

    def _of_group(self, group: int) -> list[Array]:
        t, units = self.tiles, self._units()
        made = []
        for start in range(0, len(units), t.stack):
            tiles = [
                self._tiles(group, i, *units[start + i]) for i in range(min(t.stack, len(units) - start))
            ]
            joined = np.concatenate(tiles)
            by_panel = np.lexsort((joined[:, 1], joined[:, 8]))
            made.append(joined[by_panel])
        return made

    def _units(self) -> list[tuple[int, int]]:
        """Return (head, first row) of units of a group; those of equal positions stand together."""
        p, t = self.problem, self.tiles
        if p.of_keys:
            return [(0, at) for at in range(0, p.keys, t.rows)]
        return [(h, at) for at in range(0, p.queries, t.rows) for h in range(p.heads)]

    def _tiles(self, group: int, unit: int, head: int, at: int) -> Array:
        """Return the tiles of a unit, those that are hidden whole left out; at least one."""
        p, t = self.problem, self.tiles
        side, other = (p.keys, p.queries) if p.of_keys else (p.queries, p.keys)
        rows = min(t.rows, side - at)
        col = np.arange(0, other, t.width)
        cols = np.minimum(t.width, other - col)
        if p.of_keys:
            seen, plain = col + cols - 1 + p.diagonal >= at, col + p.diagonal >= at + rows - 1
        else:
            seen, plain = col <= at + rows - 1 + p.diagonal, col + cols - 1 <= at + p.diagonal
        if not seen.any():
            seen = col == col[-1]
        heads = range(p.heads) if p.of_keys else [head]
        per = [
            np.stack(
                np.broadcast_arrays(
                    group,
                    unit,
                    h,
                    at,
                    rows,
                    col,
                    cols,
                    plain,
                    (h if p.of_keys else 0) * len(col) + np.arange(len(col)),
                ),
                axis=1,
            )[seen]
            for h in heads
        ]
        return np.concatenate(per)

    def assigned(self) -> list[list[int]]:
        """Return the bundles of each PE, in the order in which it takes them."""
        work = [len(b) for b in self.bundles]
        free = [(0, pe) for pe in range(self.chip.pes)]
        taken: list[list[int]] = [[] for _ in free]
        for index in sorted(range(len(work)), key=lambda i: (-work[i], i)):
            load, pe = heapq.heappop(free)
            taken[pe].append(index)
            heapq.heappush(free, (load + work[index], pe))
        return taken


class BackWalk:
    """All tiles as arrays [n]: whose each is, when it comes, and where its operands lie.

    `row` is a unit's row in the operand that is held, `unit_row` the same in its head; `lead` the leading row
    of the panel's operand; `pair` that of operands over both sides. `held` and `panel` number slots.
    """

    def __init__(self, plan: BackPlan) -> None:
        p, t = plan.problem, plan.tiles
        parts, pe, turn, step = [], [], [], []
        for index, bundles in enumerate(plan.assigned()):
            at = 0
            for number, bundle in enumerate(bundles):
                tiles = plan.bundles[bundle]
                parts.append(tiles)
                pe.append(np.full(len(tiles), index))
                turn.append(np.full(len(tiles), number))
                step.append(at + np.arange(len(tiles)))
                at += len(tiles)
        tile = np.concatenate(parts)
        self.pe, self.turn, self.step = (np.concatenate(x) for x in (pe, turn, step))
        group, self.unit, head, at_row, self.rows, self.col, self.cols = tile[:, :7].T
        self.plain, order = tile[:, 7] != 0, tile[:, 8]
        self.unit_row = at_row
        self.pair = group * p.heads + head
        self.row = group * p.keys + at_row if p.of_keys else self.pair * p.queries + at_row
        self.lead = self.pair if p.of_keys else group
        self.held = self.turn % RINGS * t.stack + self.unit
        key = np.stack([self.pe, self.turn, order], axis=1)
        changed = np.r_[True, (key[1:] != key[:-1]).any(axis=1)]
        self.streams = changed
        panel = np.cumsum(changed) - 1
        starts = np.r_[True, self.pe[1:] != self.pe[:-1]]
        self.panel = panel - np.maximum.accumulate(np.where(starts, panel, 0))
        which = (self.pe * (self.turn.max() + 1) + self.turn) * t.stack + self.unit
        self.begins, self.ends = _edges(which), _edges(which[::-1])[::-1]
        first = np.flatnonzero(changed)  # of each panel, its first tile
        self.panel_ahead = _before(self.pe[first], self.step[first])[panel]
        bundle = np.r_[True, (key[1:, :2] != key[:-1, :2]).any(axis=1)]
        first = np.flatnonzero(bundle)
        self.bundle_ahead = _before(self.pe[first], self.step[first])[np.cumsum(bundle) - 1]


def _edges(which: Array) -> Array:
    """Return where each value stands first."""
    first = np.zeros(len(which), bool)
    first[np.unique(which, return_index=True)[1]] = True
    return first


def _before(pe: Array, step: Array) -> Array:
    """Return of each of a PE's panels or bundles, in order, the step at which the one before began; -1."""
    same = np.r_[False, pe[1:] == pe[:-1]]
    return np.where(same, np.r_[-1, step[:-1]], -1)


def tilings(p: BackProblem, chip: Chip) -> list[BackTiling]:
    """Return the tilings that fit a PE: bundles as large as leave no PE without work, then others."""
    reduce = chip.pe.reduce
    side = p.keys if p.of_keys else p.queries
    rows = max(1, min(side, reduce.bank_rows))
    room = max(1, reduce.bytes // (2 * 4 * rows) // 16 * 16)
    width = min(p.queries if p.of_keys else p.keys, room, 2 * reduce.bank_cols)
    chunk = min(max(p.dim, p.value_dim), room)
    units = ceil_div(side, rows) * p.groups * (1 if p.of_keys else p.heads)
    widths = dict.fromkeys(max(1, width >> i) for i in range(3))
    found = [BackTiling(rows, w, chunk, s) for w in widths for s in STACKS]
    fitting = [t for t in found if local_bytes(p, t) <= chip.pe.local.bytes]
    few = max(1, units // chip.pes)  # larger bundles leave PEs without work
    return sorted(fitting, key=lambda t: (t.stack > few, -t.width, -t.stack))


def local_bytes(p: BackProblem, t: BackTiling) -> int:
    """Return about the local memory that a tiling takes."""
    both, outs = p.dim + p.value_dim, 2 if p.of_keys else 1
    columns = both if p.of_keys else p.dim
    held = RINGS * t.stack * t.rows * both * p.kind.bytes
    held += RINGS * t.width * (both + columns) * p.kind.bytes
    held += t.rows * columns * (4 * t.stack + RINGS * p.kind.bytes)
    held += t.rows * t.width * (RINGS * outs * p.kind.bytes + 6 * 4 + p.extra_bytes * RINGS * t.stack)
    return held + (8 * RINGS * t.stack + 40) * (LINE + 4 * max(t.rows, t.width))
