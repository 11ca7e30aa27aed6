"""The mappings of a product that are worth a try, as arrays that broadcast: one number a candidate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.ways import read_latency
from mtia_emu.program.isa import Cast

from ..builder import LINE, round_up
from .plan import RINGS, MatmulMapping, MatmulProblem, axis, cast_of

Array = np.ndarray[Any, Any]
MOST_DEPTH = 12  # slots of one circular buffer that are tried
IDLE = 3  # an axis split over two dimensions leaves at most one part in so many of its PEs idle
SPARE = 3  # slots that ride out a wait for SRAM while other PEs store
LONGEST = 1024  # k panel that is tried
STAGE_SHARE = 4  # staging takes at most one part in so many of SRAM, where nothing is said
OUTER, INNER = 1, 2  # what is staged, as bits


@dataclass(frozen=True)
class GridSplit:
    """How the grid is split, and what follows: parts of each dimension, who shares a tile.

    `rows_parts` and `cols_parts` are what each axis of the grid does.
    """

    rows: str
    cols: str
    rows_parts: dict[str, int]
    cols_parts: dict[str, int]
    casts: dict[str, Cast]


def stage_room(p: MatmulProblem, chip: Chip) -> int:
    """Return the bytes of SRAM that a product may stage its operands in."""
    return p.stage_bytes or chip.sram.bytes // STAGE_SHARE


def panel_lengths(chip: Chip) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the lengths of a k panel that are tried, and those where local memory holds none of them.

    Each is twice the one before. Of two arrays' depth and more a product hides the change of what is
    stationary; beyond 64 a longer one saves commands, which an array of more rows does not need.
    """
    least = min(32, 2 * chip.pe.matrix.rows)
    lengths = tuple(1 << i for i in range(LONGEST.bit_length()))
    return tuple(x for x in lengths if x >= least), tuple(x for x in lengths if x < least)


def splits(p: MatmulProblem, chip: Chip) -> list[GridSplit]:
    """Return every split of the grid worth a try: dimensions of one element are not split."""
    grid_splits = []
    for rows in _axes(p, chip.grid.rows):
        for cols in _axes(p, chip.grid.cols):
            down, across = axis(rows, chip.grid.rows), axis(cols, chip.grid.cols)
            if sum(d == "k" for d, _ in (*down, *across)) > 1:
                continue
            casts = {x: _cast(p, chip, x, down, across) for x in "ab"}
            grid_splits.append(GridSplit(rows, cols, dict(down), dict(across), casts))
    return grid_splits


