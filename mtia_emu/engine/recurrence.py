"""The recurrence behind the timing reading: one pass over the commands of a block, in the order of issue.

A command starts when its core has issued it, its units are free, its slots are ready and the stage that it
reads is filled. Links, SRAM and DRAM serve by time, from window to window: a ledger says how far each window
of each resource is taken. What goes through all commands is compiled, and counts no references.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..numerics import borrowing, jitted
from ..program.commands import QUEUES, table_of
from ..program.geometry import receivers

Array = np.ndarray[Any, Any]

# shared resources: the DRAM, the SRAM, then the links, as `geometry` numbers them
DRAM, SRAM, LINKS = range(3)
# what the recurrence asks of a command, as bits: its queue is the chip's, is issued to by the core that moves
# data, has a limit of commands on their way, drains before the next; it waits for a stage, reads a peer
CHIP_WIDE, MOVES, FLIES, DRAINS, WAITS, FROM_PEER = (1 << bit for bit in range(6))
QUEUE_TRAITS = np.array(
    [CHIP_WIDE * q.chip_wide | MOVES * q.moves | FLIES * q.flies | DRAINS * q.drains for q in QUEUES],
    np.uint8,
)
KIND_TRAITS = table_of(lambda k: WAITS * k.waits_for_stage | FROM_PEER * k.from_peer).astype(np.uint8)
FILLED, EMPTIED = 0, 1  # of a stage: when it was filled, and when the last load from it ends
# Of what has no stage, prefetches, EMPTIED (behind all stages) is when DRAM and SRAM are done with the last.
ISSUED, PORT, UNIT = 0, 2, 3  # of a PE, the last its first unit: see `State`
WINDOW = 64.0  # cycles within which a shared resource serves commands in the order of the program; more where
MOST_WINDOWS = 1 << 15  # a block takes more windows than that
LEAST_WINDOWS, SPARE = 1024, 1.25  # of a ledger when it is new: some, and a share more than what is known
GROWTH = 4  # times as many windows as are needed, so that there are seldom too few


# a command: what it touches (-1: nothing), and what it takes, in cycles, of its unit and of what is shared
COMMAND = np.dtype(
    [(name, "i1") for name in ("cast", "unit")]
    + [("traits", "u1")]
    + [(name, "i2") for name in ("pe", "src_pe", "src0", "src1", "src2", "dst")]
    + [(name, "i4") for name in ("stage", "first", "last", "step")]  # the PEs written: see `receivers`
    + [("link", "i8")]  # which link, as a shared resource
    + [(name, "f8") for name in ("busy", "latency", "on_sram", "on_link", "local", "issue")],
    align=True,
)
# a slot of a PE: when it was last written, when the last read of it ends; of accumulators also the first bank
SLOT = np.dtype([(name, "f8") for name in ("written", "read", "first_written", "first_read")])
# a window of a shared resource: from where in it on it is used, for how long, how many full ones to pass over
WINDOW_USE = np.dtype([("origin", "f8"), ("used", "f8"), ("skip", "i8")])


class State(NamedTuple):
    """When each thing is next free, in cycles, as the recurrence goes along."""

    slots: Array  # [PE, slot]
    stages: Array  # [stage, FILLED or EMPTIED]
    pes: Array  # [PE, ...]: when each core has issued its last command (ISSUED: the one that moves data,
    # then the one that computes); cycles of local memory's port that have been used (PORT); from UNIT on
    # its units
    flights: Array  # [PE, n]: when each load on its way is there, a ring in that order
    head: Array  # [PE]: the first of the ring, whose place the next load takes


class Sharers(NamedTuple):
    shared: int  # how many shared resources there are
    bank_share: float  # a read of accumulators frees the first bank after this share of its time
    accumulator: Array  # [slot]: whether it is in an accumulator


def packed(
    commands: Array, bands: Array, cols: int, places: tuple[Array, ...], costs: tuple[Array, ...]
) -> Array:
    """Return the `COMMAND`s [n] of an `isa.Block`'s commands [n]; `costs` are the fp64 fields, in order.

    `places` are unit, traits and link; `bands` are the block's, row by row, on a grid of so many columns.
    """
    out = np.empty(len(commands), COMMAND)
    same = commands if commands.flags.writeable else commands.copy()  # machine code for one kind of array
    _pack(same, bands, cols, places, costs, out)
    return out


@jitted
def _pack(
    commands: Array,
    bands: Array,
    cols: int,
    places: tuple[Array, ...],
    costs: tuple[Array, ...],
    out: Array,
) -> None:
    """Fill out[n] in one pass: field by field each would pass memory again."""
    unit, traits, link = places
    busy, latency, on_sram, on_link, local, issue = costs
    for i in range(len(commands)):
        c, o = commands[i], out[i]
        o["traits"], o["cast"], o["unit"] = traits[i], c["cast"], unit[i]
        o["pe"], o["src_pe"], o["stage"], o["dst"] = c["pe"], c["src_pe"], c["stage"], c["dst"]
        o["src0"], o["src1"], o["src2"] = c["src0"], c["src1"], c["src2"]
        o["link"], o["busy"], o["latency"] = link[i], busy[i], latency[i]
        o["on_sram"], o["on_link"], o["local"], o["issue"] = on_sram[i], on_link[i], local[i], issue[i]
        row = c["pe"] // cols
        o["first"], o["last"], o["step"] = receivers(c["cast"], c["pe"], bands[row, 0], bands[row, 1], cols)


def fresh(pes: int, slots: int, stages: int, flights: int) -> State:
    """Return the state in which everything is free."""
    return State(
        np.zeros((pes, slots), SLOT),
        np.zeros((stages, 2)),
        np.zeros((pes, UNIT + len(QUEUES))),
        np.zeros((pes, flights)),
        np.zeros(pes, np.int64),
    )


@jitted
def reaching(ledger: Array, window: float, until: float) -> tuple[Array, float]:
    """Return ledger[window, resource] with windows up to a time, more or longer ones; and their cycles."""
    windows, resources = ledger.shape
    factor = 1
    while until / (window * factor) + 3 >= MOST_WINDOWS:
        factor *= 2
    if factor > 1:
        _merge(ledger, window, factor)
        window *= factor
    most = int(until / window) + 3
    if most <= windows:
        return ledger, window
    out = np.zeros((min(GROWTH * most, MOST_WINDOWS), resources), WINDOW_USE)
    out[:windows] = ledger
    return out, window


@jitted
def _merge(ledger: Array, window: float, factor: int) -> None:
    """Make each `factor` windows of ledger[window, resource] one, in place; none of them counts as full."""
    windows, resources = ledger.shape
    for w in range(windows):
        for r in range(resources):
            use = ledger[w, r]
            begin, used = w % factor * window + use["origin"], use["used"]
            use["origin"] = use["used"] = 0.0
            use["skip"] = 0
            many = ledger[w // factor, r]
            if used > 0:
                many["origin"] = min(many["origin"], begin) if many["used"] > 0 else begin
                many["used"] += used


@borrowing
def serve(ledger: Array, window: float, r: int, t: float, busy: float, work: float) -> float:
    """Book `work` cycles of resource r from time t on and return when the last of them is done.

    A transfer that takes its own unit longer (`busy`) asks for its work evenly over that time. Within a
    window commands are served in the order of the program, from window to window by time.

    An example, windows of 64 cycles, calls in this order. 50 cycles asked for at 10: window 0 is used from
    10 to 60, done at 60. 40 asked for at 20: 4 fit behind them, up to 64; window 0 counts as full, and 36 go
    to window 1, done at 100. 10 asked for at 5: window 0 is full, so they come behind those 36, done at 110,
    although 5 to 10 was idle. That is the error of one window at most that the order of the program costs.
    Had the second call not come, they would be served behind the first and window 0 used from 5 on.
    64 asked for at 128 by a unit that needs 128 cycles for it: half of window 2 and half of window 3, which
    leaves the other halves to others; done at 224, and the unit itself then ends at 256.
    """
    w, served = _open(ledger, r, int(t / window)), t
    last = int((t + busy) / window)  # of the windows over which the work is asked for
    rate = work / busy if busy > work else 1e9
    asked, left = 0.0, 0.0
    while asked < work or left > 1e-9:
        if asked < work:
            until = min(work, rate * ((w + 1) * window - t)) if w < last else work
            left += until - asked
            asked = until
        use, here = ledger[w, r], max(t - w * window, 0.0)
        first = min(use["origin"], here) if use["used"] > 0 else here
        begin = max(first + use["used"], t - w * window)
        take = min(left, window - begin)
        if take > 0:
            use["origin"] = first
            use["used"] += take
            left -= take
            served = w * window + begin + take
            if first + use["used"] >= window * (1 - 1e-9):
                use["skip"] = 1
        w = _open(ledger, r, w + 1)
    return served


@borrowing
def _open(ledger: Array, r: int, w: int) -> int:
    """Return the first window from w on of ledger[window, r] with room; full ones are passed over at once."""
    root = w
    while ledger[root, r]["skip"] > 0:
        root += ledger[root, r]["skip"]
    while w < root:
        following = w + ledger[w, r]["skip"]
        ledger[w, r]["skip"] = root - w
        w = following
    return root


@borrowing
def _depart(state: State, q: int, end: float) -> None:
    """Let a load that is there at `end` take the place of the PE's first one."""
    ring, at = state.flights[q], state.head[q]
    head = (at + 1) % len(ring)
    state.head[q] = head
    while at != head and ring[at - 1] > end:  # most loads are there after all before them
        ring[at], at = ring[at - 1], (at - 1) % len(ring)
    ring[at] = end


