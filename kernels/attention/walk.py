"""The steps that lanes take under a plan of attention, in order, and who works in each."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..builder import Builder
from .plan import AttentionPlan

Array = np.ndarray[Any, Any]


class Walk:
    """What lanes do, step by step, as arrays: a step is one panel with one unit of each PE of the lane.

    `turn` numbers a lane's passes over keys, `unit` the units of a PE, `block` the blocks that a lane's units
    take, one after another, `odd` is the parity of the block of keys; `step` leaves room for the panels that
    a block lacks, `ordinal` does not. Two-dimensional arrays have a column for each PE of the lane: `works`
    where it has scores to compute, `plain` where no key of them is hidden, `closes` at a unit's last panel of
    a block, `ends` at its last of all. A `stream` is a part of the keys of a `group`, whose queries are at
    `row` and whose results are at `out_row`. `load` names one step of each panel, that of the first unit.
    """

    def __init__(self, plan: AttentionPlan, build: Builder) -> None:
        self.plan, t = plan, plan.tiles
        stream, need = self._passes()
        blocks = -(-need // t.panels)
        first = np.cumsum(blocks, axis=0) - blocks  # the lane's blocks of keys before each pass
        build.limit(int(need.sum()) * t.lane * t.stack)
        turn, lane = np.nonzero(need)
        count = need[turn, lane]
        panel = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        turn, lane = np.repeat(turn, count), np.repeat(lane, count)
        streamed = first[turn, lane] + panel // t.panels
        self.load = np.arange(len(panel)) * t.stack
        self.turn, self.lane, self.panel = (np.repeat(x, t.stack) for x in (turn, lane, panel))
        self.unit = np.tile(np.arange(t.stack), len(panel))
        self.stream = stream[self.turn, self.lane]
        self.group, part = np.divmod(self.stream, plan.problem.parts)
        self.keys_block = np.repeat(streamed, t.stack)
        self.odd = self.keys_block % 2
        self.block = self.keys_block * t.stack + self.unit
        self.place = self.panel % t.panels
        self.step = self.block * t.panels + self.place
        self.ordinal = _count(self.lane, self.step)
        self.key = part * plan.problem.part_keys + self.panel * t.width
        self.keys = np.minimum(t.width, self._keys(self.stream) - self.panel * t.width)
        self._units()

    def _passes(self) -> tuple[Array, Array]:
        """Return [pass, lane]: the stream, and the panels of it that the lane's units take."""
        plan, streams = self.plan, self.plan.problem.streams
        lane = np.arange(min(plan.lanes, streams * plan.split))
        needs = np.tile(plan.needs(), (plan.rounds, 1))  # [round and pass, lane of a group]
        rounds = np.arange(len(needs)) // plan.passes
        stream = lane[None, :] // plan.split + rounds[:, None] * (plan.lanes // plan.split)
        need = np.where(stream < streams, needs[:, lane % plan.split], 0)
        return stream, np.minimum(need, self._panels(stream))

    def _keys(self, stream: Array) -> Array:
        """Return the keys of streams: those of a part."""
        p = self.plan.problem
        return np.minimum(p.part_keys, p.keys - stream % p.parts * p.part_keys)

    def _panels(self, stream: Array) -> Array:
        """Return the panels of streams."""
        return -(-self._keys(stream) // self.plan.tiles.width)

    def _units(self) -> None:
        plan, t, p = self.plan, self.plan.tiles, self.plan.problem
        col = np.arange(t.lane)[None, :]
        part = self.turn % plan.passes * plan.split + self.lane % plan.split
        unit = (part * t.stack + self.unit)[:, None] * t.lane + col
        self.pe = self.lane[:, None] * t.lane + col
        facts = plan.units[np.minimum(unit, len(plan.units) - 1)]
        self.row, self.out_row = (
            facts[..., 0] + x[:, None] * p.heads * p.queries for x in (self.group, self.stream)
        )
        self.rows, bare = facts[..., 1], facts[..., 3]
        need = np.where(unit < len(plan.units), facts[..., 2], 0)
        need = np.minimum(need, self._panels(self.stream)[:, None])
        panel = self.panel[:, None]
        self.works = panel < need
        self.plain = self.works & (panel < bare)
        self.ends = self.works & (panel == need - 1)
        self.closes = self.ends | (self.works & (self.place[:, None] == t.panels - 1))


def _count(lane: Array, step: Array) -> Array:
    """Return the place of each of step[n] among those of its lane[n], [n]."""
    order = np.lexsort((step, lane))
    sorted_lanes = lane[order]
    starts = np.flatnonzero(np.r_[True, sorted_lanes[1:] != sorted_lanes[:-1]])
    ordinal = np.empty(len(order), np.int64)
    ordinal[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return ordinal
