"""The cycles that mappings of a product are estimated to take, for all candidates of a space at once.

The estimate knows the same units as the timing reading, and the slowest resource sets the pace. The pace
changes: where panels stay in local memory, the first of the tiles that share them waits for both operands,
the others for one. What no buffer hides (the way of the first panels and of the last tile, refills of slots
that are still read) comes on top.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip

from ..estimates import exposed
from .demand import Demand, DramUse

Array = np.ndarray[Any, Any]
# Estimate: what a product reads from DRAM again, beyond a tenth of what it must, costs half its time, even if
# other work hides it: weights of later kernels could have been read then (`prefetch`).
REREAD_COST, REREAD_SLACK = 0.5, 1.1
COMMAND_COST = 4e-2  # cycles that one command more must save: fewer commands are timed sooner


def estimate(demand: Demand, chip: Chip) -> Array:
    """Return the estimated cycles of every candidate, in the space's shape; infinite if it does not fit.

    Of the chip only DRAM is asked about: all else is in the demand.
    """
    d, s, most = demand, demand.s, demand.most
    dram = _dram_cycles(demand, chip)
    total = s.tiles * dram.each + d.outers * dram.held + dram.spread
    array = d.spread["array"]
    moved, head = np.maximum(most.moved, total), np.maximum(most.first, dram.first)
    edge = np.maximum(moved + s.panel_cycles, array + head) - np.maximum(moved, array)
    lost = exposed(most.every + total, np.maximum(most.total, total))
    cycles = d.reach + _paced(demand, dram, total) + lost + edge + d.tail
    again = np.maximum(total - REREAD_SLACK * np.where(s.fits, total, np.inf).min(), 0)
    return np.where(s.fits, cycles + d.commands * COMMAND_COST + again * REREAD_COST, np.inf)


def _dram_cycles(demand: Demand, chip: Chip) -> DramUse:
    """Return what is asked of DRAM, in cycles."""
    each = held = first = spread = slab = np.zeros(1)
    for x in demand.dram:
        rate = chip.dram_rate(x.runs, demand.written)
        each, held = each + x.each / rate, held + x.held / rate
        first, spread, slab = first + x.first / rate, spread + x.spread / rate, slab + x.slab / rate
    return DramUse(np.zeros(1), each, held, first, spread, slab)


def _paced(d: Demand, dram: DramUse, total: Array) -> Array:
    """Return the cycles from the first panel's arrival to the last product, in the space's shape.

    A ring of inner panels runs ahead and evens the pace out over as many steps as it has slots. Held panels
    of a single set are asked for when the product that last reads their slot is done. Most tiles that share
    the last panels that are held come after these are there; all of them, after the last panels are staged.
    All outer tiles but the first come after the first slab of the inner operand and what DRAM does beside.

    An example: 6 tiles share held panels three by three (`outers` = 2). A tile takes the array 100 cycles and
    the port 40; each set of held panels takes the port 180 more. Both resources then have 600 cycles to do,
    but they cannot do them at once: the first tile of a set waits 40 + 180 = 220 (`opening`). With a deep
    ring the port loads ahead while the array works, so only the first opening shows: 220 + 500 of the array
    = 720 (`even`). With no ring both openings show: 2 * 220 + 4 * 100 = 840 (`phased`). A ring of 6 slots
    holds half of the 12 inner panels of a set, so half of each: 780. If a slot of the held panels is free
    for its refill only 60 cycles after the second set begins, that set comes at 60 + 180, which is 20 later
    than its opening allows for (`late`): 800.
    """
    s, most = d.s, d.most
    tile = dram.each + dram.spread / s.tiles
    opening = np.maximum(most.opening, tile + dram.held)
    even = np.maximum(most.rest, total - (tile + dram.held)) + opening
    phased = d.outers * opening + (s.tiles - d.outers) * np.maximum(most.tile, tile)
    ahead = np.minimum(s.depth / (s.local["k"] * s.inner_count), 1)
    refill = d.refill + np.maximum(most.held, dram.held)
    late = np.maximum(refill - opening, 0) * (d.outers - 1)
    mixed = ahead * even + (1 - ahead) * phased + late
    arrived = np.maximum(d.outers * most.held, d.outers * dram.held + dram.spread)
    inner = (s.inner_count - 1) * most.tile
    last = np.where(s.hold > 0, arrived + inner, 0)
    last = np.where(s.staged, np.maximum(last, dram.spread + most.opening + inner), last)
    paced = np.maximum(np.where((s.rings == 1) & (s.hold > 0), mixed, even), last)
    beside = total - dram.slab  # of which the first outer tile has its share
    after = np.maximum(most.opening + most.rest, beside) * (1 - 1 / d.outers)
    return np.maximum(paced, np.where(dram.slab > 0, dram.slab + beside / d.outers + after, 0))