@borrowing
def _ready(c: Any, state: State, accumulator: Array) -> tuple[float, float]:
    """Return when a command can start, and when the last bank that it needs is ready; accumulator[slot]."""
    slots, stages, pes = state.slots, state.stages, state.pes
    p, u, dst, traits = c["pe"], UNIT + c["unit"], c["dst"], c["traits"]
    if traits & CHIP_WIDE:
        return stages[c["stage"], EMPTIED], 0.0
    core = ISSUED if traits & MOVES else ISSUED + 1  # one core drives the DMA, the other what computes
    t, after = pes[p, core] + c["issue"], 0.0
    for q in range(c["first"], c["last"], c["step"]):
        t = max(t, pes[q, u])
        if traits & FLIES:
            t = max(t, state.flights[q, state.head[q]])
        if dst >= 0:
            into = slots[q, dst]
            if accumulator[dst]:
                t, after = max(t, into["first_read"]), max(after, into["read"])
            else:
                t = max(t, max(into["read"], into["written"]))
    for s in (c["src0"], c["src1"], c["src2"]):
        if s >= 0 and accumulator[s]:
            t, after = max(t, slots[p, s]["first_written"]), max(after, slots[p, s]["written"])
        elif s >= 0:
            t = max(t, slots[p, s]["written"])
    if traits & WAITS and c["stage"] >= 0:
        t = max(t, stages[c["stage"], FILLED])
    if traits & FROM_PEER:
        for q in (p, c["src_pe"]):
            t, after = max(t, slots[q, dst]["first_written"]), max(after, slots[q, dst]["written"])
    return t, after


