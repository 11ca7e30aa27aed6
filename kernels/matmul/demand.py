"""What the mappings of a product ask of the chip, for all candidates of a space at once.

A resource's cycles are its work over its rate, by the units' own rules. DRAM is asked for bytes: how fast its
channels are is for `matmul_estimate.py`, so that chips that differ there share all of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.isa import Cast

from .plan import RINGS
from .space import MappingSpace

Array = np.ndarray[Any, Any]
Uses = dict[str, Array]  # cycles by resource
MOVES = ("port", "row links", "col links", "sram", "issue")  # besides DRAM


@dataclass(frozen=True)
class DramUse:
    """The bytes of whole bursts that DRAM moves for an operand, in runs of so many bytes; as in `Demand`."""

    runs: Array
    each: Array
    held: Array
    first: Array
    spread: Array


@dataclass(frozen=True)
class Busiest:
    """The cycles of the resource that is asked for most, DRAM aside, and all cycles that are asked for.

    `moved` is of those resources that move operands, `opening` of the first of the tiles that share an outer
    operand, `rest` of all work but one opening.
    """

    total: Array
    moved: Array
    tile: Array
    opening: Array
    rest: Array
    held: Array
    first: Array
    every: Array


class Demand:
    """What each candidate asks of each resource.

    `each` is asked for every tile of the result, `held` once for the tiles that share an outer operand,
    `first` for the first panels, and `spread` evenly over the whole time. `outers` counts the tiles of the
    outer operand, `reach` is the way of the first panels, `tail` what follows the last product, `refill` from
    when on a single set of held panels is late. `written` is the share of DRAM's traffic that is writes.
    """

    def __init__(self, space: MappingSpace, chip: Chip) -> None:
        self.s, self.p = space, space.p
        self.each, self.held, self.first, self.spread = (dict.fromkeys(MOVES, np.zeros(1)) for _ in range(4))
        self.dram: list[DramUse] = []
        self.commands = space.steps * chip.pes
        self.outers = space.local["b"] * space.outer_count
        ways = [self._operand(x, chip) for x in "ab"]
        self.reach = np.maximum(*ways)
        self.refill = np.where(space.by_n, ways[1], ways[0]) - (space.local["k"] - 2) * space.panel_cycles
        self.written = self._results(chip)
        self.spread["array"] = space.steps * space.panel_cycles
        self.spread["local"] = space.steps * self._array_reads(chip) / chip.pe.local.bytes_per_cycle
        self.tail = self._tail(chip)
        self.most = self._busiest()

    def _busiest(self) -> Busiest:
        s, none = self.s, np.zeros(1)
        each, held = self.each, self.held
        total = {
            x: s.tiles * each.get(x, none) + self.outers * held.get(x, none) + more
            for x, more in self.spread.items()
        }
        tile = {x: each.get(x, none) + more / s.tiles for x, more in self.spread.items()}
        opening = {x: cycles + held.get(x, none) for x, cycles in tile.items()}
        return Busiest(
            _most(total),
            _most({x: total[x] for x in MOVES}),
            _most(tile),
            _most(opening),
            _most({x: np.maximum(total[x] - opening[x], 0) for x in total}),
            _most(held),
            _most(self.first),
            np.asarray(sum(total.values())),
        )

    def _operand(self, operand: str, chip: Chip) -> Array:
        """Add an operand's loads to what the resources do; return the cycles of a load's way to a PE."""
        s, p = self.s, self.p
        outer = s.by_n if operand == "b" else ~s.by_n
        lk, size = s.local["k"], (p.a if operand == "a" else p.b).bytes
        tile = np.minimum(s.tm, p.m) if operand == "a" else np.minimum(s.tn, p.n)
        panel = tile * np.minimum(s.kp, p.k) * size
        mine = tile * np.minimum(lk * s.kp, p.k) * size  # for a tile of the result
        kept = np.where(outer, s.hold / lk, 0.0)
        rows, cols = self._active(operand)
        each, held = mine * (1 - kept), mine * kept
        self._move(self.each, operand, each, lk * (1 - kept), cols, chip)
        self._move(self.held, operand, held, lk * kept, cols, chip)
        self._move(self.first, operand, panel, np.ones(1), cols, chip)
        self._read(operand, [x * rows * cols for x in (each, held, panel, mine * self.outers)], chip)
        self.commands = self.commands + lk * ((1 - kept) * s.tiles + kept * self.outers) * rows * cols
        return self._reach(operand, cols, chip)

    def _read(self, operand: str, data: list[Array], chip: Chip) -> None:
        """Add reads from memory: for each tile, held, for the first panels; or all, once, to stage it."""
        staged, dram = self._staged(operand), operand in self.s.in_dram
        direct = [np.where(staged | (not dram), x, 0) for x in data[:3]]
        once = np.where(staged, data[3], 0) if dram else np.zeros(1)
        rate = chip.sram_bytes_per_cycle
        for use, x in zip((self.each, self.held, self.first, self.spread), (*direct, once), strict=True):
            use["sram"] = use["sram"] + x / rate
        if dram:
            runs, more = self._bursts(operand, chip)
            each, held = (np.where(staged, 0, x) * more for x in data[:2])
            self.dram.append(DramUse(runs, each, held, data[2] * more, once * more))

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

    def _reach(self, operand: str, cols: Array, chip: Chip) -> Array:
        """Return the cycles from a load's end at its memory to its data in the furthest PE."""
        s, grid = self.s, chip.grid
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
        self, use: Uses, operand: str, data: Array, loads: Array, cols: Array, chip: Chip
    ) -> None:  # fmt: skip
        """Add loads of so many bytes into each PE to the resources' cycles."""
        by_col = self.s.axis(0, [x.casts[operand] is Cast.COL for x in self.s.splits])
        use["port"] = use["port"] + chip.pe.dma.cost(data, loads * self._runs(operand))[0]
        use["col links"] = use["col links"] + np.where(by_col, data / chip.noc.col_bytes_per_cycle, 0)
        use["row links"] = use["row links"] + np.where(by_col, 0, data * cols / chip.noc.row_bytes_per_cycle)
        use["issue"] = use["issue"] + loads * chip.pe.core.issue_cycles

    def _results(self, chip: Chip) -> float:
        """Add the epilogue and the stores of finished tiles; return their share of DRAM's traffic."""
        s, p, none = self.s, self.p, np.zeros(1)
        mine = s.local["b"] * np.minimum(s.local["m"] * s.tm, p.m) * np.minimum(s.local["n"] * s.tn, p.n)
        size = p.batch * p.m * p.n * p.out.bytes
        if p.out_space == "sram":
            self.spread["sram"] = self.spread["sram"] + size / chip.sram_bytes_per_cycle
        else:
            runs = np.minimum(s.tn, p.n) * p.out.bytes
            self.dram.append(DramUse(runs, none, none, none, chip.dram.burst(runs, size / runs)))
        self.spread["store"] = mine * p.out.bytes / chip.pe.dma.bytes_per_cycle
        self.spread["simd"] = mine * 4 * p.epilogue.passes / chip.pe.simd.bytes_per_cycle
        self._epilogue(size // p.out.bytes, chip)
        self.spread["ring"] = np.zeros(1)
        self.spread["reduce"] = np.where(s.chain > 1, mine * 4 / chip.pe.reduce.bytes_per_cycle, 0.0)
        reads = sum(self._bytes(x) for x in s.in_dram)
        writes = size if p.out_space == "dram" else 0
        return writes / max(writes + reads, 1)

    def _epilogue(self, elements: int, chip: Chip) -> None:
        """Add what the epilogue issues, and its operands, which every PE loads for itself."""
        s, p, e, none = self.s, self.p, self.p.epilogue, np.zeros(1)
        self.each["issue"] = self.each["issue"] + e.passes * chip.pe.core.issue_cycles
        rows, tile = np.minimum(s.tm, p.m), np.minimum(s.tm, p.m) * np.minimum(s.tn, p.n)
        waits = e.passes * chip.pe.simd.startup_cycles  # each pass takes what the one before gives
        self.each["simd"] = np.full(1, float(waits))
        if not e.sram_bytes and not e.dram_bytes:
            return
        data = tile * (e.sram_bytes + e.dram_bytes)
        self.each["port"] = self.each["port"] + chip.pe.dma.cost(data, rows)[0]
        used = (
            waits + tile * 4 * e.passes / chip.pe.simd.bytes_per_cycle
        )  # then the slot is free for the next
        come = (
            chip.cycles(chip.sram.latency_s) + chip.pe.dma.startup_cycles + data / chip.pe.dma.bytes_per_cycle
        )
        self.each["ring"] = (come + used) / RINGS
        link = data * chip.grid.cols / chip.noc.row_bytes_per_cycle
        self.each["row links"] = self.each["row links"] + link
        self.spread["sram"] = self.spread["sram"] + elements * e.sram_bytes / chip.sram_bytes_per_cycle
        if e.dram_bytes:
            runs = np.minimum(s.tn, p.n) * e.dram_bytes
            moved = chip.dram.burst(runs, elements * e.dram_bytes / runs)
            self.dram.append(DramUse(runs, none, none, none, moved))

    def _bytes(self, operand: str) -> int:
        p = self.p
        if operand == "a":
            return p.a.bytes * p.m * p.k * (p.batch if p.a_batched else 1)
        return p.b.bytes * p.n * p.k * (p.batch if p.b_batched else 1)

    def _array_reads(self, chip: Chip) -> Array:
        """Return the bytes of local memory that a product of panels reads."""
        s, p, matrix = self.s, self.p, chip.pe.matrix
        if not matrix.supports(p.a.name):
            return np.zeros(1)
        m, n, k = np.minimum(s.tm, p.m), np.minimum(s.tn, p.n), np.minimum(s.kp, p.k)
        a, b = matrix.operand_reads(m, k, n, p.a.name)
        return a * p.a.bytes + b * p.b.bytes

    def _tail(self, chip: Chip) -> Array:
        """Return what comes after the last product."""
        s, p = self.s, self.p
        out = np.minimum(s.tm, p.m) * np.minimum(s.tn, p.n)
        added = out * 4 / chip.pe.reduce.bytes_per_cycle
        hop = added / chip.pe.reduce.banks + chip.noc.hop_cycles
        chain = np.where(s.chain > 1, (s.chain - 2) * hop + added, 0)
        store = out * p.out.bytes / chip.pe.dma.bytes_per_cycle
        simd = out * 4 * p.epilogue.passes / chip.pe.simd.bytes_per_cycle
        return chain + store + simd + (p.epilogue.passes - 1) * chip.pe.simd.startup_cycles

    def _runs(self, operand: str) -> Array:
        """Return the runs of consecutive bytes of an operand's panel."""
        s, p = self.s, self.p
        if operand == "b":
            return np.ones(1) if p.b_tiled else np.minimum(s.tn, p.n)
        return np.where(s.kp >= p.k, 1, np.minimum(s.tm, p.m))

    def _bursts(self, operand: str, chip: Chip) -> tuple[Array, Array]:
        """Return DRAM's runs for an operand's panels (along k, or a whole panel), and bytes moved a byte."""
        s, p, dram = self.s, self.p, chip.dram
        size = (p.a if operand == "a" else p.b).bytes
        tile = np.minimum(s.tm, p.m) if operand == "a" else np.minimum(s.tn, p.n)
        whole = tile / self._runs(operand)
        runs = np.minimum(s.kp, p.k) * size * whole
        rest = (p.k - (-(-p.k // s.kp) - 1) * s.kp) * size * whole  # the last panel is shorter
        moved = dram.burst(runs, (p.k * size * whole - rest) / runs) + dram.burst(rest, np.ones(1))
        return runs, moved / (p.k * size * whole)


def _most(use: dict[str, Array]) -> Array:
    """Return the cycles of the resource that is asked for most."""
    values = list(use.values())
    most = values[0]
    for x in values[1:]:
        most = np.maximum(most, x)
    return most
