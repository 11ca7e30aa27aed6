"""The choice of a product's mapping: every candidate's cost estimated at once, the least taken.

The estimate knows the same units as the timing reading: a resource's cycles are its work over its rate, the
slowest resource sets the pace, and what no buffer can hide (the first panels, the last tile, loads of held
panels that wait for their slots) comes on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.chip import Chip
from mtia_emu.isa import Cast

from .builder import LINE, NoRoom, round_up
from .matmul_plan import RINGS, Mapping, Plan, Problem, axis, cast_of

Array = np.ndarray[Any, Any]
MOST_DEPTH = 12  # slots of one circular buffer that are tried
SPARE = 3  # slots that ride out a wait for SRAM while other PEs store
PANELS = (64, 128, 256, 512, 1024)  # lengths of a k panel that are tried
SHORT = (1, 2, 4, 8, 16, 32)  # and where local memory holds none of them
OVERLAP_LOSS = 0.02  # share of the work on resources that do not bound which still shows (estimate)
COMMAND_COST = 4e-2  # cycles that one command more must save: fewer commands are timed sooner
STAGE_SHARE = 4  # staging takes at most one part in so many of SRAM


def plan_matmul(problem: Problem, chip: Chip, forced: Mapping | None = None) -> Plan:
    """Return the plan with the least estimated time; ties go to the first candidate.

    Raises `NoRoom` where no tile fits the chip's local memory.
    """
    if forced is not None:
        return Plan(problem, forced, chip)
    for panels in (PANELS, SHORT):
        space = _Space(problem, chip, panels)
        cost = space.cost()
        best = int(np.argmin(cost))
        if np.isfinite(cost.flat[best]):
            return Plan(problem, space.mapping(best), chip)
    raise NoRoom(
        f"matmul: no tile of {problem.m}x{problem.k}x{problem.n} {problem.a} fits "
        f"{chip.pe.local.bytes} bytes of local memory"
    )


@dataclass(frozen=True)
class _Split:
    """How the grid is split, and what follows: parts of each dimension, who shares a tile, the chain of k."""

    rows: str
    cols: str
    parts: dict[str, int]
    casts: dict[str, Cast]


def _splits(p: Problem, chip: Chip) -> list[_Split]:
    """Return every split of the grid worth a try: dimensions of one element are not split."""
    found = []
    for rows in _axes(p, chip.grid.rows):
        for cols in _axes(p, chip.grid.cols):
            down, across = axis(rows, chip.grid.rows), axis(cols, chip.grid.cols)
            if sum(d == "k" for d, _ in (*down, *across)) > 1:
                continue
            parts = dict.fromkeys("bmnk", 1)
            for dim, factor in (*down, *across):
                parts[dim] *= factor
            found.append(_Split(rows, cols, parts, {x: _cast(p, chip, x, down, across) for x in "ab"}))
    return found


def _axes(p: Problem, size: int) -> Iterator[str]:
    dims = [d for d in "bmnk" if p.size(d) > 1 or d == "m"]
    yield from dims
    for slow in dims:
        for fast in dims:
            if slow != fast and slow != "k" and (fast == "k" or slow < fast):
                for factor in range(2, size):
                    if size % factor == 0:
                        yield f"{slow}{size // factor}{fast}{factor}"


def _cast(p: Problem, chip: Chip, operand: str, down: Any, across: Any) -> Cast:
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


class _Space:
    """All candidates as arrays that broadcast: axes are split, tm, tn, panel, loop order, held, staged."""

    def __init__(self, p: Problem, chip: Chip, panels: tuple[int, ...]) -> None:
        self.p, self.chip, self.panels = p, chip, panels
        unit, reduce = chip.pe.matrix, chip.pe.reduce
        self.splits = _splits(p, chip)
        # the banks stand two by two: a block is at most two banks down and two across
        block_m = reduce.bank_rows * max(1, reduce.banks // 2)
        block_n = reduce.bank_cols * max(1, min(2, reduce.banks))
        order = {"weights": [1], "inputs": [0], "any": [0, 1]}[chip.kernels.stationary]
        self.choices: list[list[Any]] = [
            self.splits,
            _tiles(p.m, block_m, 8),
            _tiles(p.n, block_n, min(unit.cols, block_n)),
            list(panels),
            order,
            [0, 1, 2],  # nothing held, as much as fits, all of it twice
            [False, True],
        ]
        self.step = unit.lanes(p.a.name) if unit.supports(p.a.name) else 1
        self._spread()

    def _axis(self, index: int, values: Any) -> Array:
        """Return values along one axis of the space."""
        shape = [1] * len(self.choices)
        shape[index] = -1
        return np.asarray(values).reshape(shape)

    def _spread(self) -> None:
        p = self.p
        parts = {d: self._axis(0, [s.parts[d] for s in self.splits]) for d in "bmnk"}
        self.tm, self.tn = self._axis(1, self.choices[1]), self._axis(2, self.choices[2])
        self.by_n = self._axis(4, self.choices[4]) == 1  # b stays
        self.kept, self.staged = self._axis(5, self.choices[5]), self._axis(6, self.choices[6])
        mine = -(-p.k // parts["k"])
        count = -(-mine // self._axis(3, self.panels))
        even = -(-mine // count)
        self.kp = -(-even // self.step) * self.step
        tiles = {"b": p.batch, "m": -(-p.m // self.tm), "n": -(-p.n // self.tn), "k": -(-p.k // self.kp)}
        self.local = {d: -(-tiles[d] // parts[d]) for d in "bmnk"}
        self.chain = np.minimum(parts["k"], -(-tiles["k"] // self.local["k"]))
        self.panel = {"a": self.tm * self.kp * p.a.bytes, "b": self.tn * self.kp * p.b.bytes}
        self.outer_panel = np.where(self.by_n, self.panel["b"], self.panel["a"])
        self.inner_panel = np.where(self.by_n, self.panel["a"], self.panel["b"])
        self.inner_count = np.where(self.by_n, self.local["m"], self.local["n"])
        self.outer_count = np.where(self.by_n, self.local["n"], self.local["m"])
        wanted = RINGS + SPARE + np.ceil(self._reach() / self._panel_cycles()).astype(int)
        room = self._room() // self.inner_panel - RINGS  # beside two panels of the outer operand
        self.depth = np.clip(np.minimum(wanted, room), RINGS, MOST_DEPTH)
        self._hold()

    def _reach(self) -> float:
        """Return the cycles from a load's end at the memory to its data in a PE half-way across the grid."""
        chip = self.chip
        far = (chip.grid.rows + chip.grid.cols) / 2 * chip.noc.hop_cycles
        drams = "dram" in (self.p.a_space, self.p.b_space)
        return (
            chip.cycles(chip.dram.latency_s if drams else chip.sram.latency_s)
            + far
            + chip.pe.dma.startup_cycles
        )

    def _room(self) -> Array:
        """Return the bytes of local memory that are left for panels."""
        p, local = self.p, self.chip.pe.local.bytes
        return local * 15 // 16 - 8 * LINE - self.tm * self.tn * (RINGS * p.out.bytes + p.epilogue_bytes)

    def _hold(self) -> None:
        """Find how many panels of the outer operand local memory can hold, and which candidates fit."""
        p, lk = self.p, self.local["k"]
        free = self._room() - self.depth * self.inner_panel
        some = np.where(lk * self.outer_panel <= free, lk, free // self.outer_panel - self.depth)
        self.hold = np.where(self.kept == 0, 0, np.where(self.kept == 1, np.minimum(some, lk), lk))
        self.rings = np.where(self.kept == 2, 2, 1)
        need = self.hold * self.rings + np.where(self.hold < lk, self.depth, 0)
        self.fits = (need * self.outer_panel <= free) & ((self.hold > 0) | (self.kept == 0))
        spaces = np.where(self.by_n, p.b_space == "dram", p.a_space == "dram")
        held = RINGS * self._leaders_outer() * lk * self.outer_panel
        self.fits = self.fits & (~self.staged | (spaces & (held <= self.chip.sram.bytes // STAGE_SHARE)))

    def _leaders(self, operand: str) -> Array:
        grid = self.chip.grid
        copies = {Cast.NONE: self.chip.pes, Cast.ROW: grid.rows, Cast.COL: grid.cols, Cast.ALL: 1}
        return self._axis(0, [copies[s.casts[operand]] for s in self.splits])

    def _leaders_outer(self) -> Array:
        return np.where(self.by_n, self._leaders("b"), self._leaders("a"))

    def cost(self) -> Array:
        """Return the estimated cycles of every candidate, infinite for those that do not fit."""
        chip, p = self.chip, self.p
        tiles = self.local["b"] * self.local["m"] * self.local["n"]
        steps = tiles * self.local["k"]
        panel = self._panel_cycles()
        out = self.tm * self.tn
        use: dict[str, Array] = {"array": steps * panel + self._waits(panel)}
        for name in ("port", "row links", "col links", "sram", "dram"):
            use[name] = np.zeros(np.broadcast_shapes(steps.shape, self.fits.shape))
        commands = steps * chip.pes
        for operand in "ab":
            commands = commands + self._operand(operand, steps, use)
        results = p.batch * p.m * p.n * p.out.bytes
        use["sram" if p.out_space == "sram" else "dram"] += results / (
            chip.sram_bytes_per_cycle if p.out_space == "sram" else chip.dram_bytes_per_cycle * 0.8
        )
        use["store"] = tiles * out * p.out.bytes / chip.pe.dma.bytes_per_cycle
        use["simd"] = tiles * out * 4 / chip.pe.simd.bytes_per_cycle
        use["reduce"] = np.where(self.chain > 1, tiles * out * 4 / chip.pe.reduce.bytes_per_cycle, 0.0)
        stacked = np.stack(np.broadcast_arrays(*use.values()))
        bound = stacked.max(axis=0)
        cycles = bound + OVERLAP_LOSS * (stacked.sum(axis=0) - bound) + self._edges(panel, out)
        return np.where(self.fits, cycles + commands * COMMAND_COST, np.inf)

    def _panel_cycles(self) -> Array:
        p, chip = self.p, self.chip
        m, n = np.minimum(self.tm, p.m), np.minimum(self.tn, p.n)
        if chip.pe.matrix.supports(p.a.name):
            cycles = chip.pe.matrix.busy(m, np.minimum(self.kp, p.k), n, p.a.name)
        else:
            cycles = m * np.minimum(self.kp, p.k) * n / chip.pe.simd.macs_per_cycle(p.a)
        return np.maximum(cycles, chip.pe.core.issue_cycles)

    def _operand(self, operand: str, steps: Array, use: dict[str, Array]) -> Array:
        """Add an operand's loads to the resources' cycles; return how many load commands there are."""
        chip, p = self.chip, self.p
        outer = self.by_n if operand == "b" else ~self.by_n
        held = steps // self.local["k"] * (self.local["k"] - self.hold) + steps * self.hold // (
            self.local["k"] * self.inner_count
        )
        loads = np.where(outer, held, steps)
        tile = np.minimum(self.panel[operand], p.k * (p.m if operand == "a" else p.n) * 4)
        grid = chip.grid
        casts = [s.casts[operand] for s in self.splits]
        use["port"] += loads * tile / chip.pe.dma.bytes_per_cycle
        by_col = self._axis(0, [c is Cast.COL for c in casts])
        each = self._axis(0, [grid.cols if c is Cast.NONE else 1 for c in casts])
        use["col links"] += np.where(by_col, loads * tile / chip.noc.col_bytes_per_cycle, 0)
        use["row links"] += np.where(by_col, 0, loads * tile * each / chip.noc.row_bytes_per_cycle)
        copies = self._leaders(operand)
        read = loads * copies * tile
        if (p.a_space if operand == "a" else p.b_space) == "dram":
            rate = self._dram_rate(operand)
            once = steps // self.inner_count * copies * tile
            stage = outer & self.staged
            use["dram"] += np.where(stage, once, read) / rate
            use["sram"] += np.where(stage, once + read, 0) / chip.sram_bytes_per_cycle
        else:
            use["sram"] += read / chip.sram_bytes_per_cycle
        return loads * copies

    def _edges(self, panel: Array, out: Array) -> Array:
        """Return what comes before the first product and after the last: nothing overlaps it."""
        chip, p = self.chip, self.p
        head = (self.panel["a"] + self.panel["b"]) / chip.pe.dma.bytes_per_cycle
        tail = out * (p.out.bytes / chip.pe.dma.bytes_per_cycle + 4 / chip.pe.simd.bytes_per_cycle)
        hops = np.where(self.chain > 1, self.chain * chip.noc.hop_cycles, 0)
        return head + panel + tail + hops + out * 4 / chip.pe.reduce.bytes_per_cycle

    def _waits(self, panel: Array) -> Array:
        """Return the cycles for which the array waits for held panels, whose slots are still read.

        A single set of slots is refilled while the last inner tile of the tile before is multiplied, in the
        time that the port has left; straight from DRAM at the rate of DRAM.
        """
        chip, p = self.chip, self.p
        rate = chip.pe.dma.bytes_per_cycle
        spare = self.local["k"] * np.maximum(panel - self.inner_panel / rate, 0)
        held = self.hold * self.outer_panel
        far = np.where(self.by_n, p.b_space == "dram", p.a_space == "dram") & ~self.staged
        outer_rate = np.where(self.by_n, self._dram_rate("b"), self._dram_rate("a"))
        load = np.maximum(held / rate, far * held * self._leaders_outer() / outer_rate)
        return np.where(self.rings == 1, np.maximum(load - spare, 0), 0) * self.outer_count * self.local["b"]

    def _dram_rate(self, operand: str) -> Array:
        """Return the bytes a cycle of DRAM for an operand's panels: runs along k, or a whole panel."""
        p = self.p
        runs = np.minimum(self.kp, p.k) * (p.a if operand == "a" else p.b).bytes
        runs = self.panel["b"] if operand == "b" and p.b_tiled else runs
        return self.chip.dram_efficiency(runs) * self.chip.dram_bytes_per_cycle

    def mapping(self, index: int) -> Mapping:
        """Return a candidate by its number in the flat order of `cost`."""
        shape = tuple(len(c) for c in self.choices)
        at = np.unravel_index(index, shape)

        def value(x: Array) -> int:
            return int(np.broadcast_to(x, shape)[at])

        split = self.splits[int(at[0])]
        outer = "n" if value(self.by_n) else "m"
        return Mapping(
            split.rows,
            split.cols,
            value(self.tm),
            value(self.tn),
            value(self.kp),
            outer,
            bool(value(self.staged)),
            value(self.hold),
            value(self.rings),
            value(self.depth),
        )
