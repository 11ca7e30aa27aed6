"""How long a block keeps DRAM and all else busy, estimated from its commands by the units' own rules.

One PE stands for all: the one that stores last, which kernels give as much work as any other. What PEs share
is counted over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.machine import ways
from mtia_emu.machine.chip import Chip
from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.machine.ways import Transfer, Way
from mtia_emu.program.commands import table_of
from mtia_emu.program.isa import FUNCTION_NAMES, VECTOR, Block, Cast, Opcode, Operand, select

Array = np.ndarray[Any, Any]
UNITS = ("load", "store", "matrix", "reduce", "simd")
UNIT = table_of(lambda kind: UNITS.index(kind.queue.name) if kind.queue.name in UNITS else -1)
OPAQUE = table_of(lambda kind: kind.opaque)
MOVES = table_of(lambda kind: kind.queue.moves)
ADDS = table_of(lambda kind: kind.adds)
WAYS: dict[Opcode, Callable[[Transfer, Chip], Way]] = {
    Opcode.LOAD: ways.load,
    Opcode.STORE: ways.store,
    Opcode.GATHER: ways.gather,
}
LOADING = ("load", "sram", "link", "dram")  # resources that are busy from the first load on


@dataclass(frozen=True)
class Pace:
    """Cycles of a block: of DRAM, of the busiest other resource, and at the `edge`s, before and after those.

    They are estimates: a wrong one costs time, never a wrong result.
    """

    dram: float
    other: float
    edge: float

    @property
    def idle(self) -> float:
        """Return the cycles for which DRAM has nothing to do."""
        return max(self.other - self.dram, 0.0) + self.edge

    @property
    def late(self) -> float:
        """Return the cycles for which all else waits for DRAM."""
        return max(self.dram - self.other, 0.0)


def pace(block: Block, chip: Chip) -> Pace | None:
    """Return the estimated pace of a block; None where its commands do not tell it, as of layers on bands."""
    ops = block.commands["op"]
    stores = np.flatnonzero(ops == Opcode.STORE)
    if block.bands or not len(stores) or OPAQUE[ops].any():
        return None
    dram, shared = _shared(block, chip)
    mine = _commands_of(block, chip, int(block.commands["pe"][stores[-1]]))
    busy, latency = _costs(mine, block, chip)
    unit = UNIT[mine["op"]]
    own = {name: float(busy[unit == i].sum()) for i, name in enumerate(UNITS)}
    own["simd"] += float(latency[unit == 4].sum())  # most passes take what the one before gives
    own["issue"] = _issue(mine, chip)
    cycles = shared | own
    bound = max(cycles, key=lambda name: cycles[name])
    other = cycles[bound]
    edge = _edge(mine, busy, latency, "dram" if dram > other else bound)
    return Pace(dram, other, edge + float(chip.pe.core.issue(1)))


def _shared(block: Block, chip: Chip) -> tuple[float, dict[str, float]]:
    """Return the cycles of DRAM, and those of SRAM and of the links into rows: of their mean."""
    at = np.flatnonzero(MOVES[block.commands["op"]])
    moves = select(block.commands, at)
    data, runs = _tiles(moves, block)
    far = np.array([x.space.off_chip for x in block.operands])[moves["operand"]]
    near = ~far | (moves["op"] == Opcode.STAGE)
    dram = 0.0
    if far.any():
        written = float(data[far & (moves["op"] == Opcode.STORE)].sum()) / float(data[far].sum())
        length, of = np.unique(data[far] / runs[far], return_inverse=True)
        dram = float(chip.run_cycles(length, np.bincount(of, runs[far]), written).sum())
    loaded = float(data[(moves["op"] == Opcode.LOAD) & (moves["cast"] != Cast.COL)].sum())
    links, _ = chip.noc.cost(loaded, False, 0)
    return dram, {"sram": float(chip.sram_cycles(data[near].sum())), "link": float(links) / chip.grid.rows}


def _tiles(moves: Array, block: Block) -> tuple[Array, Array]:
    """Return the bytes that commands move, and in how many runs of consecutive ones."""
    rows, cols = moves["rows"].astype(float), moves["cols"].astype(float)
    data, runs = np.zeros(len(moves)), np.ones(len(moves))
    for index, x in enumerate(block.operands):
        at = moves["operand"] == index
        data[at] = rows[at] * cols[at] * x.dtype.bytes
        if not x.tiled:
            runs[at] = _runs(x, rows[at], cols[at])
    return data, runs


def _runs(x: Operand, rows: Array, cols: Array) -> Array:
    """Return how many runs of consecutive elements tiles of an operand have."""
    below = x.strides[-2] if len(x.strides) > 1 else x.cols
    if x.strides[-1] == 1:
        return np.where((cols == x.cols) & (below == x.cols), 1.0, rows)
    return cols if below == 1 else rows * cols


def _commands_of(block: Block, chip: Chip, pe: int) -> Array:
    """Return the commands of a PE, and those that load into it."""
    at, cast, wide = block.commands["pe"], block.commands["cast"], chip.grid.cols
    mine = (at == pe) | (cast == Cast.ALL)
    mine |= (cast == Cast.ROW) & (at // wide == pe // wide) | (cast == Cast.COL) & (at % wide == pe % wide)
    return select(block.commands, np.flatnonzero(mine & (block.commands["op"] != Opcode.STAGE)))


def _costs(mine: Array, block: Block, chip: Chip) -> tuple[Array, Array]:
    """Return the cycles that each command of a PE takes its unit, and those until its result is there."""
    busy, latency = np.zeros(len(mine)), np.zeros(len(mine))
    for op, way_of in WAYS.items():
        at = np.flatnonzero(mine["op"] == op)
        way = way_of(_transfer(select(mine, at), block, chip), chip)
        busy[at], latency[at] = way.busy, way.latency
    at = np.flatnonzero(mine["op"] == Opcode.REDUCE)
    busy[at], latency[at], _ = ways.pass_on(4.0 * mine["rows"][at] * mine["cols"][at], chip)
    at = np.flatnonzero(np.isin(mine["op"], (Opcode.SIMD, Opcode.FOLD)))
    busy[at], latency[at] = _simd(select(mine, at), block, chip)
    at = np.flatnonzero(mine["op"] == Opcode.MATMUL)
    if len(at):
        busy[at], latency[at] = _products(select(mine, at), block, chip)
    return busy, latency


def _transfer(moves: Array, block: Block, chip: Chip) -> Transfer:
    """Return commands of one kind as transfers; whether the layout unit turns a tile is not looked at."""
    data, runs = _tiles(moves, block)
    far = np.array([x.space.off_chip for x in block.operands], float)[moves["operand"]]
    hops = chip.grid.hops(moves["pe"].astype(int), moves["cast"])
    return Transfer(data, runs, hops, moves["cast"] == Cast.COL, far, rows=moves["rows"])


def _simd(passes: Array, block: Block, chip: Chip) -> tuple[Array, Array | int]:
    """Return what functions and folds over rows take; the first operand is taken for the widest."""
    each = np.array([FUNCTIONS[f].passes for f in FUNCTION_NAMES])
    fold = passes["op"] == Opcode.FOLD
    times = np.where(fold, 1, each[np.where(fold, 0, passes["fn"])])
    sizes = np.array([*(s.dtype.bytes for s in block.slots), 0, 0])  # the last two: of no slot
    width = np.maximum(sizes[passes["src0"]], sizes[passes["dst"]])
    return chip.pe.simd.cost(passes["rows"].astype(float) * passes["cols"], width, times)


def _products(products: Array, block: Block, chip: Chip) -> tuple[Array, Array | int]:
    """Return what products take, on the unit that their block's are for."""
    m, k, n = (products[name].astype(np.int64) for name in ("rows", "k", "cols"))
    kind = block.slots[int(products["src0"][0])].dtype
    if products["flags"][0] & VECTOR:
        return chip.pe.simd.product_cost(m * k * n, kind)
    return chip.pe.matrix.cost(m, k, n, kind.name)


