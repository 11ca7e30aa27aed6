"""What a block's events come to: sums that energy, roofs and reports ask for, each worked out once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ..program.commands import LOOKS_UP, QUEUES, READS_TILE, STAGES, STORES
from ..program.events import DTYPE_NAMES, Events
from ..program.isa import Block
from ..results.report import HitBytes

Array = np.ndarray[Any, Any]
_EVENTS_OF = {  # of resources that are no unit: what a command which needs one has
    "local": ("local_read_bytes", "local_write_bytes"),
    "noc": ("noc_bytes",),
    "sram": ("sram_read_bytes", "sram_write_bytes"),
    "dram": ("dram_read_bytes", "dram_write_bytes"),
    "issue": ("commands",),
}


class Totals:
    """The events of a block and their sums; no rate or price of a chip changes any of them."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self._sums: dict[str, float] = {}
        self._priced: dict[tuple[str, tuple[float, ...]], float] = {}
        self._users: dict[str, Array] = {}
        self._served: HitBytes | None = None

    def of(self, name: str) -> float:
        """Return the sum of one kind of event."""
        if name not in self._sums:
            self._sums[name] = float(getattr(self.events, name).sum())
        return self._sums[name]

    def priced(self, name: str, by: str, prices: tuple[float, ...]) -> float:
        """Return the sum of one kind of event, each at the price [dtype] of the number that `by` gives it."""
        key = name, prices
        if key not in self._priced:
            kinds = getattr(self.events, by).astype(int)
            self._priced[key] = float((getattr(self.events, name) * np.array(prices)[kinds]).sum())
        return self._priced[key]

    @cached_property
    def macs(self) -> Array:
        """Return the multiply-adds of each dtype, [dtype]."""
        ev = self.events
        return np.bincount(ev.mac_dtype.astype(int), weights=ev.macs, minlength=len(DTYPE_NAMES))

    @cached_property
    def dram_bytes(self) -> float:
        """Return the bytes that are read from DRAM and written to it."""
        return float((self.events.dram_read_bytes + self.events.dram_write_bytes).sum())

    @cached_property
    def sram_bytes(self) -> float:
        """Return the bytes that are read from SRAM and written to it."""
        return float((self.events.sram_read_bytes + self.events.sram_write_bytes).sum())

    @cached_property
    def runs(self) -> tuple[Array, Array]:
        """Return the lengths [n] of runs in DRAM in bytes, and the bytes [n] that are moved in such runs."""
        moved = self.events.dram_read_bytes + self.events.dram_write_bytes
        some = np.flatnonzero(moved)
        lengths, which = np.unique(self.events.run_bytes[some], return_inverse=True)
        return lengths, np.bincount(which, weights=moved[some])

    def users(self, resource: str, unit: Array) -> Array:
        """Return which commands need a resource, [command]; unit[command] is the queue that each takes."""
        if resource not in self._users:
            fields = _EVENTS_OF.get(resource)
            if fields is not None:
                found = np.logical_or.reduce([getattr(self.events, field) > 0 for field in fields])
            else:
                found = np.isin(unit, [i for i, queue in enumerate(QUEUES) if queue.resource == resource])
            self._users[resource] = found
        return self._users[resource]

    def served(self, block: Block) -> HitBytes:
        """Return what SRAM serves of the tiles of the block whose events these are, and of rows looked up."""
        if self._served is None:
            self._served = _served(block, self.events)
        return self._served


def _served(block: Block, ev: Events) -> HitBytes:
    """Return what SRAM serves of a block's tiles and of the rows that it looks up."""
    ops = block.commands["op"]
    tiles, rows = READS_TILE[ops] | STORES[ops], np.flatnonzero(LOOKS_UP[ops])
    near = ev.sram_read_bytes + ev.sram_write_bytes * (1 - STAGES[ops])  # a copy's target is no access
    far = np.array([x.space.off_chip for x in block.operands] or [False])[block.commands["operand"][rows]]
    asked = ev.rows[rows] * ev.run_bytes[rows]
    amounts = (ev.noc_bytes * tiles, near * tiles, asked, asked * np.where(far, 1.0 - ev.missed[rows], 1.0))
    return HitBytes(*(round(float(x.sum())) for x in amounts))