@borrowing
def _hold(c: Any, state: State, grid: Sharers, t: float, own: float, ends: float) -> float:
    """Note until when a command holds what, given its start and two ends; return its end."""
    slots, stages, pes = state.slots, state.stages, state.pes
    p, u, dst, traits = c["pe"], UNIT + c["unit"], c["dst"], c["traits"]
    freed = t + c["busy"] * grid.bank_share
    pes[p, ISSUED if traits & MOVES else ISSUED + 1] += c["issue"]
    first, last, step = c["first"], c["last"], c["step"]
    for q in range(first, last, step):  # ports of local memory must have had time for all work so far
        pes[q, PORT] += c["local"]
        ends = max(ends, pes[q, PORT])
    end = ends + c["latency"]
    for q in range(first, last, step):
        pes[q, u] = ends if traits & DRAINS else own
        if traits & FLIES:
            _depart(state, q, end)
        if dst >= 0:
            slots[q, dst]["written"] = end
            slots[q, dst]["first_written"] = freed + c["latency"]
    for s in (c["src0"], c["src1"], c["src2"]):
        if s >= 0:
            _read(slots[p, s], ends, freed)
    if traits & WAITS and c["stage"] >= 0:
        stages[c["stage"], EMPTIED] = max(stages[c["stage"], EMPTIED], ends)
    if traits & FROM_PEER:
        _read(slots[c["src_pe"], dst], ends, freed)
    return end


