"""Whether a timeline asks more of a resource than it can do, by the commands that a window holds whole.

A command's work for a resource is done between its start and its end, latency aside. So in any window the
commands that begin and end there must find room for all their work: what is served in the window is at least
that. (For one server the converse holds too: if every window holds its commands, some order serves them all.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mtia_emu.engine.events import events
from mtia_emu.engine.lookups import Lookups
from mtia_emu.engine.recurrence import CHIP_WIDE, MOVES
from mtia_emu.engine.timing import on_dram, timed, work
from mtia_emu.machine.chip import Chip
from mtia_emu.program.commands import QUEUES
from mtia_emu.program.isa import Block

Array = np.ndarray[Any, Any]
LENGTHS = (256, 1024, 4096, 65536)  # of windows, in cycles: several of the 64 in which order is not told


PORT = "local"  # of a PE's memory: what it did not do before, it may do later (docs/decisions/0039)


def worst(block: Block, chip: Chip, lookups: Lookups | None = None) -> dict[str, float]:
    """Return for each resource the most cycles that its work in a window is beyond the window's length."""
    counts = events(block, chip, lookups)
    known = work(block, chip, counts)
    times = timed(block, chip, counts, known)
    c = known.commands
    span = (times.start, times.end - c["latency"])
    found: dict[str, float] = {}
    for name, at, cycles in _asked(c, on_dram(chip, counts)):
        begin, end = (x[at] for x in span)
        if name == PORT:
            begin = np.zeros(len(begin))  # only windows from the block's start on
        found[name] = max(found.get(name, -np.inf), beyond(begin, end, cycles), since_start(end, cycles))
    return found


def beyond(begin: Array, end: Array, cycles: Array) -> float:
    """Return the most cycles by which work [n], done from begin[n] to end[n], is beyond a window's length."""
    most = -np.inf
    for length in LENGTHS:
        half = length / 2  # windows begin every half of their length
        first = np.maximum(np.ceil((end - length) / half - 1e-9), 0).astype(np.int64)
        last = np.floor(begin / half + 1e-9).astype(np.int64)
        inside = first <= last
        if inside.any():
            held = np.zeros(int(last[inside].max()) + 2)
            np.add.at(held, first[inside], cycles[inside])
            np.add.at(held, last[inside] + 1, -cycles[inside])
            most = max(most, float(np.cumsum(held).max()) - length)
    return most


def since_start(end: Array, cycles: Array) -> float:
    """Return the most cycles by which work [n], done by end[n], is beyond the time since a block's start."""
    order = np.argsort(end, kind="stable")
    return float((np.cumsum(cycles[order]) - end[order]).max(initial=-np.inf))


def _asked(c: Array, dram: Array) -> Iterator[tuple[str, Array, Array]]:
    """Yield resources, one instance at a time: the name, the commands [n] that ask it, their cycles [n]."""
    yield from (("dram", np.flatnonzero(dram), dram[dram > 0]), ("sram", np.arange(len(c)), c["on_sram"]))
    for link in np.unique(c["link"][c["link"] >= 0]):
        at = np.flatnonzero(c["link"] == link)
        yield "noc", at, c["on_link"][at]
    mine = np.flatnonzero(c["traits"] & CHIP_WIDE == 0)
    for pe in range(int(c["last"].max(initial=0))):
        fed = mine[_feeds(c[mine], pe)]
        for unit in np.unique(c["unit"][fed]):
            at = fed[c["unit"][fed] == unit]
            yield QUEUES[unit].name, at, c["busy"][at]
        yield "local", fed, c["local"][fed]
        own = mine[c["pe"][mine] == pe]
        for moves in (False, True):
            at = own[(c["traits"][own] & MOVES > 0) == moves]
            yield "issue", at, c["issue"][at]


def _feeds(c: Array, pe: int) -> Array:
    """Return which commands [n] write a PE, or are its own."""
    step = np.maximum(c["step"], 1)
    return (c["first"] <= pe) & (pe < c["last"]) & ((pe - c["first"]) % step == 0)
