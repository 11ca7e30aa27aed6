"""What estimates of kernels share: how work that overlaps adds up, and chains of PEs that sum one tile.

An estimate lays a mapping's work out as shapes, asks the machine's units and ways what these take, and joins
the answers by a rule of its own. It has no rate and no latency of its own. A wrong one costs time, never a
wrong result; `tests/kernels/test_estimates.py` holds each kernel's to the timing reading within `BANDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.machine import ways
from mtia_emu.machine.chip import Chip

Array = np.ndarray[Any, Any]
Numbers = Array | float
RINGS = 2  # tiles of an operand that a PE holds, where one is loaded beside the work on another
# share of the work on resources that do not bound which still shows (estimates); in attention it is more, for
# within a panel its units wait for each other
OVERLAP_LOSS = {"product": 0.02, "attention": 0.05}


@dataclass(frozen=True)
class EstimateBand:
    """What an estimate is held to, as shares of the timed cycles.

    `spread` is the 10th, 50th and 90th percentile of 400 random calls, small ones as often as large ones
    (`tests/kernels/estimated.py`). Any call of their kinds is within `least` and `most`.
    """

    least: float
    most: float
    spread: tuple[float, float, float]


BANDS = {
    "product": EstimateBand(0.40, 1.60, (0.876, 1.010, 1.118)),
    "packed product": EstimateBand(0.45, 2.00, (0.917, 1.045, 1.199)),
    "attention": EstimateBand(0.30, 2.00, (0.925, 1.036, 1.142)),
    "bags": EstimateBand(0.75, 1.60, (0.982, 0.997, 1.080)),
    "rows": EstimateBand(0.70, 1.40, (1.000, 1.000, 1.029)),
    "pace": EstimateBand(0.45, 1.70, (0.952, 1.000, 1.314)),  # of rows in DRAM
}


def exposed(every: Any, most: Any, kernel: str = "product") -> Any:
    """Return the cycles of `every` resource together that are not hidden behind `most`, the busiest's."""
    return OVERLAP_LOSS[kernel] * (every - most)


def chain(parts: Numbers, bytes_: Numbers, chip: Chip) -> Array:
    """Return the cycles, in any shape, in which the last tile's sums pass along PEs that split k.

    A PE passes its sums on from the first bank of accumulators on; only the last one's are waited for whole.
    """
    way = ways.pass_on(bytes_, chip)
    hop = way.busy / chip.pe.reduce.banks + way.latency
    return np.where(np.asarray(parts) > 1, (np.asarray(parts) - 2) * hop + way.busy, 0.0)


@dataclass(frozen=True)
class Turn:
    """Cycles of a turn's loads, or stores, a tile each PE: of a port, of what PEs share, until arrival."""

    port: Array
    link: Array
    sram: Array
    dram: Array
    late: Array

    @property
    def shared(self) -> Array:
        """Return the cycles of the busiest resource that PEs share."""
        return np.maximum.reduce([self.link, self.sram, self.dram])


def pipelined(count: Array, turn: tuple[Turn, Turn], passed: Numbers, commands: int, chip: Chip) -> Array:
    """Return the cycles of `count` tiles that are loaded, worked on for `passed` cycles and stored, each [n].

    `turn` is what loads and stores take; no core issues more than `commands` commands a tile. A PE's own
    units or one shared resource set the pace. What is shared serves the loads of as many turns as PEs hold
    tiles of before it serves a store; a slot is loaded again when what reads it last is done.
    """
    come, go = turn
    beside, turns = np.minimum(count, chip.pes), np.ceil(count / chip.pes)
    full = count / beside  # turns, the last one as far as PEs have a tile in it
    own = np.maximum(np.maximum(go.port, passed), chip.pe.core.issue(commands))
    freed = np.where(np.asarray(passed) > 0, passed, go.port)
    again = (np.ceil(turns / RINGS) - 1) * (come.port + come.late + freed)
    done = come.late + passed
    last = np.maximum(come.port, come.shared) + done + go.port
    paths = [last + np.maximum((turns - 1) * own, again), turns * come.port + done + go.port]
    first = np.maximum(come.port, come.shared / beside) + done  # of the PE that is served first
    for loads, stores in ((come.link, 0.0), (0.0, go.link), (come.sram, go.sram), (come.dram, go.dram)):
        ahead = np.minimum(full, RINGS) * loads
        paths.append(full * loads + done + go.port)
        paths.append(np.maximum(ahead, first) + full * (loads + stores) - ahead)
    return np.asarray(chip.pe.core.issue(1) + np.maximum.reduce(paths) + go.late)
