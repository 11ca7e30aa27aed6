"""How long a block keeps DRAM and all else busy, estimated from its commands by the units' own rules.

One PE stands for all: the one that stores last, which kernels give as much work as any other. What PEs share
is counted over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.machine.units.simd import FUNCTIONS
from mtia_emu.program.commands import table_of
from mtia_emu.program.isa import FUNCTION_NAMES, VECTOR, Block, Cast, Opcode, Operand, select

Array = np.ndarray[Any, Any]
UNITS = ("load", "store", "matrix", "reduce", "simd")
UNIT = table_of(lambda kind: UNITS.index(kind.queue.name) if kind.queue.name in UNITS else -1)
OPAQUE = table_of(lambda kind: kind.opaque)
MOVES = table_of(lambda kind: kind.queue.moves)
ADDS = table_of(lambda kind: kind.adds)
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
    return Pace(dram, other, edge)


def dram_cycles(chip: Chip, run_bytes: Array, runs: Array, written: float = 0.0) -> Array:
    """Return the cycles of DRAM that each of so many runs of consecutive bytes take together."""
    rate = chip.dram_bytes_per_cycle * chip.dram_efficiency(run_bytes, written)
    return np.asarray(chip.dram.burst(run_bytes, runs) / rate)


def _shared(block: Block, chip: Chip) -> tuple[float, dict[str, float]]:
    """Return the cycles of DRAM, and those of SRAM and of the links into rows: of their mean."""
    at = np.flatnonzero(MOVES[block.commands["op"]])
    moves = select(block.commands, at)
    data, runs = _tiles(moves, block)
    far = np.array([x.space == "dram" for x in block.operands])[moves["operand"]]
    near = ~far | (moves["op"] == Opcode.STAGE)
    dram = 0.0
    if far.any():
        written = float(data[far & (moves["op"] == Opcode.STORE)].sum()) / float(data[far].sum())
        length, of = np.unique(data[far] / runs[far], return_inverse=True)
        dram = float(dram_cycles(chip, length, np.bincount(of, runs[far]), written).sum())
    loaded = float(data[(moves["op"] == Opcode.LOAD) & (moves["cast"] != Cast.COL)].sum())
    sram = float(data[near].sum()) / chip.sram_bytes_per_cycle
    return dram, {"sram": sram, "link": loaded / (chip.grid.rows * chip.noc.row_bytes_per_cycle)}


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
    move = MOVES[mine["op"]]
    busy[move] = chip.pe.dma.cost(*_tiles(mine[move], block))[0]
    far = np.array([x.space == "dram" for x in block.operands])[mine["operand"]] & move
    reach = chip.pe.dma.startup_cycles + chip.grid.cols * chip.noc.hop_cycles
    latency[move] = reach + chip.cycles(chip.sram.latency_s) * (mine["op"][move] != Opcode.STORE)
    if far.any():
        latency[far & (mine["op"] != Opcode.STORE)] = reach + chip.cycles(chip.dram.latency_s)
    elements = mine["rows"].astype(float) * mine["cols"]
    simd = np.isin(mine["op"], (Opcode.SIMD, Opcode.FOLD))
    passes = np.array([FUNCTIONS[f].passes for f in FUNCTION_NAMES])[np.where(simd, mine["fn"], 0)]
    passes = np.where(mine["op"] == Opcode.FOLD, 1, passes)
    width = np.array([s.dtype.bytes for s in block.slots])[np.maximum(mine["src0"], mine["dst"])]
    busy[simd] = chip.pe.simd.cost(elements, width, passes)[0][simd]
    latency[simd] = chip.pe.simd.startup_cycles
    add = mine["op"] == Opcode.REDUCE
    busy[add] = 4 * elements[add] / chip.pe.reduce.bytes_per_cycle
    latency[add] = chip.noc.hop_cycles
    _products(mine, block, chip, busy, latency)
    return busy, latency


def _products(mine: Array, block: Block, chip: Chip, busy: Array, latency: Array) -> None:
    at = np.flatnonzero(mine["op"] == Opcode.MATMUL)
    if not len(at):
        return
    m, k, n = (mine[name][at].astype(np.int64) for name in ("rows", "k", "cols"))
    kind = block.slots[int(mine["src0"][at[0]])].dtype
    if mine["flags"][at[0]] & VECTOR:
        busy[at], latency[at] = m * k * n / chip.pe.simd.macs_per_cycle(kind), chip.pe.simd.startup_cycles
        return
    busy[at] = chip.pe.matrix.busy(m, k, n, kind.name)
    latency[at] = chip.pe.matrix.latency(m, k, n, kind.name) - busy[at]


def _issue(mine: Array, chip: Chip) -> float:
    """Return the cycles of the core that issues more: one those that move data, one those that compute."""
    moving = np.count_nonzero(MOVES[mine["op"]])
    return max(moving, len(mine) - moving) * chip.pe.core.issue_cycles


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
