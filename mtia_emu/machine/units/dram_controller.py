"""One DRAM channel, bank by bank: a first-ready, first-come-first-served controller in order of time.

It knows four commands and how many cycles must lie between any two of them, in the same bank, in the same
bank group and anywhere in the channel. Rows are left open. The command that can be issued first is issued; of
several, one that carries data goes first, then that of the oldest request. A row is not closed while a
request in the queue still hits it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

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


class Waiting(NamedTuple):
    """The requests that the controller looks at, and the state of the banks.

    `bank`, `row` and `command` are of each request; `ends[bank]` the oldest and the youngest that wait,
    `following` the next younger one of the same bank; `first[bank, command]` the oldest that waits for a
    command; `opened[bank]` the row that is open. -1 stands for none.
    """

    bank: Array
    row: Array
    command: Array
    ends: Array
    following: Array
    first: Array
    opened: Array


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
    refresh = (rules.refresh_every, rules.refresh, rules.refresh_sets)
    limits = (rules.four_activates, *refresh, rules.queue, horizon)
    log, group = np.zeros((logged, 3), np.int64), _whole(rules.group)
    ready = np.zeros((len(group) + group.max() + 2, 4), np.int64)
    queue = _empty(_whole(bank), _whole(row), _whole(np.where(write, WRITE, READ)), len(group))
    _serve(queue, _whole(at), (_whole(rules.gap), group, ready), limits, (issue, outcome, totals, log))
    return Served(issue, outcome, int(totals[0]), int(totals[1]), log[: totals[2]])


def _whole(x: Any) -> Array:
    return np.ascontiguousarray(x, dtype=np.int64)


def _empty(bank: Array, row: Array, command: Array, banks: int) -> Waiting:
    """Return requests bank[n], row[n], command[n] of which none waits yet, and banks that are all closed."""
    none = np.full((banks, 2), -1), np.full(len(bank), -1), np.full((banks, 4), -1), np.full(banks, -1)
    return Waiting(bank, row, command, *none)


@jitted
def _serve(queue: Any, arrival: Array, timing: Any, limits: Any, out: Any) -> None:
    """Fill `out`: the cycle and the outcome of each request, totals, the log.

    `timing` has the gaps, each bank's group and, for each command, the cycle in which it is ready again: by
    bank, then by group, then anywhere. Numbers stand for commands and scopes.
    """
    gap, group, ready = timing
    four, every, _, _, depth, horizon = limits
    issue, outcome, totals, log = out
    n, last_four = len(arrival), np.full(4, -four)
    waiting, taken, now, due = 0, 0, 0, every if every > 0 else horizon
    while taken < n or waiting > 0:
        while waiting < depth and taken < n:
            _enter(taken, queue)
            _join(taken, queue)
            waiting, taken = waiting + 1, taken + 1
        best, i, c = _next(queue, arrival, group, ready, now, last_four[totals[0] % 4] + four)
        now = min(best, due)
        if now >= horizon:
            break
        if now == due:
            _refresh(due, queue, gap, ready, limits, totals)
            due += every
            continue
        b = queue.bank[i]
        if totals[2] < len(log):
            log[totals[2], 0], log[totals[2], 1], log[totals[2], 2] = now, b, c
            totals[2] += 1
        _hold(now, b, c, gap, group, ready)
        if c == 0:
            queue.opened[b], outcome[i] = queue.row[i], max(outcome[i], 1)
            last_four[totals[0] % 4], totals[0] = now, totals[0] + 1
        elif c == 1:
            queue.opened[b], outcome[i] = -1, 2
        else:
            issue[i], waiting = now, waiting - 1
            _leave(i, b, queue)
        _line_up(b, queue)


@jitted
def _next(queue: Any, arrival: Array, group: Array, ready: Array, now: int, activate: int) -> Any:
    """Return the command that can be issued first: its cycle, request and kind.

    `arrival` is [request], `group` [bank], `ready` [bank, then group, then channel; command]. Of several, one
    that carries data goes first, then that of the oldest request. No activate comes before
    cycle `activate`. Times are compared as twice the cycle, plus one for a command without data.
    """
    banks, channel = len(group), len(ready) - 1
    best, i, c = 2 * FOREVER, -1, 0
    for b in range(banks):
        low, high = (0, 1) if queue.opened[b] < 0 else (1, 4)  # a closed bank can only be opened
        for x in range(low, high):
            j = queue.first[b, x]
            if j < 0:
                continue
            t = max(now, arrival[j], ready[b, x], ready[banks + group[b], x], ready[channel, x])
            t = 2 * (max(t, activate) if x == 0 else t) + (x < 2)
            if t < best or (t == best and j < i):
                best, i, c = t, j, x
    return best // 2, i, c


@jitted
def _refresh(due: int, queue: Any, gap: Array, ready: Array, limits: Any, totals: Array) -> None:
    """Close and refresh the next set of banks, as soon after cycle `due` as all of them may be.

    `gap` is [scope, before, after], `ready` [bank, then group, then channel; command], `totals` [3].
    """
    _, _, refresh, sets, _, _ = limits
    banks, start = len(queue.opened), due
    for b in range(totals[1] % sets, banks, sets):
        closed = max(due, ready[b, 1]) + gap[0, 1, 0] if queue.opened[b] >= 0 else 0
        start = max(start, closed, ready[b, 0])
    for b in range(totals[1] % sets, banks, sets):
        queue.opened[b], ready[b, 0] = -1, start + refresh
        _line_up(b, queue)
    totals[1] += 1


@jitted
def _hold(now: int, b: int, c: int, gap: Array, group: Array, ready: Array) -> None:
    """Hold back what may not follow a command so soon: in its bank, in its group, anywhere.

    `gap` is [scope, before, after], `group` [bank], `ready` [bank, then group, then channel; command].
    """
    g, channel = len(group) + group[b], len(ready) - 1
    for x in range(4):
        ready[b, x] = max(ready[b, x], now + gap[0, c, x])
        ready[g, x] = max(ready[g, x], now + gap[1, c, x])
        ready[channel, x] = max(ready[channel, x], now + gap[2, c, x])


@jitted
def _enter(i: int, queue: Any) -> None:
    """Put a request behind those that wait for its bank."""
    b = queue.bank[i]
    if queue.ends[b, 0] < 0:
        queue.ends[b, 0] = i
    else:
        queue.following[queue.ends[b, 1]] = i
    queue.ends[b, 1] = i


@jitted
def _leave(i: int, b: int, queue: Any) -> None:
    """Take a request out of those that wait for its bank."""
    before, at = -1, queue.ends[b, 0]
    while at != i:
        before, at = at, queue.following[at]
    if before < 0:
        queue.ends[b, 0] = queue.following[i]
    else:
        queue.following[before] = queue.following[i]
    if queue.ends[b, 1] == i:
        queue.ends[b, 1] = before


@jitted
def _line_up(b: int, queue: Any) -> None:
    """Find anew, of each command, the oldest request that waits for it at a bank."""
    for x in range(4):
        queue.first[b, x] = -1
    at = queue.ends[b, 0]
    while at >= 0:
        _join(at, queue)
        at = queue.following[at]


@jitted
def _join(i: int, queue: Any) -> None:
    """Let a request wait for its next command, behind older ones; a row that one hits is not closed."""
    b = queue.bank[i]
    opened, first = queue.opened[b], queue.first
    x = queue.command[i] if opened == queue.row[i] else 0 if opened < 0 else 1
    hit = first[b, 2] >= 0 or first[b, 3] >= 0
    if x >= 2:
        first[b, 1] = -1
    if first[b, x] < 0 and not (x == 1 and hit):
        first[b, x] = i
