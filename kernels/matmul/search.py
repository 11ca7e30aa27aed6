"""The choice of a product's mapping: every candidate's cost is estimated at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtia_emu.machine.chip import Chip

from ..builder import NoRoom
from ..search import FEW
from .demand import Demand
from .estimate import estimate
from .plan import MatmulMapping, MatmulPlan, MatmulProblem
from .space import MappingSpace, panel_lengths

Array = np.ndarray[Any, Any]
LOOKED_AT = 32  # so many times as many candidates are put in order as are asked for


def plan_matmul(problem: MatmulProblem, chip: Chip, forced: MatmulMapping | None = None) -> MatmulPlan:
    """Return the plan with the least estimated time; ties go to the first candidate.

    Raises `NoRoom` where no tile fits the chip's local memory.
    """
    if forced is not None:
        return MatmulPlan(problem, forced, chip)
    return MatmulPlan(problem, ranked_matmul(problem, chip, 1)[0][0], chip)


def demand_of(problem: MatmulProblem, chip: Chip) -> Demand:
    """Return what each candidate asks of a chip, how fast DRAM's channels are aside.

    Raises `NoRoom` where no tile fits the chip's local memory.
    """
    for panels in panel_lengths(chip):
        space = MappingSpace(problem, chip, panels)
        if space.fits.any():
            return Demand(space, chip)
    raise NoRoom(
        f"matmul: no tile of {problem.m}x{problem.k}x{problem.n} {problem.a} fits "
        f"{chip.pe.local.bytes} bytes of local memory"
    )


def ranked_matmul(
    problem: MatmulProblem, chip: Chip, count: int, demand: Demand | None = None
) -> list[tuple[MatmulMapping, float]]:
    """Return up to `count` different mappings and their estimated cycles, ordered as by `_order`.

    `demand` is `demand_of` the problem, where it is known. Raises `NoRoom` where no tile fits the chip's
    local memory.
    """
    demand = demand or demand_of(problem, chip)
    cost = np.round(estimate(demand, chip).ravel(), 3)  # so that rounding errors make no difference
    order = [int(np.argmin(cost))] if count == 1 else _order(cost, demand.s, count)
    cycles: dict[MatmulMapping, float] = {}
    for index in order:
        if len(cycles) == count:
            break
        cycles.setdefault(demand.s.mapping(index), float(cost[index]))
    return list(cycles.items())


def _order(cost: Array, space: MappingSpace, count: int) -> list[int]:
    """Return candidates by cost, more than `count` of them, the best of a few kinds before all others.

    A kind is a split of the grid with a size of tiles and what goes through SRAM. An estimate errs alike for
    mappings of one kind, so that the first few by cost alone are often wrong together.
    """
    most = min(LOOKED_AT * count, cost.size) - 1
    near = np.flatnonzero((cost <= np.partition(cost, most)[most]) & np.isfinite(cost))
    order = near[np.argsort(cost[near], kind="stable")]
    split, tm, tn, *_, staged = np.unravel_index(order, space.shape)
    axes = (*space.shape[:3], space.shape[-1])
    _, firsts = np.unique(np.ravel_multi_index((split, tm, tn, staged), axes), return_index=True)
    ahead = order[np.sort(firsts)[:FEW]].tolist()
    return [*ahead, *(i for i in order.tolist() if i not in ahead)]
