"""When: each command's start and end, by a max-plus recurrence over the commands in the order of issue.

A command starts when its core has issued it, its unit is free, the slots that it reads are written, the slot
that it writes is no longer read, and the shared resources that it needs (network links, SRAM, DRAM) have
served all earlier commands. Arbitration in program order is an approximation; `timeline` is the only door to
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from ..machine.chip import Chip
from ..machine.units.simd import FUNCTIONS
from ..program.isa import FUNCTION_NAMES, VECTOR, Block, Cast, Opcode, Shape, select, source_shape
from .events import Events, events, hops, products, receivers
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
        share = chip.dram_efficiency(ev.run_bytes[at], written)
        cycles[at] = moved[at] / (chip.dram_bytes_per_cycle * share)
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
    on_sram = (ev.sram_read_bytes + ev.sram_write_bytes) / chip.sram_bytes_per_cycle
    local = (ev.local_read_bytes + ev.local_write_bytes) / chip.pe.local.bytes_per_cycle
    local /= receivers(c, bands, chip)  # of each receiver
    issue = ev.commands * chip.pe.core.issue_cycles * (unit != CHIP_DMA)
    each = (busy, latency, on_sram, on_link, local, issue)
    return packed(c, bands, chip.grid.cols, unit, costs.link, each)


def _time_transfers(block: Block, chip: Chip, ev: Events, costs: _Costs) -> None:
    """Time LOAD, STORE, STAGE, GATHER and POOL: the port, the layout unit, the link, and the way there."""
    c = block.commands
    at = np.flatnonzero(costs.op <= Opcode.POOL)
    op, pe, cast = costs.op[at], c["pe"][at].astype(int), c["cast"][at]
    payload = ev.noc_bytes[at]
    port = np.where(op == Opcode.STAGE, 0.0, chip.pe.dma.cycles(payload, ev.runs[at]))
    near, missed = chip.cycles(chip.sram.latency_s), ev.missed[at] * (ev.dram_read_bytes[at] > 0)
    reads = near + missed * (chip.cycles(chip.dram.latency_s) - near if missed.any() else 0.0)
    far = hops(pe, cast, block.band_rows(chip.grid.rows), chip) * chip.noc.hop_cycles
    reach = reads * (op != Opcode.STORE) + far + chip.pe.dma.startup_cycles
    rows = np.maximum(  # indexed rows: each is asked for, and so many may be on their way
        ev.rows[at] * reach / chip.pe.dma.outstanding_rows, ev.rows[at] * chip.pe.core.row_issue_cycles
    )
    turned = ev.transposed_bytes[at] / chip.pe.layout.bytes_per_cycle
    costs.busy[at] = np.maximum.reduce([port, turned, rows])
    costs.latency[at] = reach
    pools = at[op == Opcode.POOL]
    pooling = _pooling(c[pools], ev, pools, chip, reach[op == Opcode.POOL])
    costs.busy[pools] = np.maximum(costs.busy[pools], pooling)
    costs.latency[pools] += chip.pe.simd.startup_cycles
    by_col = cast == Cast.COL
    costs.on_link[at] = payload / np.where(by_col, chip.noc.col_bytes_per_cycle, chip.noc.row_bytes_per_cycle)
    grid = chip.grid
    place = np.where(by_col, LINKS + grid.rows + pe % grid.cols, LINKS + pe // grid.cols)
    place = np.where(op == Opcode.STORE, LINKS + grid.rows + grid.cols + pe // grid.cols, place)
    costs.link[at] = np.where(op == Opcode.STAGE, -1, place)


def _pooling(c: Array, ev: Events, at: Array, chip: Chip, reach: Array) -> Array:
    """Return the cycles of POOL commands: of each bag the indices come first, then the rows, then their sum.

    A bag's rows come in chunks of one accumulate command; the next chunk comes while one is summed. Of
    `bags_in_flight` bags at once, each resource serves all; one alone waits for every answer.

    An example: 4 bags of 20 rows; a row takes 4 cycles to fetch and 3 to add, 8 rows a chunk, and an answer
    comes after 100. A bag alone: its first chunk 8 * 4 = 32; the second is fetched while the first is summed,
    8 * max(4, 3) = 32; the last 4 rows are there before the second chunk is summed, 8 * 3 = 24, and are
    summed in 12. That is 100, and 2 * 100 for the indices and the first row: 300 a bag. With one bag in
    flight the four take 1,200. With four in flight they take 300 by their own waits, but the DMA fetches 80
    rows, one in 4 cycles: 320. The offsets come first, 100 more: 420.
    """
    pe, bags = chip.pe, np.maximum(c["rows"], 1)
    rows = ev.rows[at] / bags
    fetch = np.maximum(pe.core.row_issue_cycles, ev.run_bytes[at] / pe.dma.bytes_per_cycle)
    passes = np.divide(ev.simd_passes[at], ev.rows[at], out=np.zeros(len(at)), where=ev.rows[at] > 0)
    add = pe.simd.row_startup_cycles + passes * 4 / pe.simd.bytes_per_cycle
    chunk = float(pe.core.rows_per_accumulate)
    first = np.minimum(rows, chunk)
    whole = np.floor((rows - first) / chunk)
    last = rows - first - whole * chunk
    each = fetch * first + whole * chunk * np.maximum(fetch, add)
    each += np.where(last > 0, np.maximum(add * chunk, fetch * last) + add * last, add * first)
    alone = bags * (2 * reach + each) / chip.kernels.bags_in_flight
    return reach + np.maximum(alone, np.maximum(fetch, add) * ev.rows[at])


def _time_matmul(block: Block, chip: Chip, ev: Events, costs: _Costs) -> None:
    c = block.commands
    at = np.flatnonzero(costs.op == Opcode.MATMUL)
    if not len(at):
        return
    c = select(c, at)
    m, k, n, which = products(c)
    kind = block.slots[int(c["src0"][0])].dtype
    if (c["flags"] & VECTOR).any():
        costs.busy[at] = ev.macs[at] / chip.pe.simd.macs_per_cycle(kind)
        costs.latency[at] = chip.pe.simd.startup_cycles
        return
    busy = chip.pe.matrix.busy(m, k, n, kind.name)
    costs.busy[at] = busy[which]
    costs.latency[at] = (chip.pe.matrix.latency(m, k, n, kind.name) - busy)[which]


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
    costs.busy[at] = chip.pe.simd.cycles(elements, width, passes)
    costs.latency[at] = chip.pe.simd.startup_cycles


def _time_rest(block: Block, chip: Chip, ev: Events, costs: _Costs) -> None:
    at = np.flatnonzero(costs.op == Opcode.REDUCE)
    costs.busy[at] = ev.noc_bytes[at] / chip.pe.reduce.bytes_per_cycle
    costs.latency[at] = chip.noc.hop_cycles
    at = np.flatnonzero(costs.op == Opcode.SCALAR)
    costs.busy[at] = ev.scalar_elements[at] * chip.pe.core.scalar_cycles_per_element
    costs.latency[at] = chip.cycles(chip.dram.latency_s) if len(at) else 0.0
