"""When: each command's start and end, by a max-plus recurrence over the commands in the order of issue.

A command starts when its core has issued it, its unit is free, the slots that it reads are written, the slot
that it writes is no longer read, and the shared resources that it needs (network links, SRAM, DRAM) have
served all earlier commands. Arbitration in program order is an approximation; `timeline` is the only door to
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from ..machine.chip import Chip
from ..machine.units.simd import FUNCTIONS
from ..machine.ways import Pooled, Transfer, Way, gather, load, pass_on, pool, stage, store
from ..program.isa import FUNCTION_NAMES, VECTOR, Block, Cast, Opcode, Shape, select, source_shape
from .events import Events, events, products, receivers
from .lookups import Lookups
from .occupancy import occupancy
from .ordered import in_order_of_time
from .recurrence import (
    CHIP_DMA,
    CORE,
    LINKS,
    MATRIX,
    REDUCE,
    SIMD,
    STORE_QUEUE,
    Sharers,
    fresh,
    packed,
    recur,
)

Array = np.ndarray[Any, Any]
WAYS: dict[Opcode, Callable[[Transfer, Chip], Way]] = {
    Opcode.LOAD: load,
    Opcode.STORE: store,
    Opcode.STAGE: stage,
    Opcode.GATHER: gather,
}


@dataclass(frozen=True)
class Timeline:
    """When each command of a block runs, in cycles from the block's start, and how busy each resource was.

    `busy` gives, for each resource among `report.BOUNDS`, the cycles of its busiest instance.
    """

    start: Array
    end: Array
    unit: Array
    cycles: float
    busy: dict[str, float]


def timeline(
    block: Block,
    chip: Chip,
    lookups: Lookups | None = None,
    cache_bytes: int = 0,
    *,
    counts: Events | None = None,
    ordered: bool = False,
) -> Timeline:
    """Return when each command of the block runs on the chip; `lookups` and `cache_bytes` as in `events`.

    `counts` are the block's events, where they have been counted already. With `ordered`, shared resources
    serve strictly in the order of time, by a slow event queue (`ordered.py`) that the fast form is held to.

    Raises `UserError` when the block needs more of the chip than it has.
    """
    check_fits(block, chip)
    return timed(block, chip, counts or events(block, chip, lookups, cache_bytes), ordered=ordered)


@dataclass(frozen=True)
class BlockWork:
    """What each command takes, all but of DRAM's channels (`recurrence.COMMAND`), and who is how busy."""

    commands: Array
    busy: dict[str, float]


def work(block: Block, chip: Chip, counts: Events) -> BlockWork:
    """Return the work of a block's commands; how fast DRAM's channels are is not asked."""
    commands = _work(block, chip, counts)
    low = block.band_rows(chip.grid.rows)[:, 0]
    return BlockWork(commands, occupancy(commands, low, chip.grid.cols))


def timed(
    block: Block, chip: Chip, counts: Events, known: BlockWork | None = None, *, ordered: bool = False
) -> Timeline:
    """Return the `timeline` of a block that is known to fit: how much the chip holds is not asked.

    `known` is the block's `work`, where it has been found already.
    """
    known = known or work(block, chip, counts)
    costs, on_channels = known.commands, on_dram(chip, counts)
    busy = known.busy | {"dram": float(on_channels.sum())}
    start, end = np.zeros(len(costs)), np.zeros(len(costs))
    accumulator = np.array([s.accumulator for s in block.slots] + [False])
    flights = chip.pe.dma.outstanding_transfers
    grid = Sharers(LINKS + 2 * chip.grid.rows + chip.grid.cols, 1.0 / chip.pe.reduce.banks)
    if ordered:
        start, end = in_order_of_time(costs, on_channels, grid, accumulator, flights)
    else:
        state = fresh(chip.pes, len(accumulator), block.stages + 1, flights)
        recur(costs, on_channels, state, grid, accumulator, start, end, max(busy.values()))
    cycles = float(end.max()) if len(end) else 0.0
    return Timeline(start, end, costs["unit"].copy(), cycles, busy)


