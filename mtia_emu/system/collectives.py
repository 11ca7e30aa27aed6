"""What collectives take on a system: seconds, bytes on each link and of each DRAM, joules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ..errors import UserError, refuse_unknown
from .algorithms import ALGORITHMS, KINDS, Arrangement
from .library import Protocol
from .pricing import Pricing, reducing_switch
from .schedule import SWITCH, CollectiveSchedule, Round
from .topology import System

AUTO = "auto"
COPIED = ("all_reduce", "all_gather", "reduce_scatter")  # kinds in which a rank keeps a part of its own
Array = np.ndarray


@dataclass(frozen=True)
class Collective:
    """One collective: its kind, its bytes as nccl-tests counts them, and ranks of a system in their order.

    Bytes: of an all-reduce, a broadcast or a send the message; of an all-gather what each rank has in the
    end; of a reduce-scatter or an all-to-all what each rank has to begin with. An all-to-all of uneven parts
    gives `matrix` instead: bytes from the i-th rank to the j-th.
    """

    kind: str
    bytes: float
    ranks: tuple[int, ...]
    matrix: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class CollectiveTime:
    """What a collective takes.

    `fixed_s` is what an empty message would take of `seconds`. `link_bytes` go with `System.links`,
    `dram_bytes` and `reduce_s` (what PEs lose to additions) with the ranks of the collective. `joules` are
    of links and switches alone.
    """

    seconds: float
    algorithm: str
    protocol: str
    fixed_s: float
    rounds: int
    bytes_per_s: float
    bus_bytes_per_s: float
    link_bytes: tuple[float, ...]
    dram_bytes: tuple[float, ...]
    reduce_s: tuple[float, ...]
    joules: float


def bus_factor(kind: str, ranks: int) -> float:
    """Return bus bandwidth over algorithm bandwidth, as nccl-tests defines it (doc/PERFORMANCE.md)."""
    if kind == "all_reduce":
        return 2 * (ranks - 1) / ranks
    return (ranks - 1) / ranks if kind in ("all_gather", "reduce_scatter", "all_to_all") else 1.0


def timed(system: System, collective: Collective, algorithm: str = AUTO) -> CollectiveTime:
    """Return the time of a collective by an algorithm, or by the fastest that the system's library has.

    Seconds are launch and start, then for each round: hop, latency and posts, and the bytes of all its sends
    under max-min fair sharing of links, reducers and DRAM. Raises `UserError` for ranks that the system has
    not, for bytes that are none, and where no protocol of the library runs the algorithm.
    """
    _check(system, collective)
    return _timed(system, collective, algorithm)


@lru_cache(maxsize=8192)
def _timed(system: System, collective: Collective, algorithm: str) -> CollectiveTime:
    if len(collective.ranks) == 1:
        nothing = tuple(0.0 for _ in system.links)
        return CollectiveTime(0.0, "none", "none", 0.0, 0, 0.0, 0.0, nothing, (0.0,), (0.0,), 0.0)
    return _result(collective, way_of(system, collective, algorithm))


@dataclass(frozen=True)
class CollectiveWay:
    """A way to run a collective of several ranks: its rounds, how they are priced, and (seconds, fixed)."""

    algorithm: str
    plan: CollectiveSchedule
    pricing: Pricing
    seconds: tuple[float, float]


def way_of(system: System, collective: Collective, algorithm: str = AUTO) -> CollectiveWay:
    """Return the fastest way by an algorithm; raises `UserError` where no protocol runs it."""
    found = [
        CollectiveWay(name, plan, pricing, _seconds(plan, pricing, copy_s(collective, pricing.protocol)))
        for name, plan, pricing in _ways(system, collective, algorithm)
    ]
    if not found:
        raise _cannot(system, collective, algorithm)
    return min(found, key=lambda way: way.seconds[0])


def schedules(system: System, collective: Collective) -> dict[str, CollectiveSchedule]:
    """Return the schedule of each algorithm that can do a collective on a system, by name."""
    shape = shape_of(system, collective.ranks)
    plans = {name: _plan(name, collective.kind, shape) for name in ALGORITHMS}
    return {name: plan for name, plan in plans.items() if plan is not None}


@cache
def _plan(name: str, kind: str, shape: Arrangement) -> CollectiveSchedule | None:
    return ALGORITHMS[name](kind, shape)


def algorithms(system: System, collective: Collective) -> list[str]:
    """Return the algorithms by which the system's library runs a collective."""
    _check(system, collective)
    return list(dict.fromkeys(name for name, _, _ in _ways(system, collective, AUTO)))