def _issue(mine: Array, chip: Chip) -> float:
    """Return the cycles of the core that issues more: one those that move data, one those that compute."""
    moving = np.count_nonzero(MOVES[mine["op"]])
    return float(chip.pe.core.issue(max(moving, len(mine) - moving)))


def _edge(mine: Array, busy: Array, latency: Array, bound: str) -> float:
    """Return the cycles before the busiest resource begins and after it ends.

    Before: the way of the first load. After: that of the last, and what waits for it.
    """
    unit = UNIT[mine["op"]]
    loads = np.flatnonzero(unit == 0)
    multiplied = loads[np.isin(mine["dst"][loads], mine["src1"][mine["op"] == Opcode.MATMUL])]
    if bound in UNITS[1:]:  # its own part of what comes after is in its work already
        latency = np.where(unit == UNITS.index(bound), 0.0, latency)
        busy = np.where(unit == UNITS.index(bound), 0.0, busy)
    if not len(loads):
        return float(latency[-1] + busy[-1])
    first, last = int(loads[0]), int((multiplied if len(multiplied) else loads)[-1])
    if bound in LOADING:
        return float(latency[last]) + _follows(mine[last:], busy[last:], latency[last:])
    return float(busy[first] + latency[first]) + _follows(mine[last:], busy[last:], latency[last:])


def _follows(tail: Array, busy: Array, latency: Array) -> float:
    """Return the cycles that what depends on the first of a PE's commands takes after it.

    Units take one command after another; what does not depend on it was done before.
    """
    names = ("dst", "src0", "src1", "src2", "op")
    free, ready = dict.fromkeys(range(len(UNITS)), 0.0), {int(tail["dst"][0]): 0.0}
    rows = zip(*(tail[name][1:].tolist() for name in names), busy[1:], latency[1:], strict=True)
    for dst, *sources, op, takes, late in rows:
        added = [dst] if ADDS[op] else []
        waits = [ready[x] for x in (*sources, *added) if x in ready]
        if not waits:
            ready.pop(dst, None)
            continue
        start = max(*waits, free[int(UNIT[op])])
        free[int(UNIT[op])] = start + takes
        ready[dst] = start + takes + late
    return float(max(ready.values(), default=0.0))
