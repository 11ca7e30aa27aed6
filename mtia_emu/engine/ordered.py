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
class _Done:
    """The moments of a command that has run, in cycles."""

    own: float  # its unit takes the next command
    first_read: float  # the first bank of what it reads is free
    done: float  # all that it reads is free
    first_written: float
    end: float


def in_order_of_time(
    commands: Array, on_dram: Array, grid: Sharers, accumulator: Array, flights: int
) -> tuple[Array, Array]:
    """Return start and end of each command, in cycles; a PE may have `flights` loads on their way."""
    queue = _Queue(commands, on_dram, grid, accumulator, flights)
    return queue.run()


def dependencies(commands: Array, accumulator: Array) -> list[_Waits]:
    """Return what each command waits for, read off the order of the program."""
    writer: dict[tuple[int, int], int] = {}
    readers: dict[tuple[int, int], list[int]] = defaultdict(list)
    unit: dict[tuple[int, int], int] = {}
    filled: dict[int, int] = {}
    emptied: dict[int, list[int]] = defaultdict(list)
    out = []
    for i, c in enumerate(commands):
        p, u, dst, stage = (int(c[name]) for name in ("pe", "unit", "dst", "stage"))
        wait, traits = _Waits(), int(c["traits"])
        out.append(wait)
        if traits & CHIP_WIDE:
            if stage >= 0:
                wait.start += [(j, "done") for j in emptied.pop(stage, [])]
                filled[stage] = i
            continue
        mine = _written(c)
        sources = [int(c[name]) for name in ("src0", "src1", "src2") if c[name] >= 0]
        for q in mine:
            if (q, u) in unit:
                wait.start.append((unit[q, u], "done" if traits & DRAINS else "own"))
            if dst >= 0:
                _writes(wait, writer, readers, (q, dst), bool(accumulator[dst]))
        for s in sources:
            _reads(wait, writer, (p, s), bool(accumulator[s]))
        if traits & FROM_PEER:
            for q in (p, int(c["src_pe"])):
                _reads(wait, writer, (q, dst), True)
        if traits & WAITS and stage >= 0:
            wait.start.append((filled[stage], "end"))
            emptied[stage].append(i)
        for q in mine:
            unit[q, u] = i
            if dst >= 0:
                writer[q, dst] = i
                readers[q, dst] = []
        for s in sources:
            readers[p, s].append(i)
        if traits & FROM_PEER:
            readers[int(c["src_pe"]), dst].append(i)
    return out


def _written(c: Any) -> range:
    return Pes(int(c["first"]), int(c["last"]), int(c["step"]))


def _writes(
    wait: _Waits,
    writer: dict[tuple[int, int], int],
    readers: dict[tuple[int, int], list[int]],
    slot: tuple[int, int],
    banked: bool,
) -> None:
    for j in readers[slot]:
        wait.start.append((j, "first_read" if banked else "done"))
        if banked:
            wait.after.append((j, "done"))
    if not banked and slot in writer:
        wait.start.append((writer[slot], "end"))


def _reads(wait: _Waits, writer: dict[tuple[int, int], int], slot: tuple[int, int], banked: bool) -> None:
    if slot in writer:
        wait.start.append((writer[slot], "first_written" if banked else "end"))
        if banked:
            wait.after.append((writer[slot], "end"))


class _Queue:
    """Commands that wait, those that can start, and the resources that they share."""

    def __init__(
        self, commands: Array, on_dram: Array, grid: Sharers, accumulator: Array, flights: int
    ) -> None:
        self.commands, self.on_dram, self.grid, self.flights = commands, on_dram, grid, flights
        self.waits = dependencies(commands, accumulator)
        self.moments: dict[int, _Done] = {}
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
        """Return start and end of each command."""
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
        done = t
        for r, work in ((DRAM, self.on_dram[i]), (SRAM, self.commands[i]["on_sram"])):
            if work > 0:
                done = max(done, _fill(self.taken[r], t, float(work)))
        return done

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

    def _serve(self, i: int, t: float) -> _Done:
        """Let command i start at t on all that it shares, and return its moments."""
        c = self.commands[i]
        busy, latency = float(c["busy"]), float(c["latency"])
        share = busy * self.grid.bank_share
        own = max(t + busy, self._latest(self.waits[i].after) + share)
        done = own
        for r, work in ((DRAM, self.on_dram[i]), (SRAM, c["on_sram"]), (c["link"], c["on_link"])):
            if r >= 0 and work > 0:
                self.free[r] = max(self.free[r], t) + work
                done = max(done, float(self.free[r]))
                if r in self.taken:
                    self.taken[r].append((float(self.free[r] - work), float(self.free[r])))
        if c["traits"] & CHIP_WIDE:
            return _Done(done, done, done, done, done + latency)
        for q in _written(self.commands[i]):
            self.port[q] += float(c["local"])
            done = max(done, self.port[q])
        end = done + latency
        if c["traits"] & FLIES:
            for q in _written(self.commands[i]):
                self.flying[q].append(end)
        return _Done(own, t + share, done, t + share + latency, end)


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