def shape_of(system: System, ranks: tuple[int, ...]) -> Arrangement:
    """Return what an algorithm needs to know of some ranks of a system; positions stand for ranks."""
    place = {rank: i for i, rank in enumerate(ranks)}
    groups = [tuple(place[r] for r in group if r in place) for group in system.groups]
    near = tuple(group for group in groups if group)
    return Arrangement(len(ranks), near, reducing_switch(system, ranks) is not None, system.library.pipelines)


def _ways(
    system: System, collective: Collective, algorithm: str
) -> Iterator[tuple[str, CollectiveSchedule, Pricing]]:
    if algorithm not in (AUTO, *ALGORITHMS):
        raise refuse_unknown("algorithm", algorithm, (AUTO, *ALGORITHMS))
    able = schedules(system, collective)
    if collective.matrix:
        able = {name: plan for name, plan in able.items() if name == "direct"}
    kind, size = collective.kind, max([collective.bytes, *map(sum, collective.matrix)])
    near = len(shape_of(system, collective.ranks).groups) == 1
    protocols = [p for p in system.library.protocols if near or not p.near]
    for name, plan in able.items():
        for protocol in protocols:
            asked = algorithm in (AUTO, name) and name in protocol.algorithms
            if asked and protocol.takes(kind, size):
                piece_bytes = _piece_bytes(collective, plan)
                yield name, plan, Pricing(system, collective.ranks, protocol, piece_bytes)


def _piece_bytes(collective: Collective, plan: CollectiveSchedule) -> Any:
    """Return the bytes of a piece; of uneven parts, those of each send of their one round."""
    if not collective.matrix:
        return collective.bytes / plan.pieces
    step = plan.rounds[0]
    return np.asarray(collective.matrix, float)[step.source, step.target]


def copy_s(collective: Collective, protocol: Protocol) -> float:
    """Return what it takes to copy a rank's own part of the message to where the result lies."""
    own = collective.bytes / len(collective.ranks) if collective.kind in COPIED else 0.0
    return own / protocol.copy_bytes_per_s if protocol.copy_bytes_per_s else 0.0


def _seconds(plan: CollectiveSchedule, pricing: Pricing, copied_s: float) -> tuple[float, float]:
    """Return (seconds, seconds of an empty message); equal rounds are priced once."""
    starts = pricing.protocol.launches
    launch = max(pricing.system.endpoints[r].launch_s for r in pricing.ranks) if starts else 0.0
    fixed = pricing.protocol.start_s + launch + sum(pricing.fixed_s(step) for step in plan.rounds)
    if plan.overlapped:
        return fixed + copied_s + pricing.seconds(plan.rounds), fixed
    done: dict[object, float] = {}
    for step in plan.rounds:
        if step.key() not in done:
            done[step.key()] = pricing.seconds((step,))
    return fixed + copied_s + math.fsum(done[step.key()] for step in plan.rounds), fixed


