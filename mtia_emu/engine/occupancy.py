"""How busy a block keeps each resource of the chip: sums over its commands, one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..numerics import jitted
from ..program.commands import QUEUES, RESOURCES
from ..program.isa import Cast
from .recurrence import CHIP_WIDE, LINKS, MOVES

Array = np.ndarray[Any, Any]
# before a PE's units: its local memory, the core that issues what moves data, the one that issues the rest
LOCAL, MOVER, COMPUTER, UNIT = range(4)


def occupancy(commands: Array, low: Array, cols: int) -> dict[str, float]:
    """Return the cycles of each resource's busiest instance but DRAM, from `recurrence.COMMAND`s.

    A multicast is work of each PE that receives it. `low` is the first row of each row's band.
    """
    rows = len(low)
    pes, links = np.zeros((UNIT + len(QUEUES), len(Cast), rows * cols)), np.zeros(LINKS + 2 * rows + cols)
    sram = _sum(commands, pes, links)
    own, by_row, by_col, by_all = pes.reshape(-1, len(Cast), rows, cols).transpose(1, 0, 2, 3)
    each = own + by_row[:, :, :1] + by_col[:, low] + by_all[:, low, :1]
    most = each.max(axis=(1, 2)).tolist()
    units = {
        name: max(most[UNIT + number] for number, queue in enumerate(QUEUES) if queue.resource == name)
        for name in RESOURCES
    }
    shared = {"local": most[LOCAL], "noc": float(links.max()), "sram": sram}
    return units | {"issue": max(most[MOVER], most[COMPUTER])} | shared


@jitted
def _sum(commands: Array, pes: Array, links: Array) -> float:
    """Add commands to pes[resource, cast, first PE that is written] and to links; return SRAM's cycles."""
    sram = 0.0
    for i in range(len(commands)):
        c = commands[i]
        sram += c["on_sram"]
        if c["link"] >= 0:
            links[c["link"]] += c["on_link"]
        traits, cast = c["traits"], c["cast"]
        if traits & CHIP_WIDE:
            continue
        at = c["first"]
        pes[UNIT + c["unit"], cast, at] += c["busy"]
        pes[LOCAL, cast, at] += c["local"]
        pes[MOVER if traits & MOVES else COMPUTER, 0, c["pe"]] += c["issue"]
    return sram
