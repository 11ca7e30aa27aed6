"""When: each command's start and end, by a max-plus recurrence over the commands in the order of issue.

A command starts when its core has issued it, its unit is free, the slots that it reads are written, the slot that it
writes is no longer read, and the shared resources that it needs (network links, SRAM, DRAM) have served all earlier
commands. Arbitration in program order is an approximation; `timeline` is the only door to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..chip import Chip
from ..errors import UserError
from ..isa import FUNCTION_NAMES, VECTOR, Block, Cast, Op, source_shape
from ..numerics import jitted
from ..types import DTYPES
from ..units.simd import FUNCTIONS
from .events import Events, events, hops

Array = np.ndarray[Any, Any]

# units of a PE, each with a queue of its own; the chip's DMA is one more, outside the PEs
LOAD_QUEUE, STORE_QUEUE, MATRIX, SIMD, CORE, CHIP_DMA = range(6)
UNITS = ("load", "store", "matrix", "simd", "core", "chip dma")
# shared resources: the DRAM, the SRAM, then the links into each row, into each column, and out of each row
DRAM, SRAM, LINKS = 0, 1, 2
BOUNDS = ("array", "simd", "dma", "core", "issue", "local", "noc", "sram", "dram", "launch", "latency")


@dataclass(frozen=True)
class Timeline:
    """When each command of a block runs, in cycles from the block's start, and how busy each resource was.

    `busy` gives, for each of BOUNDS that a block can have, the cycles of the busiest instance of that resource.
    """

    start: Array
    end: Array
    unit: Array
    cycles: float
    busy: dict[str, float]

    @property
    def bound_by(self) -> str:
        """Return the busiest resource, or `latency` when none was busy half of the time."""
        name = max(self.busy, key=lambda r: self.busy[r])
        return name if self.busy[name] * 2 >= self.cycles else "latency"


@dataclass(frozen=True)
class _Costs:
    """What the recurrence needs to know of each command, in cycles."""

    unit: Array
    busy: Array
    latency: Array
    dram: Array
    sram: Array
    link: Array
    link_index: Array
    local: Array
    issue: Array


def timeline(block: Block, chip: Chip, lookups: Array | None = None) -> Timeline:
    """Return when each command of the block runs on the chip; `lookups` as in `events`.

    Raises `UserError` when the block needs more of the chip than it has.
    """
    check_fits(block, chip)
    ev = events(block, chip, lookups)
    costs = _costs(block, chip, ev)
    c = block.commands
    lanes = len(block.slots) + 1
    start, end, free = np.zeros(len(c)), np.zeros(len(c)), np.zeros(LINKS + 2 * chip.grid.rows + chip.grid.cols)
    _recurrence(
        c["op"], c["cast"], c["pe"].astype(np.int64), c["src_pe"].astype(np.int64), _touched(c),
        c["stage"].astype(np.int64), costs.unit, costs.busy, costs.latency, costs.dram, costs.sram, costs.link,
        costs.link_index, costs.local, costs.issue, start, end, free,
        np.zeros((chip.pes, lanes)), np.zeros((chip.pes, lanes)), np.zeros((2, block.stages + 1)),
        np.zeros((chip.pes, len(UNITS))), np.zeros((chip.pes, 2)), chip.grid.rows, chip.grid.cols,
        1.0 / chip.pe.reduce.banks, np.array([s.accumulator for s in block.slots] + [False]),
    )
    cycles = float(end.max()) if len(c) else 0.0
    return Timeline(start, end, costs.unit, cycles, _busy(block, chip, costs))


def check_fits(block: Block, chip: Chip) -> None:
    """Raise `UserError` when a block needs more local memory, accumulators, SRAM or PEs than the chip has."""
    needs = [
        ("local memory", block.local_bytes, chip.pe.local.bytes),
        ("accumulators", block.accumulator_bytes, chip.pe.reduce.bytes),
        ("SRAM scratch", block.scratch_bytes, chip.sram.bytes),
    ]
    for what, need, have in needs:
        if need > have:
            raise UserError(f"{block.kernel}: needs {need} bytes of {what}, {chip.name} has {have} "
                            f"(short by {need - have}); compile for this chip")
    if len(block.commands) and int(block.commands["pe"].max()) >= chip.pes:
        raise UserError(f"{block.kernel}: uses PE {int(block.commands['pe'].max())}, {chip.name} has {chip.pes}; "
                        "compile for this chip")


def _touched(c: Array) -> Array:
    """Return the slots that each command reads (three) and writes (one), -1 where none."""
    sources = np.stack([c[n].astype(np.int64) for n in ("src0", "src1", "src2")] + [c["dst"].astype(np.int64)], axis=1)
    return np.maximum(sources, -1)


def _unit_of(c: Array) -> Array:
    table = np.zeros(len(Op), np.int64)
    table[[Op.STORE, Op.MATMUL, Op.REDUCE, Op.SIMD, Op.FOLD, Op.SCALAR, Op.STAGE]] = [
        STORE_QUEUE, MATRIX, MATRIX, SIMD, SIMD, CORE, CHIP_DMA]
    unit = table[c["op"]]
    return np.where((c["op"] == Op.MATMUL) & (c["flags"] & VECTOR > 0), SIMD, unit)


def _costs(block: Block, chip: Chip, ev: Events) -> _Costs:
    c, unit = block.commands, _unit_of(block.commands)
    n = len(c)
    busy, latency, link, index = np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, -1)
    dram = (ev.dram_read_bytes + ev.dram_write_bytes) / (chip.dram_bytes_per_cycle * chip.dram.efficiency(ev.run_bytes))
    sram = (ev.sram_read_bytes + ev.sram_write_bytes) / chip.sram_bytes_per_cycle
    local = (ev.local_read_bytes + ev.local_write_bytes) / chip.pe.local.bytes_per_cycle
    local /= np.where(c["op"] == Op.LOAD, np.array([1, chip.grid.cols, chip.grid.rows, chip.pes])[c["cast"]], 1)
    for rule in (_time_transfers, _time_matmul, _time_simd, _time_rest):
        rule(block, chip, ev, busy, latency, link, index)
    issue = ev.commands * chip.pe.core.issue_cycles * (unit != CHIP_DMA)
    return _Costs(unit, busy, latency, dram, sram, link, index, local, issue)


def _time_transfers(block: Block, chip: Chip, ev: Events, busy: Array, latency: Array, link: Array, index: Array) -> None:
    """Time LOAD, STORE, STAGE, GATHER and POOL: the port, the layout unit, the link, and the way there."""
    c = block.commands
    at = np.flatnonzero(np.isin(c["op"], (Op.LOAD, Op.STORE, Op.STAGE, Op.GATHER, Op.POOL)))
    op, pe, cast = c["op"][at], c["pe"][at].astype(int), c["cast"][at]
    payload = ev.noc_bytes[at]
    port = chip.pe.dma.cycles(payload, ev.runs[at])
    port = np.where(op == Op.STAGE, 0.0, port)
    reads = np.where(ev.dram_read_bytes[at] > 0, chip.cycles(chip.dram.latency_s), chip.cycles(chip.sram.latency_s))
    reach = reads * (op != Op.STORE) + hops(pe, cast, chip) * chip.noc.hop_cycles + chip.pe.dma.startup_cycles
    rows = ev.rows[at] * reach / chip.pe.dma.outstanding_rows  # indexed rows: so many requests in flight
    pooled = ev.simd_passes[at] * 4 / chip.pe.simd.bytes_per_cycle
    busy[at] = np.maximum.reduce([port, ev.transposed_bytes[at] / chip.pe.layout.bytes_per_cycle, rows, pooled])
    latency[at] = reach + np.where(op == Op.POOL, chip.pe.simd.startup_cycles, 0)
    rows_, cols_ = chip.grid.rows, chip.grid.cols
    by_col = cast == Cast.COL
    link[at] = payload / np.where(by_col, chip.noc.col_bytes_per_cycle, chip.noc.row_bytes_per_cycle)
    place = np.where(by_col, LINKS + rows_ + pe % cols_, LINKS + pe // cols_)
    place = np.where(op == Op.STORE, LINKS + rows_ + cols_ + pe // cols_, place)
    index[at] = np.where(op == Op.STAGE, -1, place)


def _time_matmul(block: Block, chip: Chip, ev: Events, busy: Array, latency: Array, link: Array, index: Array) -> None:
    c = block.commands
    at = np.flatnonzero(c["op"] == Op.MATMUL)
    if not len(at):
        return
    m, n, k = (c[x][at].astype(np.int64) for x in ("rows", "cols", "k"))
    kind = block.slots[int(c["src0"][at[0]])].dtype
    if (c["flags"][at] & VECTOR).any():
        busy[at] = ev.macs[at] / chip.pe.simd.macs_per_cycle(kind)
        latency[at] = chip.pe.simd.startup_cycles
        return
    busy[at] = chip.pe.matrix.busy(m, k, n, kind.name)
    latency[at] = chip.pe.matrix.latency(m, k, n, kind.name) - busy[at]


def _time_simd(block: Block, chip: Chip, ev: Events, busy: Array, latency: Array, link: Array, index: Array) -> None:
    """Time SIMD and FOLD: the widest operand or result passes the lanes, once for each pass of the function."""
    c = block.commands
    at = np.flatnonzero(np.isin(c["op"], (Op.SIMD, Op.FOLD)))
    if not len(at):
        return
    sizes = np.array([s.dtype.bytes for s in block.slots])
    c = c[at]
    width = sizes[c["dst"]].astype(float)
    for i, name in enumerate(("src0", "src1", "src2")):
        whole = (c[name] >= 0) & (source_shape(c["flags"].astype(int), i) == 0)
        width = np.maximum(width, sizes[np.maximum(c[name], 0)] * whole)
    passes = np.where(c["op"] == Op.FOLD, 1, np.array([FUNCTIONS[f].passes for f in FUNCTION_NAMES])[
        np.minimum(c["fn"], len(FUNCTION_NAMES) - 1)])
    busy[at] = chip.pe.simd.cycles(c["rows"].astype(float) * c["cols"], width, passes)
    latency[at] = chip.pe.simd.startup_cycles


def _time_rest(block: Block, chip: Chip, ev: Events, busy: Array, latency: Array, link: Array, index: Array) -> None:
    c = block.commands
    at = np.flatnonzero(c["op"] == Op.REDUCE)
    busy[at] = ev.noc_bytes[at] / chip.pe.reduce.bytes_per_cycle
    latency[at] = chip.noc.hop_cycles
    at = np.flatnonzero(c["op"] == Op.SCALAR)
    busy[at] = ev.scalar_elements[at] * chip.pe.core.scalar_cycles_per_element
    latency[at] = chip.cycles(chip.dram.latency_s)


def _busy(block: Block, chip: Chip, costs: _Costs) -> dict[str, float]:
    """Return the busy cycles of the busiest instance of each resource."""
    c, unit = block.commands, costs.unit
    pe = c["pe"].astype(np.int64)
    spread = np.array([1, chip.grid.cols, chip.grid.rows, chip.pes])[c["cast"]]

    def busiest(mask: Array, cycles: Array) -> float:
        if not mask.any():
            return 0.0
        groups = np.bincount(pe[mask], weights=cycles[mask], minlength=chip.pes)
        shared = np.where(spread[mask] > 1, cycles[mask], 0).sum() / max(chip.pes, 1)
        return float(max(groups.max(), shared))

    def linked() -> float:
        used = costs.link_index >= 0
        return float(np.bincount(costs.link_index[used], weights=costs.link[used]).max()) if used.any() else 0.0

    dma = (unit == LOAD_QUEUE) | (unit == STORE_QUEUE)
    per_pe = np.ones(len(c), bool)
    own_core = unit != CHIP_DMA
    return {
        "array": busiest(unit == MATRIX, costs.busy),
        "simd": busiest(unit == SIMD, costs.busy),
        "dma": busiest(dma, costs.busy),
        "core": busiest(unit == CORE, costs.busy),
        "issue": busiest(own_core, costs.issue),
        "local": busiest(per_pe & own_core, costs.local),
        "noc": linked(),
        "sram": float(costs.sram.sum()),
        "dram": float(costs.dram.sum()),
    }


@jitted
def _recurrence(  # noqa: PLR0913 (a compiled loop takes arrays, not objects)
    op, cast, pe, src_pe, touched, stage, unit, busy, latency, dram, sram, link, link_index, local, issue,
    start, end, free, written, read, staged, unit_free, core, rows, cols, bank_share, accumulator,
):  # type: ignore[no-untyped-def]
    """Fill `start` and `end`. `written[p, s]`: when slot s of PE p was last written; `read`: last read to its end."""
    for i in range(len(op)):
        p = pe[i]
        dst = touched[i, 3]
        first, last, step = p, p + 1, 1
        if cast[i] == 1:
            first = p // cols * cols
            last = first + cols
        elif cast[i] == 2:
            first, last, step = p % cols, rows * cols, cols
        elif cast[i] == 3:
            first, last = 0, rows * cols
        u = unit[i]
        t = 0.0
        if u == 5:
            t = staged[1, stage[i]]
        else:
            core[p, 0] += issue[i]
            t = core[p, 0]
            for q in range(first, last, step):
                t = max(t, unit_free[q, u])
                if dst >= 0:
                    t = max(t, read[q, dst])
                    if op[i] != 5 and op[i] != 6:
                        t = max(t, written[q, dst])
            for j in range(3):
                if touched[i, j] >= 0:
                    t = max(t, written[p, touched[i, j]])
            if op[i] == 0 and stage[i] >= 0:
                t = max(t, staged[0, stage[i]])
            if op[i] == 6:
                t = max(t, max(written[src_pe[i], dst], written[p, dst]))
        # each shared resource serves commands in turn, by itself: a transfer flows through all of them at once
        done = t + busy[i]
        if dram[i] > 0:
            free[0] = max(free[0], t) + dram[i]
            done = max(done, free[0])
        if sram[i] > 0:
            free[1] = max(free[1], t) + sram[i]
            done = max(done, free[1])
        if link_index[i] >= 0:
            free[link_index[i]] = max(free[link_index[i]], t) + link[i]
            done = max(done, free[link_index[i]])
        start[i] = t
        if u == 5:
            end[i] = done + latency[i]
            staged[0, stage[i]] = end[i]
            continue
        for q in range(first, last, step):
            core[q, 1] += local[i]  # the port of local memory: work done so far must have had time
            done = max(done, core[q, 1])
        end[i] = done + latency[i]
        for q in range(first, last, step):
            unit_free[q, u] = t + busy[i] if u > 1 else done
            if dst >= 0:
                written[q, dst] = end[i]
        for j in range(3):
            s = touched[i, j]
            if s >= 0:
                if accumulator[s]:  # banks drain one after another: the next tile follows the first bank
                    read[p, s] = max(read[p, s], t + (done - t) * bank_share)
                else:
                    read[p, s] = max(read[p, s], done)
        if op[i] == 0 and stage[i] >= 0:
            staged[1, stage[i]] = max(staged[1, stage[i]], done)
        if op[i] == 6:
            read[src_pe[i], dst] = max(read[src_pe[i], dst], t + (done - t) * bank_share)