def _result(collective: Collective, way: CollectiveWay) -> CollectiveTime:
    name, plan, pricing, (seconds, fixed) = way.algorithm, way.plan, way.pricing, way.seconds
    system, n = pricing.system, len(collective.ranks)
    links, touched, added = np.zeros(len(system.links)), np.zeros(n), np.zeros(n)
    for step in plan.rounds:
        links += pricing.link_bytes(step)
        moved, sums = _at_chips(step, pricing, n)
        touched += moved
        added += sums
    ends = [system.endpoints[r] for r in collective.ranks]
    total = sum(map(sum, collective.matrix)) / n if collective.matrix else collective.bytes
    rate = total / seconds if seconds > 0 else 0.0
    return CollectiveTime(
        seconds, name, pricing.protocol.name, fixed, len(plan.rounds), rate,
        rate * bus_factor(collective.kind, n), tuple(links.tolist()),
        tuple(float(x) if e.buffers == "dram" else 0.0 for x, e in zip(touched, ends, strict=True)),
        tuple(float(x) / e.reduce_bytes_per_s if e.reducer == "pes" else 0.0
              for x, e in zip(added, ends, strict=True)),
        joules(system, links),
    )  # fmt: skip


def _at_chips(step: Round, pricing: Pricing, n: int) -> tuple[Array, Array]:
    """Return (bytes that chips read and write, bytes that they add), by position."""
    amount = step.pieces * pricing.piece_bytes
    touched, added = np.zeros(n), np.zeros(n)
    for ends, weight in ((step.source, 1.0), (step.target, 2.0 if step.adds else 1.0)):
        mine = ends != SWITCH
        touched += weight * np.bincount(ends[mine], amount[mine], n)
    if step.adds:
        mine = step.target != SWITCH
        added += np.bincount(step.target[mine], amount[mine], n)
    return touched, added


def joules(system: System, link_bytes: Array) -> float:
    """Return the joules of so many bytes on each link: its own, and of the switch that takes them in."""
    switches = {s.name: s.j_per_byte for s in system.switches}
    prices = [link.j_per_byte + switches.get(link.target, 0.0) for link in system.links]
    return float(np.dot(link_bytes, prices))


def _cannot(system: System, collective: Collective, algorithm: str) -> UserError:
    have = sorted(
        {a for p in system.library.protocols for a in p.algorithms} & {*schedules(system, collective)}
    )
    what = f"{collective.kind} between {len(collective.ranks)} ranks"
    return UserError(
        f"system {system.name}: its library, {system.library.name}, runs no {what} by '{algorithm}' "
        f"(right: {', '.join(have) or 'none'})"
    )


def _check(system: System, collective: Collective) -> None:
    c = collective
    if c.kind not in KINDS:
        raise refuse_unknown("collective", c.kind, KINDS)
    if not c.ranks or len(set(c.ranks)) != len(c.ranks):
        raise UserError(f"{c.kind}: ranks {_few(c.ranks)}; right: one or more, each once")
    wrong = [r for r in c.ranks if not 0 <= r < len(system.ranks)]
    if wrong:
        raise UserError(f"{c.kind}: rank {wrong[0]}; {system.name} has ranks 0 to {len(system.ranks) - 1}")
    if c.kind == "send" and len(c.ranks) != 2:
        raise UserError(f"send: {len(c.ranks)} ranks; right: two, who sends and who receives")
    if not 0 <= c.bytes <= 1e18:
        raise UserError(f"{c.kind}: {c.bytes} bytes; right: from 0 to 1e18")
    if c.matrix:
        _check_matrix(c)


def _check_matrix(c: Collective) -> None:
    n = len(c.ranks)
    if c.kind != "all_to_all":
        raise UserError(f"{c.kind}: a matrix of bytes goes with all_to_all alone")
    if len(c.matrix) != n or any(len(row) != n for row in c.matrix):
        raise UserError(f"all_to_all: the matrix of bytes is not {n} x {n}, a row and a column a rank")
    if not all(0 <= x <= 1e18 for row in c.matrix for x in row):
        raise UserError("all_to_all: bytes of the matrix are from 0 to 1e18")


def _few(ranks: tuple[int, ...]) -> str:
    return ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "") or "of none"
