"""How long a block keeps DRAM and all else busy, estimated from its commands by their own rules.

One PE stands for all: of those that store most, the one that stores last. What PEs share is counted over all
of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip
from mtia_emu.program.commands import batches, table_of
from mtia_emu.program.events import Events
from mtia_emu.program.isa import Block, Cast, Opcode, select

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
    mine = _commands_of(block, chip, _busiest(select(block.commands, stores)))
    busy, latency = _costs(mine, block, chip)
    unit = UNIT[mine["op"]]
    own = {name: float(busy[unit == i].sum()) for i, name in enumerate(UNITS)}
    own["simd"] += float(latency[unit == 4].sum())  # most passes take what the one before gives
    own["issue"] = _issue(mine, chip)
    cycles = shared | own
    bound = max(cycles, key=lambda name: cycles[name])
    other = cycles[bound]
    edge = _edge(mine, busy, latency, "dram" if dram > other else bound)
    return Pace(dram, other, edge + float(chip.pe.core.issue(1)))  # the first command begins when issued


def _counted(commands: Array, block: Block, chip: Chip) -> Events:
    """Return what commands of a block do, [command], in the order given."""
    ev = Events.zeros(len(commands))
    for kind, batch in batches(block, chip, commands):
        kind.count(batch, ev)
    return ev


def _shared(block: Block, chip: Chip) -> tuple[float, dict[str, float]]:
    """Return the cycles of DRAM, and those of SRAM and of the links into rows: of their mean."""
    moves = select(block.commands, np.flatnonzero(MOVES[block.commands["op"]]))
    ev = _counted(moves, block, chip)
    moved, dram = ev.dram_read_bytes + ev.dram_write_bytes, 0.0
    if moved.any():
        written = float(ev.dram_write_bytes.sum()) / float(moved.sum())
        length, of = np.unique(ev.run_bytes[moved > 0], return_inverse=True)
        dram = float(chip.dram_cycles(np.bincount(of, moved[moved > 0]), length, written).sum())
    loaded = float(ev.noc_bytes[(moves["op"] == Opcode.LOAD) & (moves["cast"] != Cast.COL)].sum())
    links, _ = chip.noc.cost(loaded, False, 0)
    sram = chip.sram_cycles((ev.sram_read_bytes + ev.sram_write_bytes).sum())
    return dram, {"sram": float(sram), "link": float(links) / chip.grid.rows}


def _busiest(stores: Array) -> int:
    """Return the PE that stores most elements by records [store]; of several, the one that stores last."""
    pe = stores["pe"].astype(np.int64)
    work = np.bincount(pe, stores["rows"].astype(float) * stores["cols"])[pe]
    return int(pe[work == work.max()][-1])


def _commands_of(block: Block, chip: Chip, pe: int) -> Array:
    """Return the commands [mine] of a PE and those that load into it, in their order."""
    at, cast, wide = block.commands["pe"], block.commands["cast"], chip.grid.cols
    mine = (at == pe) | (cast == Cast.ALL)
    mine |= (cast == Cast.ROW) & (at // wide == pe // wide) | (cast == Cast.COL) & (at % wide == pe % wide)
    return select(block.commands, np.flatnonzero(mine & (block.commands["op"] != Opcode.STAGE)))


def _costs(mine: Array, block: Block, chip: Chip) -> tuple[Array, Array]:
    """Return cycles [mine] that commands take their units, and those until their results are there."""
    ev, busy, latency = _counted(mine, block, chip), np.zeros(len(mine)), np.zeros(len(mine))
    for kind, batch in batches(block, chip, mine):
        cost = kind.cost(batch, ev)
        busy[batch.at], latency[batch.at] = cost.busy, cost.latency
    return busy, latency


def _issue(mine: Array, chip: Chip) -> float:
    """Return the cycles of the core that issues more of commands [mine]: one moves data, one computes."""
    moving = int(np.count_nonzero(MOVES[mine["op"]]))
    return float(chip.pe.core.issue(max(moving, len(mine) - moving)))


def _edge(mine: Array, busy: Array, latency: Array, bound: str) -> float:
    """Return the cycles before the busiest resource begins and after it ends, of arrays [mine].

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
    """Return the cycles that what depends on the first of commands [tail] takes after it.

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
