"""The slow truth beside the recurrence: commands in the order of time, not of the program.

An event queue takes the command that can start first; links, SRAM and DRAM serve in the order in which they
are asked. Prefetches, for which nothing waits, take what all others leave of DRAM and SRAM, one by one. It
obeys the same rules as `recurrence.recur` in all else, one command at a time in plain Python. Tests hold the
fast form to it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .recurrence import CHIP_WIDE, DRAINS, DRAM, FLIES, FROM_PEER, MOVES, SRAM, WAITS, Sharers

Array = np.ndarray[Any, Any]
Pes = range


@dataclass
class _Waits:
    """What a command waits for: (command, moment) pairs; `after` holds of the last bank of accumulators."""

    start: list[tuple[int, str]] = field(default_factory=list)
    after: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class _Served:
    """The moments of a command that has run, in cycles."""

    own: float  # its unit takes the next command
    first_read: float  # the first bank of what it reads is free
    done: float  # all that it reads is free
    first_written: float
    end: float


def in_order_of_time(commands: Array, on_dram: Array, grid: Sharers, flights: int) -> tuple[Array, Array]:
    """Return start and end [command], in cycles; a PE may have `flights` loads on their way."""
    return _Queue(commands, on_dram, grid, flights).run()


def dependencies(commands: Array, accumulator: Array) -> list[_Waits]:
    """Return what each of commands[n] waits for, read off the order of the program."""
    order = _Order(accumulator)
    return [order.follow(i, c) for i, c in enumerate(commands)]


def _written(c: Any) -> range:
    return Pes(int(c["first"]), int(c["last"]), int(c["step"]))


def _read(c: Any) -> list[tuple[int, int]]:
    """Return the slots, as (PE, slot), that a command reads besides the one that it writes."""
    return [(int(c["pe"]), int(c[name])) for name in ("src0", "src1", "src2") if c[name] >= 0]


class _Order:
    """Who last wrote and read each slot, filled each stage and took each unit, as commands go by in order."""

    def __init__(self, accumulator: Array) -> None:
        self.accumulator = accumulator
        self.writer: dict[tuple[int, int], int] = {}
        self.readers: dict[tuple[int, int], list[int]] = defaultdict(list)
        self.unit: dict[tuple[int, int], int] = {}
        self.filled: dict[int, int] = {}
        self.emptied: dict[int, list[int]] = defaultdict(list)

    def follow(self, i: int, c: Any) -> _Waits:
        """Return what command i waits for, and note what it does."""
        stage, traits = int(c["stage"]), int(c["traits"])
        wait = _Waits()
        if traits & CHIP_WIDE:
            if stage >= 0:
                wait.start += [(j, "done") for j in self.emptied.pop(stage, [])]
                self.filled[stage] = i
            return wait
        self._wait(c, wait)
        if traits & WAITS and stage >= 0:
            wait.start.append((self.filled[stage], "end"))
            self.emptied[stage].append(i)
        self._note(i, c)
        return wait

    def _wait(self, c: Any, wait: _Waits) -> None:
        """Wait for the command's unit and slots on all PEs that it writes, and for what it reads."""
        u, dst, traits = int(c["unit"]), int(c["dst"]), int(c["traits"])
        for q in _written(c):
            if (q, u) in self.unit:
                wait.start.append((self.unit[q, u], "done" if traits & DRAINS else "own"))
            if dst >= 0:
                self._overwrite((q, dst), wait)
        for slot in _read(c):
            self._have(slot, wait)
        if traits & FROM_PEER:
            for q in (int(c["pe"]), int(c["src_pe"])):
                self._have((q, dst), wait)

    def _note(self, i: int, c: Any) -> None:
        u, dst = int(c["unit"]), int(c["dst"])
        for q in _written(c):
            self.unit[q, u] = i
            if dst >= 0:
                self.writer[q, dst] = i
                self.readers[q, dst] = []
        for slot in _read(c):
            self.readers[slot].append(i)
        if c["traits"] & FROM_PEER:
            self.readers[int(c["src_pe"]), dst].append(i)

    def _overwrite(self, slot: tuple[int, int], wait: _Waits) -> None:
        """Wait until a slot may be written: nobody reads it any more, bank by bank where it has banks."""
        banked = bool(self.accumulator[slot[1]])
        for j in self.readers[slot]:
            wait.start.append((j, "first_read" if banked else "done"))
            if banked:
                wait.after.append((j, "done"))
        if not banked and slot in self.writer:
            wait.start.append((self.writer[slot], "end"))

    def _have(self, slot: tuple[int, int], wait: _Waits) -> None:
        """Wait until a slot is written, bank by bank where it has banks."""
        if slot in self.writer:
            banked = bool(self.accumulator[slot[1]])
            wait.start.append((self.writer[slot], "first_written" if banked else "end"))
            if banked:
                wait.after.append((self.writer[slot], "end"))


