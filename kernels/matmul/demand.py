"""What the mappings of a product ask of the chip, for all candidates of a space at once.

A resource's cycles are what its unit answers for the work, or `machine.ways` for a transfer. DRAM is asked
for bytes: how fast its channels are is for `estimate.py`, so that chips that differ there share all of this.

The shape [space] is one that broadcasts to the candidates, [split, tm, tn, panel, order, held, staged].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.machine import ways
from mtia_emu.machine.chip import Chip
from mtia_emu.machine.ways import Transfer
from mtia_emu.program.isa import Cast

from ..estimates import chain
from .plan import RINGS
from .space import MappingSpace

Array = np.ndarray[Any, Any]
Uses = dict[str, Array]  # cycles [space] by resource
MOVES = ("port", "row links", "col links", "sram", "issue")  # besides DRAM


@dataclass(frozen=True)
class DramUse:
    """The bytes of whole bursts that DRAM moves for an operand, in runs of so many bytes; as in `Demand`."""

    runs: Array
    each: Array
    held: Array
    first: Array
    spread: Array
    slab: Array  # of `spread`, what the first slab of the inner operand takes


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


@dataclass(frozen=True)
class PanelLoads:
    """Loads of an operand into each PE: their bytes and count, and the columns whose PEs load along a row."""

    operand: str
    data: Array
    count: Array
    cols: Array


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
        self.outers = space.local["b"] * space.outer_count * space.slabs
        a, b = (self._operand(x, chip) for x in "ab")
        self.reach = np.maximum(a, b)
        self.refill = np.where(space.by_n, b, a) - (space.local["k"] - 2) * space.panel_cycles
        self.written = self._results(chip)
        self.spread["array"] = space.steps * space.panel_cycles
        self.spread["local"], _ = chip.pe.local.cost(space.steps * self._array_reads(chip))
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
        """Add an operand's loads to what resources do; return the cycles [space] of a load's way to a PE."""
        s, p = self.s, self.p
        outer = s.by_n if operand == "b" else ~s.by_n
        lk, size = s.local["k"], (p.a if operand == "a" else p.b).bytes
        tile = np.minimum(s.tm, p.m) if operand == "a" else np.minimum(s.tn, p.n)
        panel = tile * np.minimum(s.kp, p.k) * size
        mine = tile * np.minimum(lk * s.kp, p.k) * size  # for a tile of the result
        kept = np.where(outer, s.hold / lk, 0.0)
        rows, cols = s.active(operand)
        each, held = mine * (1 - kept), mine * kept
        self._move(self.each, PanelLoads(operand, each, lk * (1 - kept), cols), chip)
        self._move(self.held, PanelLoads(operand, held, lk * kept, cols), chip)
        self._move(self.first, PanelLoads(operand, panel, np.ones(1), cols), chip)
        whole = mine * self.outers * self._distinct(operand)
        self._read(operand, [*(x * rows * cols for x in (each, held, panel)), whole], chip)
        self.commands = self.commands + lk * ((1 - kept) * s.tiles + kept * self.outers) * rows * cols
        return self._reach(operand, chip)

    def _distinct(self, operand: str) -> Array:
        """Return how many parts of an operand differ, [space]: PEs that need the same one stage it once."""
        s, p = self.s, self.p
        batched = p.a_batched if operand == "a" else p.b_batched
        return s.used["k"] * s.used["m" if operand == "a" else "n"] * (s.used["b"] if batched else 1)

    def _read(self, operand: str, data: list[Array], chip: Chip) -> None:
        """Add reads from memory: for each tile, held, for the first panels; or all, once, to stage it.

        `data` are their bytes in this order, each [space].
        """
        staged, dram = self._staged(operand), operand in self.s.in_dram
        whole = np.where(self._inner(operand), float(self._bytes(operand)), data[3])
        direct = [np.where(staged | (not dram), x, 0) for x in data[:3]]
        once = np.where(staged, whole, 0) if dram else np.zeros(1)
        for use, x in zip((self.each, self.held, self.first, self.spread), (*direct, once), strict=True):
            use["sram"] = use["sram"] + chip.sram_cycles(x)
        if dram:
            runs, more = self._bursts(operand, chip)
            each, held = (np.where(staged, 0, x) * more for x in data[:2])
            slab = np.where(self._inner(operand), once * more / self._visits(operand), 0)
            self.dram.append(DramUse(runs, each, held, data[2] * more, once * more, slab))

    def _reach(self, operand: str, chip: Chip) -> Array:
        """Return the cycles [space] from a load's end at its memory to its data in the furthest PE."""
        hops = self.s.hops(operand, chip)
        if operand not in self.s.in_dram:
            return ways.read_latency(hops, 0.0, chip)
        staged = ways.read_latency(chip.grid.hops(0, Cast.NONE), 1.0, chip)
        near, direct = (ways.read_latency(hops, missed, chip) for missed in (0.0, 1.0))
        return np.where(self._staged(operand), staged + near, direct)

    def _staged(self, operand: str) -> Array:
        """Return where an operand goes to SRAM first: bools [space]."""
        outer = self.s.by_n if operand == "b" else ~self.s.by_n
        return (self.s.staged & outer) | (self.s.by_slabs & ~outer)

    def _inner(self, operand: str) -> Array:
        """Return where an operand goes to SRAM by slabs: bools [space]."""
        return self.s.by_slabs & (~self.s.by_n if operand == "b" else self.s.by_n)

    def _visits(self, operand: str) -> Array:
        """Return how many slabs of an operand PEs meet, [space]."""
        batched = self.p.a_batched if operand == "a" else self.p.b_batched
        return self.s.slabs * (self.s.local["b"] if batched else 1)

    def _move(self, use: Uses, x: PanelLoads, chip: Chip) -> None:
        """Add loads into each PE to the resources' cycles."""
        by_col = self.s.axis(0, [split.casts[x.operand] is Cast.COL for split in self.s.splits])
        way = ways.load(Transfer(x.data, x.count * self._runs(x.operand), 0, by_col), chip)
        use["port"] = use["port"] + way.busy
        use["col links"] = use["col links"] + np.where(by_col, way.on_link, 0)
        use["row links"] = use["row links"] + np.where(by_col, 0, way.on_link * x.cols)
        use["issue"] = use["issue"] + chip.pe.core.issue(x.count)

    def _results(self, chip: Chip) -> float:
        """Add the epilogue and the stores of finished tiles; return their share of DRAM's traffic."""
        s, p, none = self.s, self.p, np.zeros(1)
        mine = s.local["b"] * np.minimum(s.local["m"] * s.tm, p.m) * np.minimum(s.local["n"] * s.tn, p.n)
        size = p.batch * p.m * p.n * p.out.bytes
        if not p.out_space.off_chip:
            self.spread["sram"] = self.spread["sram"] + chip.sram_cycles(size)
        else:
            runs = self._lines() * p.out.bytes
            self.dram.append(DramUse(runs, none, none, none, chip.dram.burst(runs, size / runs), none))
        self.spread["store"] = self._store(mine, chip).busy
        self.spread["simd"], _ = chip.pe.simd.cost(mine, 4, p.epilogue.passes)
        self.spread["ring"] = np.zeros(1)
        self._epilogue(size // p.out.bytes, chip)
        self.spread["reduce"] = np.where(s.chain > 1, ways.pass_on(mine * 4, chip).busy, 0.0)
        reads = sum(self._bytes(x) for x in s.in_dram)
        writes = size if p.out_space.off_chip else 0
        return writes / max(writes + reads, 1)

    def _store(self, elements: Array, chip: Chip) -> ways.Way:
        """Return the way of so many `elements` [space] of finished tiles to memory, from the furthest PE."""
        p = self.p
        hops = chip.grid.hops(chip.grid.cols - 1, Cast.NONE)
        return ways.store(Transfer(elements * p.out.bytes, elements / self._lines(), hops), chip)

    def _lines(self) -> Array:
        """Return the elements [space] of the result's tiles that lie one after another in memory."""
        s, p = self.s, self.p
        return np.where(s.tn < p.n, s.tn, np.minimum(s.tm, p.m) * p.n)

    def _epilogue(self, elements: int, chip: Chip) -> None:
        """Add what the epilogue issues, and its operands, which every PE loads for itself."""
        s, p, e, none = self.s, self.p, self.p.epilogue, np.zeros(1)
        self.each["issue"] = self.each["issue"] + chip.pe.core.issue(e.passes)
        rows, tile = np.minimum(s.tm, p.m), np.minimum(s.tm, p.m) * np.minimum(s.tn, p.n)
        passed, wait = chip.pe.simd.cost(tile, 4, e.passes)
        waits = e.passes * wait  # each pass takes what the one before gives
        self.each["simd"] = np.full(1, float(waits))
        if not e.sram_bytes and not e.dram_bytes:
            return
        hops = chip.grid.hops(chip.grid.cols - 1, Cast.NONE)
        data = tile * (e.sram_bytes + e.dram_bytes)
        way = ways.load(Transfer(data, rows, hops, missed=float(e.dram_bytes > 0)), chip)
        self.each["port"] = self.each["port"] + way.busy
        come = way.latency + way.busy
        self.each["ring"] = (come + waits + passed) / RINGS  # then a slot is free again
        self.spread["ring"] = -np.minimum(come, s.tiles * self.each["ring"])  # the first comes with panels
        self.each["row links"] = self.each["row links"] + way.on_link * chip.grid.cols
        self.spread["sram"] = self.spread["sram"] + chip.sram_cycles(elements * e.sram_bytes)
        if e.dram_bytes:
            runs = np.minimum(s.tn, p.n) * e.dram_bytes
            moved = chip.dram.burst(runs, elements * e.dram_bytes / runs)
            self.dram.append(DramUse(runs, none, none, none, moved, none))

    def _bytes(self, operand: str) -> int:
        p = self.p
        if operand == "a":
            return p.a.bytes * p.m * p.k * (p.batch if p.a_batched else 1)
        return p.b.bytes * p.n * p.k * (p.batch if p.b_batched else 1)

    def _array_reads(self, chip: Chip) -> Array:
        """Return the bytes [space] of local memory that a product of panels reads."""
        s, p, matrix = self.s, self.p, chip.pe.matrix
        if not matrix.supports(p.a.name):
            return np.zeros(1)
        m, n, k = np.minimum(s.tm, p.m), np.minimum(s.tn, p.n), np.minimum(s.kp, p.k)
        a, b = matrix.operand_reads(m, k, n, p.a.name)
        return a * p.a.bytes + b * p.b.bytes

    def _tail(self, chip: Chip) -> Array:
        """Return the cycles [space] of what comes after the last product."""
        s, p = self.s, self.p
        out = np.minimum(s.tm, p.m) * np.minimum(s.tn, p.n)
        store = self._store(out, chip)
        passed, wait = chip.pe.simd.cost(out, 4, p.epilogue.passes)
        _, late = chip.pe.product_cost(
            np.minimum(s.tm, p.m), np.minimum(s.kp, p.k), np.minimum(s.tn, p.n), p.a
        )
        return late + chain(s.chain, out * 4, chip) + passed + (p.epilogue.passes - 1) * wait + store.busy

    def _runs(self, operand: str) -> Array:
        """Return how many runs of consecutive bytes a panel of an operand has, [space]."""
        s, p = self.s, self.p
        if operand == "b":
            return np.where(p.b_tiled | (s.kp >= p.k), 1, np.minimum(s.tn, p.n))
        if p.a_line:
            return np.minimum(s.tm, p.m) * -(-np.minimum(s.kp, p.k) // p.a_line)
        return np.where(s.kp >= p.k, 1, np.minimum(s.tm, p.m))

    def _bursts(self, operand: str, chip: Chip) -> tuple[Array, Array]:
        """Return the bytes of DRAM's runs (along k, or whole panels) and those moved a byte, each [space]."""
        s, p, dram = self.s, self.p, chip.dram
        size = (p.a if operand == "a" else p.b).bytes
        tile = np.minimum(s.tm, p.m) if operand == "a" else np.minimum(s.tn, p.n)
        whole = tile / self._runs(operand)
        runs = np.minimum(s.kp, p.k) * size * whole
        rest = (p.k - (-(-p.k // s.kp) - 1) * s.kp) * size * whole  # the last panel is shorter
        moved = dram.burst(runs, (p.k * size * whole - rest) / runs) + dram.burst(rest, np.ones(1))
        return runs, moved / (p.k * size * whole)


def _most(use: dict[str, Array]) -> Array:
    """Return the cycles [space] of the resource that is asked for most."""
    values = list(use.values())
    most = values[0]
    for x in values[1:]:
        most = np.maximum(most, x)
    return most
