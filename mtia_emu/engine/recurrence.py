"""The recurrence behind the timing reading: one pass over the commands of a block, in the order of issue.

A command starts when its core has issued it, its units are free, its slots are ready and the stage that it
reads is filled. Links, SRAM and DRAM serve by time, from window to window: a ledger says how far each window
of each resource is taken. All of it is compiled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..numerics import jitted

Array = np.ndarray[Any, Any]

# units of a PE, each with a queue of its own; the chip's DMA is one more, outside the PEs
LOAD_QUEUE, STORE_QUEUE, MATRIX, REDUCE, SIMD, CORE, CHIP_DMA = range(7)
UNITS = ("load", "store", "matrix", "reduce", "simd", "core", "chip dma")
# shared resources: the DRAM, the SRAM, then the links into each row, into each column, and out of each row
DRAM, SRAM, LINKS = 0, 1, 2
LOAD, REDUCTION = 0, 6  # as in `isa.Op`
WINDOW = 64.0  # cycles within which a shared resource serves commands in the order of the program; more where
MOST_WINDOWS = 1 << 15  # a block takes more windows than that


class Commands(NamedTuple):
    """Fields of each command; `touched` is the slots that it reads (three) and writes (one)."""

    op: Array
    cast: Array
    pe: Array
    src_pe: Array
    touched: Array
    stage: Array


class Costs(NamedTuple):
    """What each command takes, in cycles: of its unit, and of each shared resource."""

    unit: Array
    busy: Array
    latency: Array
    dram: Array
    sram: Array
    link: Array
    link_index: Array
    local: Array
    issue: Array


class State(NamedTuple):
    """When each thing is next free, in cycles, as the recurrence goes along."""

    written: Array  # [PE, slot]: when the slot was last written
    read: Array  # [PE, slot]: when the last read of the slot ends
    first_written: Array  # [PE, slot]: of accumulators, when the first bank was
    first_read: Array  # [PE, slot]: of accumulators, when the first bank has been read
    filled: Array  # [stage]: when the stage was filled
    emptied: Array  # [stage]: when the last load from the stage ends
    units: Array  # [PE, unit]
    flight: (
        Array  # [PE, n]: when each of the loads on their way is there; the next takes the place of the first
    )
    issued: Array  # [PE, core]: when a core has issued its last command: one moves data, one computes
    port: Array  # [PE]: cycles of local memory's port that have been used


class Grid(NamedTuple):
    rows: int
    cols: int
    shared: int  # how many shared resources there are
    bank_share: float  # a read of accumulators frees the first bank after this share of its time


class Ledger(NamedTuple):
    """What is booked in each window of each shared resource, in cycles, and the next one with room."""

    origin: Array  # [resource, window]: from where in the window on it is used
    used: Array  # [resource, window]: for how long
    following: Array  # [resource, window]
    last: Array  # [resource]: the end of all that is booked
    window: float  # cycles of a window


@jitted
def empty(resources: int, windows: int, window: float) -> Ledger:
    """Return a ledger in which nothing is booked."""
    following = np.zeros((resources, windows), np.int64)
    following[:] = np.arange(windows)
    origin = np.full((resources, windows), window)
    return Ledger(origin, np.zeros((resources, windows)), following, np.zeros(resources), window)


@jitted
def reaching(ledger: Ledger, until: float) -> Ledger:
    """Return the ledger with windows up to a time: more of them or, where those are too many, longer ones."""
    resources, windows = ledger.used.shape
    factor = 1
    while until / (ledger.window * factor) + 3 >= MOST_WINDOWS:
        factor *= 2
    most = int(until / (ledger.window * factor)) + 3
    if factor == 1 and most < windows:
        return ledger
    out = empty(resources, max(windows, min(2 * most, MOST_WINDOWS)), ledger.window * factor)
    for r in range(resources):
        out.last[r] = ledger.last[r]
        for w in range(windows):
            out.used[r, w // factor] += ledger.used[r, w]
            if ledger.used[r, w] > 0:
                begin = w % factor * ledger.window + ledger.origin[r, w]
                out.origin[r, w // factor] = min(out.origin[r, w // factor], begin)
    return out


@jitted
def serve(ledger: Ledger, r: int, t: float, busy: float, work: float) -> float:
    """Book `work` cycles of resource r from time t on and return when the last of them is done.

    A transfer that takes its own unit longer (`busy`) asks for its work evenly over that time. Within a
    window commands are served in the order of the program, from window to window by time.
    """
    origin, used, following = ledger.origin[r], ledger.used[r], ledger.following[r]
    window = ledger.window
    w, done = int(t / window), t
    last = int((t + busy) / window)  # of the windows over which the work is asked for
    rate = work / busy if busy > work else 1e9
    asked, left = 0.0, 0.0
    while asked < work or left > 1e-9:
        if w <= last and asked < work:
            until = min(work, rate * ((w + 1) * window - t)) if w < last else work
            left += until - asked
            asked = until
        first = min(origin[w], max(t - w * window, 0.0))
        begin = max(first + used[w], t - w * window)
        take = min(left, window - begin)
        if take > 0:
            origin[w] = first
            used[w] += take
            left -= take
            done = w * window + begin + take
            if first + used[w] >= window * (1 - 1e-9):
                following[w] = w + 1
        w += 1
        if asked >= work:  # full windows are passed over at once
            w = _open(following, w)
    ledger.last[r] = max(ledger.last[r], done)
    return done


@jitted
def _open(following: Array, w: int) -> int:
    """Return the first window from w on that has room, and shorten the way for the next search."""
    root = w
    while following[root] != root:
        root = following[root]
    while following[w] != root and w != root:
        following[w], w = root, following[w]
    return root


@jitted
def receivers(cast: int, p: int, grid: Grid) -> tuple[int, int, int]:
    """Return first, last (excluded) and step of the PEs that a command of PE p writes."""
    if cast == 1:
        first = p // grid.cols * grid.cols
        return first, first + grid.cols, 1
    if cast == 2:
        return p % grid.cols, grid.rows * grid.cols, grid.cols
    return (0, grid.rows * grid.cols, 1) if cast == 3 else (p, p + 1, 1)


@jitted
def _ready(
    c: Commands, cost: Costs, state: State, grid: Grid, accumulator: Array, i: int
) -> tuple[float, float]:
    """Return when command i can start, and when the last bank of accumulators that it needs is ready."""
    p, u, dst = c.pe[i], cost.unit[i], c.touched[i, 3]
    if u == CHIP_DMA:
        return state.emptied[c.stage[i]], 0.0
    core = 0 if u < MATRIX else 1  # one core drives the DMA, the other what computes
    state.issued[p, core] += cost.issue[i]
    t, after = state.issued[p, core], 0.0
    first, last, step = receivers(c.cast[i], p, grid)
    for q in range(first, last, step):
        t = max(t, state.units[q, u])
        if u == LOAD_QUEUE:
            t = max(t, state.flight[q].min())
        if dst >= 0 and accumulator[dst]:
            t, after = max(t, state.first_read[q, dst]), max(after, state.read[q, dst])
        elif dst >= 0:
            t = max(t, max(state.read[q, dst], state.written[q, dst]))
    for j in range(3):
        s = c.touched[i, j]
        if s >= 0 and accumulator[s]:
            t, after = max(t, state.first_written[p, s]), max(after, state.written[p, s])
        elif s >= 0:
            t = max(t, state.written[p, s])
    if c.op[i] == LOAD and c.stage[i] >= 0:
        t = max(t, state.filled[c.stage[i]])
    if c.op[i] == REDUCTION:
        for q in (p, c.src_pe[i]):
            t, after = max(t, state.first_written[q, dst]), max(after, state.written[q, dst])
    return t, after


@jitted
def _hold(
    c: Commands, cost: Costs, state: State, grid: Grid, i: int, t: float, own: float, done: float
) -> float:
    """Note until when command i holds what, given its start and two ends; return its end."""
    p, u, dst = c.pe[i], cost.unit[i], c.touched[i, 3]
    share = cost.busy[i] * grid.bank_share
    first, last, step = receivers(c.cast[i], p, grid)
    for q in range(first, last, step):  # ports of local memory must have had time for all work so far
        state.port[q] += cost.local[i]
        done = max(done, state.port[q])
    end = done + cost.latency[i]
    for q in range(first, last, step):
        state.units[q, u] = done if u == STORE_QUEUE else own
        if u == LOAD_QUEUE:
            state.flight[q, state.flight[q].argmin()] = end
        if dst >= 0:
            state.written[q, dst] = end
            state.first_written[q, dst] = t + share + cost.latency[i]
    for j in range(3):
        s = c.touched[i, j]
        if s >= 0:
            state.read[p, s] = max(state.read[p, s], done)
            state.first_read[p, s] = max(state.first_read[p, s], t + share)
    if c.op[i] == LOAD and c.stage[i] >= 0:
        state.emptied[c.stage[i]] = max(state.emptied[c.stage[i]], done)
    if c.op[i] == REDUCTION:
        q = c.src_pe[i]
        state.read[q, dst] = max(state.read[q, dst], done)
        state.first_read[q, dst] = max(state.first_read[q, dst], t + share)
    return end


@jitted
def recur(
    c: Commands, cost: Costs, state: State, grid: Grid, accumulator: Array, start: Array, end: Array
) -> None:
    """Fill `start` and `end`, in cycles, command by command.

    A transfer flows through all shared resources on its way at once: the slowest counts.
    """
    ledger = empty(grid.shared, 1024, WINDOW)
    for i in range(len(c.op)):
        t, after = _ready(c, cost, state, grid, accumulator, i)
        own = max(t + cost.busy[i], after + cost.busy[i] * grid.bank_share)
        done = own
        for kind in range(3):
            r, work = DRAM, cost.dram[i]
            if kind == 1:
                r, work = SRAM, cost.sram[i]
            elif kind == 2:
                r, work = cost.link_index[i], cost.link[i]
            if r >= 0 and work > 0:
                ledger = reaching(ledger, max(t + cost.busy[i], ledger.last[r]) + work)
                done = max(done, serve(ledger, r, t, cost.busy[i], work))
        start[i] = t
        if cost.unit[i] == CHIP_DMA:
            end[i] = done + cost.latency[i]
            state.filled[c.stage[i]] = end[i]
        else:
            end[i] = _hold(c, cost, state, grid, i, t, own, done)
