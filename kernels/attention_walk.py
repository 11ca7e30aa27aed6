"""The panels of keys that lanes stream under a plan of attention, in order, and who works on each."""

from __future__ import annotations

from typing import Any

import numpy as np

from .attention_plan import Plan
from .builder import Builder

Array = np.ndarray[Any, Any]


class Walk:
    """Arrays over panels, of all lanes: `turn` numbers a lane's passes, `block` its blocks, `step` panels.

    `step` leaves room for the panels that a block lacks, `ordinal` does not. Two-dimensional arrays have a
    column for each PE of the lane: `works` where a PE has scores of the panel to compute, `plain` where no
    key of them is hidden, `closes` at a PE's last panel of a block and `ends` at that of its unit.
    """

    def __init__(self, plan: Plan, build: Builder) -> None:
        self.plan, t = plan, plan.tiles
        group, need = self._passes()
        blocks = -(-need // t.panels)
        first = np.cumsum(blocks, axis=0) - blocks  # the lane's blocks before each pass
        build.limit(int(need.sum()) * t.lane)
        turn, lane = np.nonzero(need)
        count = need[turn, lane]
        self.turn, self.lane = np.repeat(turn, count), np.repeat(lane, count)
        self.panel = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        self.group = group[self.turn, self.lane]
        self.block = first[self.turn, self.lane] + self.panel // t.panels
        self.place = self.panel % t.panels
        self.step = self.block * t.panels + self.place
        self.ordinal = _count(self.lane, self.step)
        self.key = self.panel * t.width
        self.keys = np.minimum(t.width, plan.problem.keys - self.key)
        self._units()

    def _passes(self) -> tuple[Array, Array]:
        """Return [pass, lane]: the group, and the panels that the lane streams for its units of it."""
        plan, groups = self.plan, self.plan.problem.groups
        lane = np.arange(min(plan.lanes, groups * plan.split))
        needs = np.tile(plan.needs(), (plan.rounds, 1))  # [round and pass, lane of a group]
        rounds = np.arange(len(needs)) // plan.passes
        group = lane[None, :] // plan.split + rounds[:, None] * (plan.lanes // plan.split)
        return group, np.where(group < groups, needs[:, lane % plan.split], 0)

    def _units(self) -> None:
        plan, t, p = self.plan, self.plan.tiles, self.plan.problem
        col = np.arange(t.lane)[None, :]
        part = self.turn % plan.passes * plan.split + self.lane % plan.split
        unit = part[:, None] * t.lane + col
        self.pe = self.lane[:, None] * t.lane + col
        facts = plan.units[np.minimum(unit, len(plan.units) - 1)]
        self.row = facts[..., 0] + self.group[:, None] * p.heads * p.queries
        self.rows, bare = facts[..., 1], facts[..., 3]
        need = np.where(unit < len(plan.units), facts[..., 2], 0)
        panel = self.panel[:, None]
        self.works = panel < need
        self.plain = self.works & (panel < bare)
        self.ends = self.works & (panel == need - 1)
        self.closes = self.ends | (self.works & (self.place[:, None] == t.panels - 1))


def _count(lane: Array, step: Array) -> Array:
    """Return the place of each panel among those of its lane."""
    order = np.lexsort((step, lane))
    sorted_lanes = lane[order]
    starts = np.flatnonzero(np.r_[True, sorted_lanes[1:] != sorted_lanes[:-1]])
    ordinal = np.empty(len(order), np.int64)
    ordinal[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return ordinal
