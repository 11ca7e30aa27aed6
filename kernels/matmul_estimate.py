"""The cycles that mappings of a product are estimated to take, for all candidates of a space at once.

The estimate knows the same units as the timing reading: a resource's cycles are its work over its rate, and
the slowest resource sets the pace. The pace changes: where panels stay in local memory, the first of the
tiles that share them waits for both operands, the others for one. What no buffer can hide (the way of the
first panels and of the last tile, refills of slots that are still read) comes on top.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtia_emu.isa import Cast

from .matmul_space import Space

Array = np.ndarray[Any, Any]
OVERLAP_LOSS = 0.02  # share of the work on resources that do not bound which still shows (estimate)
COMMAND_COST = 4e-2  # cycles that one command more must save: fewer commands are timed sooner
MOVES = ("port", "row links", "col links", "sram", "dram", "issue")


def estimate(space: Space) -> Array:
    """Return the estimated cycles of every candidate, infinite for those that do not fit."""
    return _Estimate(space).cycles()


class _Estimate:
    """What each candidate asks of each resource: cycles by name.

    `each` is asked for every tile of the result, `held` once for the tiles that share an outer operand,
    `first` for the first panels, and `spread` evenly over the whole time.
    """

    def __init__(self, space: Space) -> None:
        self.s, self.p, self.chip = space, space.p, space.chip
        self.shape = np.broadcast_shapes(space.steps.shape, space.fits.shape)
        self.each, self.held, self.first, self.spread = (dict.fromkeys(MOVES, np.zeros(1)) for _ in range(4))
        self.commands = space.steps * self.chip.pes
        reads = [x.bytes * n for x, n, space in self._sizes() if space == "dram"]
        self.results = self.p.batch * self.p.m * self.p.n * self.p.out.bytes
        writes = self.results if self.p.out_space == "dram" else 0
        self.written = writes / max(writes + sum(reads), 1)  # share of DRAM's traffic
        in_dram = [x for x, space in (("a", self.p.a_space), ("b", self.p.b_space)) if space == "dram"]
        self._dram_rates = {x: self._dram_rate(x) for x in in_dram}

    def _sizes(self) -> Any:
        p = self.p
        yield p.a, p.m * p.k * (p.batch if p.a_batched else 1), p.a_space
        yield p.b, p.n * p.k * (p.batch if p.b_batched else 1), p.b_space

    def cycles(self) -> Array:
        """Return the estimate."""
        s = self.s
        reach = np.maximum(self._operand("a"), self._operand("b"))
        self._results()
        self.spread["array"] = s.steps * s.panel_cycles
        self.spread["local"] = s.steps * self._array_reads() / self.chip.pe.local.bytes_per_cycle
        paced = self._paced()
        head = _most(self.first)
        moved, array = _most(self._totals(MOVES)), self.spread["array"]
        edge = np.maximum(moved + s.panel_cycles, array + head) - np.maximum(moved, array)
        cycles = reach + paced + edge + self._tail()
        return np.where(s.fits, cycles + self.commands * COMMAND_COST, np.inf)

    def _totals(self, names: Any) -> dict[str, Array]:
        """Return all that is asked of resources."""
        s, none = self.s, np.zeros(1)
        outers = s.local["b"] * s.outer_count
        return {
            x: s.tiles * self.each.get(x, none) + outers * self.held.get(x, none) + self.spread.get(x, none)
            for x in names
        }

    def _paced(self) -> Array:
        """Return the cycles from the first panel's arrival to the last product, the pace set by the slowest.

        A ring of inner panels runs ahead and evens the pace out over as many steps as it has slots. Held
        panels of a single set are asked for when the product that last reads their slot is done.
        """
        s, names = self.s, [*self.spread]
        outers, total = s.local["b"] * s.outer_count, self._totals(names)
        tile = {x: self.each.get(x, 0) + self.spread[x] / s.tiles for x in names}
        opening = {x: tile[x] + self.held.get(x, 0) for x in names}
        even = _most({x: np.maximum(total[x] - opening[x], 0) for x in names}) + _most(opening)
        refill = self._latest + _most(self.held) - (s.local["k"] - 2) * s.panel_cycles
        phased = outers * _most(opening) + (s.tiles - outers) * _most(tile)
        ahead = np.minimum(s.depth / (s.local["k"] * s.inner_count), 1)
        late = np.maximum(refill - _most(opening), 0) * (outers - 1)
        mixed = ahead * even + (1 - ahead) * phased + late
        paced = np.where((s.rings == 1) & (s.hold > 0), mixed, even)
        return paced + OVERLAP_LOSS * (sum(total.values()) - _most(total))

    def _operand(self, operand: str) -> Array:
        """Add an operand's loads to what the resources do; return the cycles of a load's way to a PE."""
        s, p = self.s, self.p
        outer = s.by_n if operand == "b" else ~s.by_n
        lk, size = s.local["k"], (p.a if operand == "a" else p.b).bytes
        tile = np.minimum(s.tm, p.m) if operand == "a" else np.minimum(s.tn, p.n)
        panel = tile * np.minimum(s.kp, p.k) * size
        mine = tile * np.minimum(lk * s.kp, p.k) * size  # for a tile of the result
        kept = np.where(outer, s.hold / lk, 0.0)
        rows, cols = self._active(operand)
        self._move(self.each, operand, mine * (1 - kept), lk * (1 - kept), rows, cols)
        self._move(self.held, operand, mine * kept, lk * kept, rows, cols)
        self._move(self.first, operand, panel, np.ones(1), rows, cols)
        staged = self._staged(operand)
        outers = s.local["b"] * s.outer_count
        if (p.a_space if operand == "a" else p.b_space) == "dram":
            once, rate = np.where(staged, mine * outers * rows * cols, 0), self._dram_rates[operand]
            self.first["dram"] = self.first["dram"] + np.where(staged, panel * rows * cols / rate, 0)
            self.spread["dram"] = self.spread["dram"] + once / rate
            self.spread["sram"] = self.spread["sram"] + once / self.chip.sram_bytes_per_cycle
        self.commands = self.commands + lk * ((1 - kept) * s.tiles + kept * outers) * rows * cols
        return self._reach(operand, cols)

    def _active(self, operand: str) -> tuple[Array, Array]:
        """Return over how many rows, and columns of each, loads of an operand are spread that have work."""
        s, casts = self.s, [x.casts[operand] for x in self.s.splits]
        across = {d: np.minimum(s.cols_parts[d], s.used[d]) for d in "bmnk"}
        rows, cols = np.ones(1), np.ones(1)
        for d in "bmnk":
            rows = rows * -(-s.used[d] // across[d])
            cols = cols * across[d]
        one_row = s.axis(0, [c in (Cast.COL, Cast.ALL) for c in casts])
        one_col = s.axis(0, [c in (Cast.ROW, Cast.ALL) for c in casts])
        return np.where(one_row, 1, rows), np.where(one_col, 1, cols)

    def _reach(self, operand: str, cols: Array) -> Array:
        """Return the cycles from a load's end at its memory to its data in the furthest PE."""
        s, chip, grid = self.s, self.chip, self.chip.grid
        hops = {Cast.ROW: grid.cols, Cast.COL: grid.rows, Cast.ALL: grid.rows + grid.cols}
        far = s.axis(0, [hops.get(x.casts[operand], 0) for x in s.splits])
        dram = (self.p.a_space if operand == "a" else self.p.b_space) == "dram"
        near = chip.cycles(chip.sram.latency_s)
        memory = chip.cycles(chip.dram.latency_s) if dram else near
        staged = np.where(self._staged(operand), near + chip.pe.dma.startup_cycles, 0)
        return memory + staged + np.where(far, far, cols) * chip.noc.hop_cycles + chip.pe.dma.startup_cycles

    def _staged(self, operand: str) -> Array:
        """Return where an operand goes to SRAM first."""
        return self.s.staged & (self.s.by_n if operand == "b" else ~self.s.by_n)

    def _move(
        self, use: dict[str, Array], operand: str, data: Array, loads: Array, rows: Array, cols: Array
    ) -> None:  # fmt: skip
        """Add loads of so many bytes into each PE to the resources' cycles."""
        s, p, chip = self.s, self.p, self.chip
        by_col = s.axis(0, [x.casts[operand] is Cast.COL for x in s.splits])
        use["port"] = use["port"] + chip.pe.dma.cycles(data, loads * self._runs(operand))
        use["col links"] = use["col links"] + np.where(by_col, data / chip.noc.col_bytes_per_cycle, 0)
        use["row links"] = use["row links"] + np.where(by_col, 0, data * cols / chip.noc.row_bytes_per_cycle)
        use["issue"] = use["issue"] + loads * chip.pe.core.issue_cycles
        read = data * rows * cols
        if (p.a_space if operand == "a" else p.b_space) == "dram":
            staged = self._staged(operand)
            use["dram"] = use["dram"] + np.where(staged, 0, read / self._dram_rates[operand])
            read = np.where(staged, read, 0)
        use["sram"] = use["sram"] + read / chip.sram_bytes_per_cycle

    def _results(self) -> None:
        """Add the epilogue and the stores of finished tiles."""
        s, p, chip = self.s, self.p, self.chip
        mine = s.local["b"] * np.minimum(s.local["m"] * s.tm, p.m) * np.minimum(s.local["n"] * s.tn, p.n)
        if p.out_space == "sram":
            self.spread["sram"] = self.spread["sram"] + self.results / chip.sram_bytes_per_cycle
        else:
            runs = np.minimum(s.tn, p.n) * p.out.bytes
            rate = chip.dram_efficiency(runs, self.written) * chip.dram_bytes_per_cycle
            self.spread["dram"] = self.spread["dram"] + chip.dram.burst(runs, self.results / runs) / rate
        self.each["issue"] = self.each["issue"] + chip.pe.core.issue_cycles
        self.spread["store"] = mine * p.out.bytes / chip.pe.dma.bytes_per_cycle
        self.spread["simd"] = mine * 4 / chip.pe.simd.bytes_per_cycle
        self.spread["reduce"] = np.where(s.chain > 1, mine * 4 / chip.pe.reduce.bytes_per_cycle, 0.0)

    def _array_reads(self) -> Array:
        """Return the bytes of local memory that a product of panels reads."""
        s, p, matrix = self.s, self.p, self.chip.pe.matrix
        if not matrix.supports(p.a.name):
            return np.zeros(1)
        m, n, k = np.minimum(s.tm, p.m), np.minimum(s.tn, p.n), np.minimum(s.kp, p.k)
        a, b = matrix.operand_reads(m, k, n, p.a.name)
        return a * p.a.bytes + b * p.b.bytes

    def _tail(self) -> Array:
        """Return what comes after the last product."""
        s, p, chip = self.s, self.p, self.chip
        out = np.minimum(s.tm, p.m) * np.minimum(s.tn, p.n)
        added = out * 4 / chip.pe.reduce.bytes_per_cycle
        hop = added / chip.pe.reduce.banks + chip.noc.hop_cycles
        chain = np.where(s.chain > 1, (s.chain - 2) * hop + added, 0)
        store = out * p.out.bytes / chip.pe.dma.bytes_per_cycle
        return chain + store + out * 4 / chip.pe.simd.bytes_per_cycle

    @property
    def _latest(self) -> Array:
        """Return the cycles of the way of the outer operand's loads."""
        ways = [self._reach(x, self._active(x)[1]) for x in "ab"]
        return np.where(self.s.by_n, ways[1], ways[0])

    def _runs(self, operand: str) -> Array:
        """Return the runs of consecutive bytes of an operand's panel."""
        s, p = self.s, self.p
        if operand == "b":
            return np.ones(1) if p.b_tiled else np.minimum(s.tn, p.n)
        return np.where(s.kp >= p.k, 1, np.minimum(s.tm, p.m))

    def _dram_rate(self, operand: str) -> Array:
        """Return the bytes a cycle of DRAM for an operand's panels: runs along k, or a whole panel."""
        s, p, dram = self.s, self.p, self.chip.dram
        size = (p.a if operand == "a" else p.b).bytes
        tile = np.minimum(s.tm, p.m) if operand == "a" else np.minimum(s.tn, p.n)
        whole = tile / self._runs(operand)
        runs = np.minimum(s.kp, p.k) * size * whole
        rest = (p.k - (-(-p.k // s.kp) - 1) * s.kp) * size * whole  # the last panel is shorter
        one = np.ones(1)
        moved = dram.burst(runs, (p.k * size * whole - rest) / runs) + dram.burst(rest, one)
        rate = self.chip.dram_efficiency(runs, self.written) * self.chip.dram_bytes_per_cycle
        return rate * (p.k * size * whole) / moved


def _most(use: dict[str, Array]) -> Array:
    """Return the cycles of the resource that is asked for most."""
    values = list(use.values())
    most = values[0]
    for x in values[1:]:
        most = np.maximum(most, x)
    return most
