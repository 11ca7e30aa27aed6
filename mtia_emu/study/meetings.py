"""Exchanges of a stage: what each takes on the system, and what all of them came to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mtia_emu.compiler.ops.collectives import PLACED, ROUTED
from mtia_emu.compiler.ops.expert_matmul import rank_shares

from ..results.system_use import ExchangeUse
from ..system.collectives import CollectiveTime
from ..types import dtype
from .partition import Exchanges


@dataclass(frozen=True)
class Meeting:
    """An exchange: its number among launches, op, axes and bytes, what it takes, how many groups meet.

    `held` are the launches of others that go with it: they end as it does. `parts` are the places of those
    who hold tables, and the bytes between each and every other rank, where the exchange is with them.
    """

    launch: int
    op: str
    axes: tuple[str, ...]
    bytes: int
    size: int
    time: CollectiveTime
    groups: int
    held: tuple[int, ...] = ()
    parts: tuple[tuple[int, int], ...] = ()


def meeting(on: Exchanges, stage: int, number: int, op: str, attrs: Mapping[str, Any], size: int) -> Meeting:
    """Return an exchange of so many bytes, with what it takes on the system."""
    axes, ranks = tuple(attrs["axes"]), attrs["size"]
    if op in PLACED:
        part = math.prod(attrs["shape"]) * dtype(attrs["to"]).bytes if op == "spread" else size
        parts = ((attrs["owner"], int(part)),)
        return Meeting(number, op, axes, part, ranks, *on.placed(stage, op, axes, parts), parts=parts)
    if op not in ROUTED:
        return Meeting(number, op, axes, size, ranks, *on.time(stage, op, axes, size))
    return Meeting(number, op, axes, size, ranks, *on.routed(stage, op, axes, size, rank_shares(attrs)))


def exchange_uses(name: str, meetings: Sequence[Meeting]) -> tuple[ExchangeUse, ...]:
    """Return the exchanges of a stage, equal ones together."""
    counted: Counter[ExchangeUse] = Counter()
    for m in meetings:
        axes = "*".join(dict.fromkeys(axis.partition(".")[0] for axis in m.axes))
        how = f"{m.time.algorithm}, {m.time.protocol}"
        counted[ExchangeUse(name, m.op, axes, m.bytes, m.size, 1, m.time.seconds, how)] += 1
    return tuple(replace(use, times=times) for use, times in counted.items())


def largest(meetings: Sequence[Meeting]) -> int:
    """Return the bytes that the largest exchange holds beside its operand and its result."""
    return max((m.bytes for m in meetings), default=0)
