"""Collectives of several groups of ranks at once: where their sends meet, they share the links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import zip_longest

import numpy as np

from .collectives import AUTO, Collective, CollectiveTime, CollectiveWay, copy_s, timed, way_of
from .pricing import Flows
from .schedule import Round
from .sharing import Use, last_end_s
from .topology import System

Array = np.ndarray


def timed_together(system: System, groups: Sequence[Collective], algorithm: str = AUTO) -> CollectiveTime:
    """Return the time of the slowest of groups of disjoint ranks that begin at once, each by its own fastest.

    The rounds of all groups go side by side, under max-min fair sharing of what they use, and no group begins
    one before all have ended the one before it. Groups that meet on no link take what each takes alone. Bytes
    and joules are those of the slowest group. Raises `UserError` as `timed` does.
    """
    each = [timed(system, group, algorithm) for group in groups]
    slowest = max(each, key=lambda t: t.seconds)
    if len(groups) == 1 or not _meet(system, each):
        return slowest
    seconds = max(_seconds(system, tuple(groups), algorithm), slowest.seconds)
    slower = slowest.seconds / seconds
    return replace(
        slowest,
        seconds=seconds,
        bytes_per_s=slowest.bytes_per_s * slower,
        bus_bytes_per_s=slowest.bus_bytes_per_s * slower,
    )


def _meet(system: System, each: Sequence[CollectiveTime]) -> bool:
    """Return whether two groups send over one link, or over the two ways of one that share its rate."""
    lanes = np.asarray([link.lane for link in system.links])
    users: Counter[int] = Counter()
    for time in each:
        users.update(set(lanes[np.asarray(time.link_bytes) > 0].tolist()))
    return max(users.values(), default=0) > 1


@lru_cache(maxsize=2048)
def _seconds(system: System, groups: tuple[Collective, ...], algorithm: str) -> float:
    ways = [way_of(system, group, algorithm) for group in groups]
    copied = max(copy_s(c, way.pricing.protocol) for c, way in zip(groups, ways, strict=True))
    fixed = max(way.seconds[1] for way in ways)
    if all(way.plan.overlapped for way in ways):
        return fixed + copied + _shared_s([(way, way.plan.rounds) for way in ways])
    known: dict[object, float] = {}
    total = 0.0
    for steps in zip_longest(*(way.plan.rounds for way in ways)):
        key = tuple(step and step.key() for step in steps)
        if key not in known:
            there = [(way, (step,)) for way, step in zip(ways, steps, strict=True) if step is not None]
            known[key] = _shared_s(there)
        total += known[key]
    return fixed + copied + total


def _shared_s(rounds: Sequence[tuple[CollectiveWay, tuple[Round, ...]]]) -> float:
    """Return when the last byte of rounds of several groups is there, which start at once.

    What a group's protocol reaches of a resource may be less than what another's does: then its bytes weigh
    more.
    """
    capacity = np.min([way.pricing.capacity for way, _ in rounds], axis=0)
    parts: list[tuple[Flows, Array]] = []
    for way, steps in rounds:
        own = way.pricing.capacity
        scale = np.divide(capacity, own, out=np.ones_like(own), where=np.isfinite(own) & (own > 0))
        parts += [(flows, scale[flows.use.resource]) for flows in map(way.pricing.flows, steps)]
    offsets = np.cumsum([0, *(len(flows.bytes) for flows, _ in parts)])
    use = Use(
        np.concatenate([p.use.flow + at for (p, _), at in zip(parts, offsets, strict=False)]),
        np.concatenate([p.use.resource for p, _ in parts]),
        np.concatenate([p.use.weight * scale for p, scale in parts]),
    )
    return last_end_s(use, np.concatenate([p.bytes for p, _ in parts]), capacity)