@borrowing
def _read(slot: Any, ends: float, freed: float) -> None:
    """Note that a read of a slot frees it and, before that, its first bank."""
    slot["read"] = max(slot["read"], ends)
    slot["first_read"] = max(slot["first_read"], freed)


def recur(
    work: tuple[Array, Array],
    state: State,
    grid: Sharers,
    times: tuple[Array, Array],
    least: float = 0.0,
) -> None:
    """Fill `times`, the start and the end of each command in cycles, command by command.

    `work` is the commands, and the cycles of DRAM that each takes. A transfer flows through all shared
    resources on its way at once: the slowest counts. `least` is a time that the commands are known to take
    together: the ledger need not grow up to it.
    """
    windows = min(LEAST_WINDOWS + int(SPARE * least / WINDOW), MOST_WINDOWS)
    ledger, window, last = np.zeros((windows, grid.shared), WINDOW_USE), WINDOW, np.zeros(grid.shared)
    issued, until = _run(work, state, grid, (ledger, window, last), times, 0)
    while issued < len(work[0]):
        ledger, window = reaching(ledger, window, until)
        issued, until = _run(work, state, grid, (ledger, window, last), times, issued)


@borrowing
def _shared(c: Any, on_dram: float) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Return the shared resources that a command may need (-1: none), and its work for each."""
    return (DRAM, SRAM, c["link"]), (on_dram, c["on_sram"], c["on_link"])


@borrowing
def _until(c: Any, on_dram: float, last: Array, t: float) -> float:
    """Return the time before which resources, last[resource], have done the work of a command from t on."""
    places, works = _shared(c, on_dram)
    until = t
    for kind in range(3):
        r = places[kind]
        if r >= 0 and works[kind] > 0:
            until = max(until, max(t + c["busy"], last[r]) + works[kind])
    return until


@borrowing
def _served(c: Any, on_dram: float, ledger: Array, window: float, last: Array, t: float) -> float:
    """Book the work of a command that starts at t in ledger[window, resource]; return when all is done."""
    places, works = _shared(c, on_dram)
    until = t
    for kind in range(3):
        r = places[kind]
        if r >= 0 and works[kind] > 0:
            served = serve(ledger, window, r, t, c["busy"], works[kind])
            last[r] = max(last[r], served)
            until = max(until, served)
    return until


@borrowing
def _run(
    work: tuple[Array, Array],
    state: State,
    grid: Sharers,
    booked: tuple[Array, float, Array],
    times: tuple[Array, Array],
    first: int,
) -> tuple[int, float]:
    """Time commands from `first` on while the ledger reaches far enough.

    `booked` is what shared resources have to do: the ledger, the cycles of a window, and when the last of
    each resource's work is done. Return the first command that is not timed, and until when the ledger must
    reach for it.
    """
    (commands, on_dram), (start, end), (ledger, window, last) = work, times, booked
    reach = window * (len(ledger) - 2)
    for i in range(first, len(commands)):
        c = commands[i]
        t, after = _ready(c, state, grid.accumulator)
        shares = on_dram[i] > 0 or c["on_sram"] > 0 or c["on_link"] > 0
        until = _until(c, on_dram[i], last, t) if shares else t
        if until >= reach:
            return i, until
        own = max(t + c["busy"], after + c["busy"] * grid.bank_share)
        served = max(own, _served(c, on_dram[i], ledger, window, last, t)) if shares else max(own, t)
        start[i] = t
        if c["traits"] & CHIP_WIDE:
            end[i] = served + c["latency"]
            state.stages[c["stage"], FILLED] = end[i]
            if c["stage"] < 0:
                state.stages[c["stage"], EMPTIED] = served
        else:
            end[i] = _hold(c, state, grid, t, own, served)
    return len(commands), 0.0