def check_fits(block: Block, chip: Chip) -> None:
    """Raise `UserError` when a block needs more local memory, accumulators, SRAM or PEs than the chip has."""
    needs = [
        ("local memory", block.local_bytes, chip.pe.local.bytes),
        ("accumulators", block.accumulator_bytes, chip.pe.reduce.bytes),
        ("SRAM scratch", block.scratch_bytes, chip.sram.bytes),
    ]
    for what, need, have in needs:
        if need > have:
            raise UserError(
                f"{block.kernel}: needs {need} bytes of {what}, {chip.name} has {have} "
                f"(short by {need - have}); compile for this chip"
            )
    if len(block.commands) and int(block.commands["pe"].max()) >= chip.pes:
        raise UserError(
            f"{block.kernel}: uses PE {int(block.commands['pe'].max())}, {chip.name} has {chip.pes}; "
            "compile for this chip"
        )


def _unit_of(c: Array) -> Array:
    table = np.zeros(len(Opcode), np.int64)
    table[
        [Opcode.STORE, Opcode.MATMUL, Opcode.REDUCE, Opcode.SIMD, Opcode.FOLD, Opcode.SCALAR, Opcode.STAGE]
    ] = [
        STORE_QUEUE,
        MATRIX,
        REDUCE,
        SIMD,
        SIMD,
        CORE,
        CHIP_DMA,
    ]
    unit = table[c["op"]]
    return np.where((c["op"] == Opcode.MATMUL) & (c["flags"] & VECTOR > 0), SIMD, unit)


def on_dram(chip: Chip, ev: Events) -> Array:
    """Return the cycles for which DRAM's channels are each command's.

    DRAM is asked about only where there is something for it to do, so that a block that leaves it alone is
    seen to take the same time beside any.
    """
    moved = ev.dram_read_bytes + ev.dram_write_bytes
    at = np.flatnonzero(moved)
    cycles = np.zeros(len(moved))
    if len(at):
        written = float(ev.dram_write_bytes.sum()) / max(float(moved.sum()), 1.0)
        cycles[at] = chip.dram_cycles(moved[at], ev.run_bytes[at], written)
    return cycles


@dataclass
class _Costs:
    """What commands are and take, an element a command: see `recurrence.COMMAND`."""

    op: Array
    unit: Array
    busy: Array
    latency: Array
    on_link: Array
    link: Array


def _work(block: Block, chip: Chip, ev: Events) -> Array:
    c, bands = block.commands, block.band_rows(chip.grid.rows)
    unit = _unit_of(c)
    busy, latency, on_link = np.zeros((3, len(c)))
    costs = _Costs(c["op"].copy(), unit, busy, latency, on_link, np.full(len(c), -1))
    for rule in (_time_transfers, _time_matmul, _time_simd, _time_rest):
        rule(block, chip, ev, costs)
    on_sram = chip.sram_cycles(ev.sram_read_bytes + ev.sram_write_bytes)
    local, _ = chip.pe.local.cost(ev.local_read_bytes + ev.local_write_bytes)
    local /= receivers(c, bands, chip)  # of each receiver
    issue = chip.pe.core.issue(ev.commands) * (unit != CHIP_DMA)
    each = (busy, latency, on_sram, on_link, local, issue)
    return packed(c, bands, chip.grid.cols, unit, costs.link, each)


