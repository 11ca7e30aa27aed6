"""How busy a block keeps each resource of the chip: sums over its commands, one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..isa import Cast
from ..numerics import jitted
from .recurrence import CHIP_DMA, CORE, LINKS, LOAD_QUEUE, MATRIX, REDUCE, SIMD, STORE_QUEUE, UNITS

Array = np.ndarray[Any, Any]
# behind a PE's units: its local memory, the core that issues what moves data, the one that issues the rest
LOCAL, MOVER, COMPUTER = len(UNITS), len(UNITS) + 1, len(UNITS) + 2


def occupancy(commands: Array, rows: int, cols: int) -> dict[str, float]:
    """Return the cycles of each resource's busiest instance but DRAM, from `recurrence.COMMAND`s.

    A multicast is work of each PE that receives it.
    """
    pes, links = np.zeros((COMPUTER + 1, len(Cast), rows * cols)), np.zeros(LINKS + 2 * rows + cols)
    sram = _sum(commands, rows, cols, pes, links)
    own, by_row, by_col, by_all = pes.transpose(1, 0, 2)
    each = own.reshape(-1, rows, cols) + by_row[:, :rows, None] + by_col[:, None, :cols] + by_all[:, :1, None]
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
def _sum(commands: Array, rows: int, cols: int, pes: Array, links: Array) -> float:
    """Add commands to what they occupy: pes[resource, cast, PE or row or column], links; return SRAM's."""
    sram = 0.0
    for i in range(len(commands)):
        c = commands[i]
        sram += c["on_sram"]
        if c["link"] >= 0:
            links[c["link"]] += c["on_link"]
        u, p, cast = c["unit"], c["pe"], c["cast"]
        if u == CHIP_DMA:
            continue
        at = p if cast == 0 else p // cols if cast == 1 else p % cols if cast == 2 else 0
        pes[u, cast, at] += c["busy"]
        pes[LOCAL, cast, at] += c["local"]
        pes[MOVER if u < MATRIX else COMPUTER, 0, p] += c["issue"]
    return sram