class _Queue:
    """Commands that wait, those that can start, and the resources that they share."""

    def __init__(self, commands: Array, on_dram: Array, grid: Sharers, flights: int) -> None:
        self.commands, self.on_dram, self.grid, self.flights = commands, on_dram, grid, flights
        self.waits = dependencies(commands, grid.accumulator)
        self.moments: dict[int, _Served] = {}
        self.ahead = (commands["traits"] & CHIP_WIDE > 0) & (commands["stage"] < 0)
        self.free = np.zeros(grid.shared)
        self.taken: dict[int, list[tuple[float, float]]] = {DRAM: [], SRAM: []}
        self.port: dict[int, float] = defaultdict(float)
        self.flying: dict[int, list[float]] = defaultdict(list)
        self.users: dict[int, list[int]] = defaultdict(list)
        self.open = np.zeros(len(commands), np.int64)
        for i, wait in enumerate(self.waits):
            before = {j for j, _ in (*wait.start, *wait.after)}
            self.open[i] = len(before)
            for j in before:
                self.users[j].append(i)

    def run(self) -> tuple[Array, Array]:
        """Return start and end, [command] each."""
        issued = self._issued()
        start, end = np.zeros(len(self.open)), np.zeros(len(self.open))
        heap = [(issued[i], i) for i in np.flatnonzero((self.open == 0) & ~self.ahead).tolist()]
        heapq.heapify(heap)
        while heap:
            t, i = heapq.heappop(heap)
            later = self._landed(i, t)
            if later > t:
                heapq.heappush(heap, (later, i))
                continue
            start[i], self.moments[i] = t, self._serve(i, t)
            end[i] = self.moments[i].end
            for j in self.users[i]:
                self.open[j] -= 1
                if not self.open[j]:
                    heapq.heappush(heap, (max(issued[j], self._latest(self.waits[j].start)), j))
        t = 0.0
        for i in np.flatnonzero(self.ahead).tolist():
            start[i], t = t, self._serve_ahead(i, t)
            end[i] = t + float(self.commands[i]["latency"])
        return start, end

    def _serve_ahead(self, i: int, t: float) -> float:
        """Return when what is left of DRAM and SRAM from t on has been enough for prefetch i."""
        served = t
        for r, work in ((DRAM, self.on_dram[i]), (SRAM, self.commands[i]["on_sram"])):
            if work > 0:
                served = max(served, _fill(self.taken[r], t, float(work)))
        return served

    def _latest(self, events: list[tuple[int, str]]) -> float:
        return max((getattr(self.moments[j], moment) for j, moment in events), default=0.0)

    def _issued(self) -> list[float]:
        """Return when each command has been issued: cores issue without waiting for anything."""
        at: dict[tuple[int, bool], float] = defaultdict(float)
        out = []
        for c in self.commands:
            if c["traits"] & CHIP_WIDE:
                out.append(0.0)
                continue
            core = int(c["pe"]), bool(c["traits"] & MOVES)
            at[core] += float(c["issue"])
            out.append(at[core])
        return out

    def _landed(self, i: int, t: float) -> float:
        """Return when a load finds room among those on their way, t where it does now."""
        if not self.commands[i]["traits"] & FLIES:
            return t
        for q in _written(self.commands[i]):
            self.flying[q] = [end for end in self.flying[q] if end > t]
            if len(self.flying[q]) >= self.flights:
                return min(self.flying[q])
        return t

    def _serve(self, i: int, t: float) -> _Served:
        """Let command i start at t on all that it shares, and return its moments."""
        c = self.commands[i]
        busy, latency = float(c["busy"]), float(c["latency"])
        share = busy * self.grid.bank_share
        own = max(t + busy, self._latest(self.waits[i].after) + share)
        served = own
        for r, work in ((DRAM, self.on_dram[i]), (SRAM, c["on_sram"]), (c["link"], c["on_link"])):
            if r >= 0 and work > 0:
                self.free[r] = max(self.free[r], t) + work
                served = max(served, float(self.free[r]))
                if r in self.taken:
                    self.taken[r].append((float(self.free[r] - work), float(self.free[r])))
        if c["traits"] & CHIP_WIDE:
            return _Served(served, served, served, served, served + latency)
        for q in _written(self.commands[i]):
            self.port[q] += float(c["local"])
            served = max(served, self.port[q])
        end = served + latency
        if c["traits"] & FLIES:
            for q in _written(self.commands[i]):
                self.flying[q].append(end)
        return _Served(own, t + share, served, t + share + latency, end)


def _fill(taken: list[tuple[float, float]], t: float, work: float) -> float:
    """Return when `work` is done that takes a resource from t on wherever it is not `taken`; book it there.

    `taken` are intervals in the order of time, none of which overlap.
    """
    left, at, booked = work, t, []
    for begin, end in taken:
        if begin > at and left > 0:
            booked.append((at, at + min(begin - at, left)))
            left -= min(begin - at, left)
        if left > 0:
            at = max(at, end)
    if left > 0:
        booked.append((at, at + left))
    taken[:] = sorted([*taken, *booked])
    return booked[-1][1]
