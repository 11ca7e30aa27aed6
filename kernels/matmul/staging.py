"""Where and when operands of a product that go through SRAM are put there."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .plan import RINGS, MatmulPlan

Array = np.ndarray[Any, Any]


class Walked(NamedTuple):
    """What a product's steps are at, [step, 1] each; `tile` is each PE's, [step, PE], by dimension."""

    kk: Array
    inner: Array
    outer: Array
    slab: Array
    batch: Array
    tile: dict[str, Array]


class StagedLoads(NamedTuple):
    """Loads [n] from scratch: each one's `place` there, which of them stage it `once`, in which `step`."""

    place: Array
    once: Array
    step: Array


def staged_outer(plan: MatmulPlan, at: Walked, loads: tuple[Array, Array, Array]) -> StagedLoads:
    """Return where the outer operand's tiles are staged: a tile ahead, once for groups that load the same.

    Of loads [n] by step, group and the first group that loads the same.

    Beside slabs, which come by the same DRAM, not sooner than they are read.
    """
    step, group, first = loads
    lk, outer, kk = plan.local["k"], at.outer[step, 0], at.kk[step, 0]
    per_outer, ring = plan.chunk * lk, plan.leaders(plan.outer_operand) * lk
    once = np.flatnonzero((at.inner[step, 0] == 0) & (first == group))
    before = np.maximum(outer - 1, 0) * per_outer
    place = first * lk + kk
    if plan.mapping.slabs:
        spread = place * per_outer // ring if plan.mapping.rings == 1 else kk * per_outer // lk  # as loads
        before = before + np.where(outer > 0, spread, kk)
    return StagedLoads(outer % RINGS * ring + place, once, before[once])


def staged_slabs(plan: MatmulPlan, at: Walked, loads: tuple[Array, Array]) -> StagedLoads:
    """Return where the inner operand's tiles are staged, of loads by step and PE [n]: a slab ahead, once."""
    step, lead = loads
    p, t = plan.problem, {dim: every[step, lead] for dim, every in at.tile.items()}
    batched = p.b_batched if plan.inner == "n" else p.a_batched
    batch = t["b"] if batched else 0
    tile = (batch * plan.tiles[plan.inner] + t[plan.inner]) * plan.tiles["k"] + t["k"]
    visit = (at.slab * plan.local["b"] + at.batch if batched else at.slab)[step, 0]
    most = plan.tiles["b"] * plan.tiles[plan.inner] * plan.tiles["k"]
    each, once, load = np.unique(visit * most + tile, return_index=True, return_inverse=True)
    place = np.arange(len(each)) - np.searchsorted(each // most, each // most)
    place = each // most % RINGS * plan.slab_tiles + place
    ahead = plan.steps // plan.visits
    return StagedLoads(place[load], once, step[once] - np.where(visit[once] > 0, ahead, 0))