def _time_transfers(block: Block, chip: Chip, ev: Events, costs: _Costs) -> None:
    """Time LOAD, STORE, STAGE, GATHER and POOL: each takes its own way."""
    c, bands = block.commands, block.band_rows(chip.grid.rows)
    for op in (*WAYS, Opcode.POOL):
        at = np.flatnonzero(costs.op == op)
        if not len(at):
            continue
        pe, cast = c["pe"][at].astype(int), c["cast"][at]
        transfer = Transfer(
            ev.noc_bytes[at],
            ev.runs[at],
            chip.grid.hops(pe, cast, bands),
            cast == Cast.COL,
            ev.missed[at] * (ev.dram_read_bytes[at] > 0),
            ev.transposed_bytes[at],
            ev.rows[at],
        )
        pooled = _pooled(c, ev, at) if op == Opcode.POOL else None
        way = pool(transfer, pooled, chip) if pooled else WAYS[op](transfer, chip)
        costs.busy[at], costs.latency[at], costs.on_link[at] = way
        costs.link[at] = _links(op, pe, cast, chip)


def _links(op: Opcode, pe: Array, cast: Array, chip: Chip) -> Array | int:
    """Return the link that each transfer of a kind takes, as a shared resource; -1 for none."""
    rows, cols = chip.grid.rows, chip.grid.cols
    if op == Opcode.STAGE:
        return -1
    if op == Opcode.STORE:
        return LINKS + rows + cols + pe // cols
    return np.where(cast == Cast.COL, LINKS + rows + pe % cols, LINKS + pe // cols)


def _pooled(c: Array, ev: Events, at: Array) -> Pooled:
    """Return what POOL commands pool, by what was counted of them."""
    bags = np.maximum(c["rows"][at], 1)
    looked = ev.rows[at]
    passes = np.divide(ev.simd_passes[at], looked, out=np.zeros(len(at)), where=looked > 0)
    return Pooled(bags, looked / bags, ev.run_bytes[at], passes)


def _time_matmul(block: Block, chip: Chip, ev: Events, costs: _Costs) -> None:
    c = block.commands
    at = np.flatnonzero(costs.op == Opcode.MATMUL)
    if not len(at):
        return
    c = select(c, at)
    m, k, n, which = products(c)
    kind = block.slots[int(c["src0"][0])].dtype
    if (c["flags"] & VECTOR).any():
        costs.busy[at], costs.latency[at] = chip.pe.simd.product_cost(ev.macs[at], kind)
        return
    busy, latency = chip.pe.matrix.cost(m, k, n, kind.name)
    costs.busy[at], costs.latency[at] = busy[which], latency[which]


def _time_simd(block: Block, chip: Chip, ev: Events, costs: _Costs) -> None:
    """Time SIMD and FOLD: the widest operand or result passes the lanes, once for each pass."""
    c = block.commands
    at = np.flatnonzero((costs.op == Opcode.SIMD) | (costs.op == Opcode.FOLD))
    if not len(at):
        return
    c = select(c, at)
    sizes = np.array([*(s.dtype.bytes for s in block.slots), 0, 0], np.float32)  # the last two: of no slot
    flags, width = c["flags"], sizes[c["dst"]]
    for i, name in enumerate(("src0", "src1", "src2")):
        if (c[name] >= 0).any():
            whole = source_shape(flags, i) == Shape.FULL
            width = np.maximum(width, sizes[c[name]] * whole)
    by_function = np.array([FUNCTIONS[f].passes for f in FUNCTION_NAMES])
    passes = np.where(c["op"] == Opcode.FOLD, 1, by_function[c["fn"]])
    elements = c["rows"].astype(float) * c["cols"]
    costs.busy[at], costs.latency[at] = chip.pe.simd.cost(elements, width, passes)


def _time_rest(block: Block, chip: Chip, ev: Events, costs: _Costs) -> None:
    at = np.flatnonzero(costs.op == Opcode.REDUCE)
    costs.busy[at], costs.latency[at], _ = pass_on(ev.noc_bytes[at], chip)
    at = np.flatnonzero(costs.op == Opcode.SCALAR)
    if len(at):
        latency = chip.cycles(chip.dram.latency_s)
        costs.busy[at], costs.latency[at] = chip.pe.core.cost(ev.scalar_elements[at], latency)
