"""One DRAM channel, bank by bank: a first-ready, first-come-first-served controller in order of time.

It knows four commands and how many cycles must lie between any two of them, in the same bank, in the same
bank group and anywhere in the channel. Rows are left open. The command that can be issued first is issued; of
several, one that carries data goes first, then that of the oldest request. A row is not closed while a
request in the queue still hits it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...numerics import jitted

Array = np.ndarray[Any, Any]

ACTIVATE, PRECHARGE, READ, WRITE = range(4)
BANK, GROUP, CHANNEL = range(3)
FOREVER = 1 << 60


@dataclass(frozen=True)
class TimingRules:
    """What the controller must obey, in cycles of the command clock.

    `gap[scope, before, after]` are the cycles from one command to the next, -1 where there is no rule;
    `group` is the bank group of each bank; at most four activates fall within `four_activates`. Every
    `refresh_every` cycles (0: never) the next of `refresh_sets` equal sets of banks is closed and refreshed
    for `refresh` cycles; bank b is in set b modulo the number of sets. `queue` requests are looked at.
    """

    gap: Array
    group: Array
    four_activates: int
    refresh_every: int
    refresh: int
    refresh_sets: int
    queue: int


@dataclass(frozen=True)
class Served:
    """What became of each request, in order of arrival, and what it took.

    `issue[n]` is the cycle of the read or write command, -1 for a request that was not served before the
    horizon; `outcome[n]` is 0 where the row was open, 1 where the bank was closed, 2 where another row had to
    be closed first. `log[i]` has the cycle, the bank and the command of the first commands, if asked for.
    """

    issue: Array
    outcome: Array
    activates: int
    refreshes: int
    log: Array

    @property
    def hits(self) -> int:
        """Return the requests that found their row open."""
        return int(((self.outcome == 0) & (self.issue >= 0)).sum())

    @property
    def misses(self) -> int:
        """Return the requests that found their bank closed."""
        return int(((self.outcome == 1) & (self.issue >= 0)).sum())

    @property
    def conflicts(self) -> int:
        """Return the requests that found another row open."""
        return int(((self.outcome == 2) & (self.issue >= 0)).sum())


def serve(
    rules: TimingRules,
    bank: Array,
    row: Array,
    write: Array,
    arrival: Array | None = None,
    *,
    horizon: int = FOREVER,
    logged: int = 0,
) -> Served:
    """Return when the requests bank[n], row[n], write[n] (a burst each) are served, none before `arrival[n]`.

    `arrival` is in cycles and must not fall; without it all are there from the start. No command is issued in
    or after cycle `horizon`. The first `logged` commands are logged.
    """
    n = len(bank)
    issue, outcome, totals = np.full(n, -1, np.int64), np.zeros(n, np.int8), np.zeros(3, np.int64)
    at = np.zeros(n, np.int64) if arrival is None else arrival
    work = tuple(_whole(x) for x in (bank, row, np.where(write, WRITE, READ), at))
    refresh = (rules.refresh_every, rules.refresh, rules.refresh_sets)
    limits = (rules.four_activates, *refresh, rules.queue, horizon)
    log = np.zeros((logged, 3), np.int64)
    _serve(work, _whole(rules.gap), _whole(rules.group), limits, issue, outcome, totals, log)
    return Served(issue, outcome, int(totals[0]), int(totals[1]), log[: totals[2]])


def _whole(x: Any) -> Array:
    return np.ascontiguousarray(x, dtype=np.int64)


@jitted
def _serve(
    work: Any,
    gap: Array,
    group: Array,
    limits: Any,
    issue: Array,
    outcome: Array,
    totals: Array,
    log: Array,
) -> None:
    """Fill all from `issue` on; `totals` counts activates, refreshes and lines of the log.

    Numbers stand for commands and scopes.
    """
    bank, row, command, arrival = work
    four, every, refresh, sets, depth, horizon = limits
    n, banks = len(bank), len(group)
    channel = banks + group.max() + 1
    ready = np.zeros((channel + 1, 4), np.int64)  # of each command: by bank, then by group, then anywhere
    opened, first, last_four = np.full(banks, -1), np.full((banks, 4), -1), np.full(4, -four)
    ends, following = np.full((banks, 2), -1), np.full(n, -1)  # the queue: a list for each bank, by age
    waiting, taken, now, due = 0, 0, 0, every if every > 0 else horizon
    while taken < n or waiting > 0:
        while waiting < depth and taken < n:
            _enter(taken, bank[taken], ends, following)
            _join(taken, bank, row, command, opened, first)
            waiting, taken = waiting + 1, taken + 1
        best, i, c = 2 * horizon, -1, 0  # twice the time, plus one for a command without data
        activate = last_four[totals[0] % 4] + four
        for b in range(banks):
            low, high = (0, 1) if opened[b] < 0 else (1, 4)  # a closed bank can only be opened
            for x in range(low, high):
                j = first[b, x]
                if j < 0:
                    continue
                t = max(now, arrival[j], ready[b, x], ready[banks + group[b], x], ready[channel, x])
                t = 2 * (max(t, activate) if x == 0 else t) + (x < 2)
                if t < best or (t == best and j < i):
                    best, i, c = t, j, x
        now = min(best // 2, due)
        if now >= horizon:
            break
        if now == due:
            start = due
            for b in range(totals[1] % sets, banks, sets):
                closed = max(due, ready[b, 1]) + gap[0, 1, 0] if opened[b] >= 0 else 0
                start = max(start, closed, ready[b, 0])
            for b in range(totals[1] % sets, banks, sets):
                opened[b], ready[b, 0] = -1, start + refresh
                _line_up(b, ends, following, bank, row, command, opened, first)
            totals[1], due = totals[1] + 1, due + every
            continue
        b = bank[i]
        if totals[2] < len(log):
            log[totals[2], 0], log[totals[2], 1], log[totals[2], 2] = now, b, c
            totals[2] += 1
        for x in range(4):
            ready[b, x] = max(ready[b, x], now + gap[0, c, x])
            ready[banks + group[b], x] = max(ready[banks + group[b], x], now + gap[1, c, x])
            ready[channel, x] = max(ready[channel, x], now + gap[2, c, x])
        if c == 0:
            opened[b], outcome[i] = row[i], max(outcome[i], 1)
            last_four[totals[0] % 4], totals[0] = now, totals[0] + 1
        elif c == 1:
            opened[b], outcome[i] = -1, 2
        else:
            issue[i], waiting = now, waiting - 1
            _leave(i, b, ends, following)
        _line_up(b, ends, following, bank, row, command, opened, first)


@jitted
def _enter(i: int, b: int, ends: Array, following: Array) -> None:
    """Put a request behind those that wait for its bank."""
    if ends[b, 0] < 0:
        ends[b, 0] = i
    else:
        following[ends[b, 1]] = i
    ends[b, 1] = i


@jitted
def _leave(i: int, b: int, ends: Array, following: Array) -> None:
    """Take a request out of those that wait for its bank."""
    before, at = -1, ends[b, 0]
    while at != i:
        before, at = at, following[at]
    if before < 0:
        ends[b, 0] = following[i]
    else:
        following[before] = following[i]
    if ends[b, 1] == i:
        ends[b, 1] = before


@jitted
def _line_up(
    b: int,
    ends: Array,
    following: Array,
    bank: Array,
    row: Array,
    command: Array,
    opened: Array,
    first: Array,
) -> None:
    """Fill first[b]: of each command the oldest request that waits for it at bank b, -1 for none."""
    for x in range(4):
        first[b, x] = -1
    at = ends[b, 0]
    while at >= 0:
        _join(at, bank, row, command, opened, first)
        at = following[at]


@jitted
def _join(i: int, bank: Array, row: Array, command: Array, opened: Array, first: Array) -> None:
    """Let a request wait for its next command, behind older ones; a row that one hits is not closed."""
    b = bank[i]
    x = command[i] if opened[b] == row[i] else 0 if opened[b] < 0 else 1
    hit = first[b, 2] >= 0 or first[b, 3] >= 0
    if x >= 2:
        first[b, 1] = -1
    if first[b, x] < 0 and not (x == 1 and hit):
        first[b, x] = i
