"""How busy a block keeps each resource of the chip: sums over its commands, one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..numerics import jitted
from ..program.isa import Cast
from .recurrence import CHIP_DMA, CORE, LINKS, LOAD_QUEUE, MATRIX, REDUCE, SIMD, STORE_QUEUE, UNITS

Array = np.ndarray[Any, Any]
# behind a PE's units: its local memory, the core that issues what moves data, the one that issues the rest
LOCAL, MOVER, COMPUTER = len(UNITS), len(UNITS) + 1, len(UNITS) + 2


def occupancy(commands: Array, low: Array, cols: int) -> dict[str, float]:
    """Return the cycles of each resource's busiest instance but DRAM, from `recurrence.COMMAND`s.

    A multicast is work of each PE that receives it. `low` is the first row of each row's band.
    """
    rows = len(low)
    pes, links = np.zeros((COMPUTER + 1, len(Cast), rows * cols)), np.zeros(LINKS + 2 * rows + cols)
    sram = _sum(commands, pes, links)
    own, by_row, by_col, by_all = pes.reshape(-1, len(Cast), rows, cols).transpose(1, 0, 2, 3)
    each = own + by_row[:, :, :1] + by_col[:, low] + by_all[:, low, :1]
    most = each.max(axis=(1, 2)).tolist()
    return {
        "array": most[MATRIX],
        "reduce": most[REDUCE],
        "simd": most[SIMD],
        "dma": max(most[LOAD_QUEUE], most[STORE_QUEUE]),
        "core": most[CORE],
        "issue": max(most[MOVER], most[COMPUTER]),
        "local": most[LOCAL],
        "noc": float(links.max()),
        "sram": sram,
    }


@jitted
def _sum(commands: Array, pes: Array, links: Array) -> float:
    """Add commands to pes[resource, cast, first PE that is written] and to links; return SRAM's cycles."""
    sram = 0.0
    for i in range(len(commands)):
        c = commands[i]
        sram += c["on_sram"]
        if c["link"] >= 0:
            links[c["link"]] += c["on_link"]
        u, p, cast = c["unit"], c["pe"], c["cast"]
        if u == CHIP_DMA:
            continue
        at = c["first"]
        pes[u, cast, at] += c["busy"]
        pes[LOCAL, cast, at] += c["local"]
        pes[MOVER if u < MATRIX else COMPUTER, 0, p] += c["issue"]
    return sram