def _axes(p: MatmulProblem, size: int) -> Iterator[str]:
    """Yield the splits of an axis: powers of two too, where few PEs idle, so that 9 can do what 8 can.

    All PEs walk the same turns of experts, so that none idles where there are fewer of them.
    """
    factors = [
        x for x in range(2, size // 2 + 1) if size % x == 0 or (not x & (x - 1) and size % x <= size // IDLE)
    ]
    dims = [d for d in ("mnk" if p.turns else "bmnk") if p.size(d) > 1 or d == "m"]
    yield from dims
    for slow in dims:
        for fast in dims:
            if slow != fast and slow != "k" and (fast == "k" or slow < fast):
                for factor in factors:
                    yield f"{slow}{size // factor}{fast}{factor}"


def _cast(p: MatmulProblem, chip: Chip, operand: str, down: Any, across: Any) -> Cast:
    free = {"n"} if operand == "a" else {"m"}
    if not (p.a_batched if operand == "a" else p.b_batched):
        free.add("b")
    return cast_of(chip, all(d in free for d, _ in across), all(d in free for d, _ in down))


def _tiles(size: int, block: int, least: int) -> list[int]:
    """Return tile sizes: the whole block and its halves that are no smaller than `least`, cut to the size."""
    if size <= least:
        return [min(size, block)]
    sizes, tile = [], block
    while tile >= least:
        sizes.append(min(tile, round_up(size, least) if size < tile else tile))
        tile //= 2
    return sorted({min(s, size) for s in sizes}, reverse=True) or [min(size, block)]


def _staged(p: MatmulProblem) -> list[int]:
    """Return what may be staged in SRAM, as bits: the inner operand only where both are in DRAM."""
    if p.turns:
        return [0]
    if p.a_space.off_chip and p.b_space.off_chip:
        return [0, OUTER, INNER, OUTER | INNER]
    return [0, OUTER] if p.a_space.off_chip or p.b_space.off_chip else [0]


class MappingSpace:
    """All candidates: axes are split, tm, tn, panel, loop order, held, staged; and what follows of each.

    Each array broadcasts to [split, tm, tn, panel, order, held, staged]: an axis on which it does not depend
    has length 1.

    `local` counts the tiles of each dimension that a PE walks; `panel` is the bytes of an operand's panel,
    `hold` of how many panels of the outer operand stay, `fits` whether local memory and SRAM hold it all.
    """

    def __init__(self, p: MatmulProblem, chip: Chip, panels: Sequence[int]) -> None:
        self.p = p
        unit, reduce = chip.pe.matrix, chip.pe.reduce
        self.splits = splits(p, chip)
        # the banks stand two by two: a block is at most two banks down and two across
        block_m = reduce.bank_rows * max(1, reduce.banks // 2)
        block_n = reduce.bank_cols * max(1, min(2, reduce.banks))
        order = {"weights": [1], "inputs": [0], "any": [0, 1]}[chip.kernels.stationary]
        self.choices: list[list[Any]] = [
            self.splits,
            _tiles(p.m, block_m, 8),
            _tiles(p.n, block_n, min(unit.cols, block_n, 16)),
            [x for x in panels if x < 2 * p.k] or [panels[0]],  # one that takes all of k
            order,
            [0, 1, 2],  # nothing held, as much as fits, all of it twice
            _staged(p),
        ]
        self.shape = tuple(len(c) for c in self.choices)
        self._active: dict[str, tuple[Array, Array]] = {}  # kept, for it is asked for several times
        self.in_dram = {x for x, space in (("a", p.a_space), ("b", p.b_space)) if space.off_chip}
        self._walk(unit.lanes(p.a.name) if unit.supports(p.a.name) else 1)
        self._sizes()
        self.panel_cycles = self._panel_cycles(chip)
        self._hold(chip)

    def axis(self, index: int, values: Any) -> Array:
        """Return values [n] along one axis of the space, with 1 along the others."""
        shape = [1] * len(self.choices)
        shape[index] = -1
        return np.asarray(values).reshape(shape)

    def _walk(self, step: int) -> None:
        """Find the tiles, panels of whole steps along k, and how many of each dimension a PE walks."""
        p = self.p
        self.rows_parts, self.cols_parts = (
            {d: self.axis(0, [getattr(s, name).get(d, 1) for s in self.splits]) for d in "bmnk"}
            for name in ("rows_parts", "cols_parts")
        )
        parts = {d: self.rows_parts[d] * self.cols_parts[d] for d in "bmnk"}
        self.tm, self.tn = self.axis(1, self.choices[1]), self.axis(2, self.choices[2])
        mine = -(-p.k // parts["k"])
        even = -(-mine // -(-mine // self.axis(3, self.choices[3])))
        self.kp = -(-even // step) * step
        tiles = {"b": p.batch, "m": -(-p.m // self.tm), "n": -(-p.n // self.tn), "k": -(-p.k // self.kp)}
        self.local = {d: -(-tiles[d] // parts[d]) for d in "bmnk"}
        self.used = {d: -(-tiles[d] // self.local[d]) for d in "bmnk"}  # parts that have tiles
        self.chain = self.used["k"]
        self.tiles = self.local["b"] * self.local["m"] * self.local["n"]
        self.steps = self.tiles * self.local["k"]

    def _sizes(self) -> None:
        p = self.p
        self.by_n = self.axis(4, self.choices[4]) == 1  # b stays
        self.kept, staged = self.axis(5, self.choices[5]), self.axis(6, self.choices[6])
        self.staged, self.by_slabs = staged & OUTER > 0, staged & INNER > 0
        self.panel = {"a": self.tm * self.kp * p.a.bytes, "b": self.tn * self.kp * p.b.bytes}
        self.outer_panel = np.where(self.by_n, self.panel["b"], self.panel["a"])
        self.inner_panel = np.where(self.by_n, self.panel["a"], self.panel["b"])
        self.inner_count = np.where(self.by_n, self.local["m"], self.local["n"])
        self.outer_count = np.where(self.by_n, self.local["n"], self.local["m"])

    def active(self, operand: str) -> tuple[Array, Array]:
        """Return over how many rows, and columns of each, loads of an operand are spread that have work."""
        if operand not in self._active:
            self._active[operand] = self._spread(operand)
        return self._active[operand]

    def _spread(self, operand: str) -> tuple[Array, Array]:
        casts = [x.casts[operand] for x in self.splits]
        across = {d: np.minimum(self.cols_parts[d], self.used[d]) for d in "bmnk"}
        rows, cols = np.ones(1), np.ones(1)
        for d in "bmnk":
            rows = rows * -(-self.used[d] // across[d])
            cols = cols * across[d]
        one_row = self.axis(0, [c in (Cast.COL, Cast.ALL) for c in casts])
        one_col = self.axis(0, [c in (Cast.ROW, Cast.ALL) for c in casts])
        return np.where(one_row, 1, rows), np.where(one_col, 1, cols)

    def hops(self, operand: str, chip: Chip) -> Array:
        """Return the links from memory to the furthest PE that has work and is fed an operand."""
        _, cols = self.active(operand)
        cast = self.axis(0, [int(x.casts[operand]) for x in self.splits])
        return chip.grid.hops(cols.astype(np.int64) - 1, cast)

    def _panel_cycles(self, chip: Chip) -> Array:
        """Return the cycles that one product of panels takes the matrix unit, or the core to issue it."""
        p = self.p
        m, n, k = np.minimum(self.tm, p.m), np.minimum(self.tn, p.n), np.minimum(self.kp, p.k)
        cycles, _ = chip.pe.product_cost(m, k, n, p.a)
        return np.maximum(cycles, chip.pe.core.issue(1))

    def _room(self, chip: Chip) -> Array:
        """Return the bytes of local memory that are left for panels."""
        p, local = self.p, chip.pe.local.bytes
        return (
            local * 15 // 16 - 8 * LINE - self.tm * self.tn * (RINGS * p.out.bytes + p.epilogue.local_bytes)
        )

    def _hold(self, chip: Chip) -> None:
        """Find how many panels of the outer operand local memory can hold, and which candidates fit."""
        p, lk = self.p, self.local["k"]
        ways = (read_latency(self.hops(x, chip), float(x in self.in_dram), chip) for x in "ab")
        slots = RINGS + SPARE + np.ceil(np.maximum(*ways) / self.panel_cycles).astype(int)
        room = self._room(chip) // self.inner_panel - RINGS  # beside two panels of the outer operand
        self.depth = np.clip(np.minimum(slots, room), RINGS, MOST_DEPTH)
        free = self._room(chip) - self.depth * self.inner_panel
        some = np.where(lk * self.outer_panel <= free, lk, free // self.outer_panel - self.depth)
        self.hold = np.where(self.kept == 0, 0, np.where(self.kept == 1, np.minimum(some, lk), lk))
        self.rings = np.where(self.kept == 2, 2, 1)
        need = self.hold * self.rings + np.where(self.hold < lk, self.depth, 0)
        self.fits = (need * self.outer_panel <= free) & ((self.hold > 0) | (self.kept == 0))
        spaces = np.where(self.by_n, p.b_space.off_chip, p.a_space.off_chip)
        copies = np.where(self.by_n, self._leaders("b", chip), self._leaders("a", chip))
        held = np.where(self.staged, RINGS * copies * lk * self.outer_panel, 0)
        room = stage_room(p, chip) - held
        self.fits = self.fits & (~self.staged | (spaces & (room >= 0)))
        self.slabs = np.ones(1, int)
        if self.by_slabs.any():
            self._slabs(np.maximum(room, 0))

    def _slabs(self, room: Array) -> None:
        """Find by how many slabs the inner operand goes through so many bytes [space] of SRAM, if it may."""
        p = self.p
        batched = np.where(self.by_n, p.a_batched, p.b_batched)
        used = np.where(self.by_n, self.used["m"], self.used["n"])
        tiles = used * (-(-p.k // self.kp)) * np.where(batched, self.used["b"], 1)
        size = tiles * self.inner_panel  # of one inner tile of each PE
        alone = self.inner_count * size * np.where(batched & (self.local["b"] > 1), RINGS, 1) <= room
        chunk = np.where(alone, self.inner_count, np.minimum(room // (RINGS * size), self.inner_count))
        self.fits = self.fits & (~self.by_slabs | (chunk > 0))
        slabs = -(-self.inner_count // np.maximum(chunk, 1))
        self.slabs = np.where(self.by_slabs, slabs, 1)
        self.inner_count = -(-self.inner_count // self.slabs)

    def _leaders(self, operand: str, chip: Chip) -> Array:
        grid = chip.grid
        copies = {Cast.NONE: chip.pes, Cast.ROW: grid.rows, Cast.COL: grid.cols, Cast.ALL: 1}
        return self.axis(0, [copies[s.casts[operand]] for s in self.splits])

    def mapping(self, index: int) -> MatmulMapping:
        """Return a candidate by its number in the flat order of the space."""
        at = np.unravel_index(index, self.shape)

        def value(x: Array) -> int:
            return int(np.broadcast_to(x, self.shape)[at])

        split = self.splits[int(at[0])]
        return MatmulMapping(
            split.rows,
            split.cols,
            value(self.tm),
            value(self.tn),
            value(self.kp),
            "n" if value(self.by_n) else "m",
            bool(value(self.staged)),
            value(self.hold),
            value(self.rings),
            value(self.depth),
            value(self.slabs) if value(self.by_slabs) else 0,
        )
