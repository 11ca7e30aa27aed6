"""The choice of a product's mapping: every candidate's cost is estimated at once."""

from __future__ import annotations

import numpy as np

from mtia_emu.machine.chip import Chip

from ..builder import NoRoom
from .demand import Demand
from .estimate import estimate
from .plan import MatmulMapping, MatmulPlan, MatmulProblem
from .space import MappingSpace, panel_lengths


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
    """Return up to `count` different mappings and their estimated cycles, the least first.

    `demand` is `demand_of` the problem, where it is known. Raises `NoRoom` where no tile fits the chip's
    local memory.
    """
    demand = demand or demand_of(problem, chip)
    cost = np.round(estimate(demand, chip).ravel(), 3)  # so that rounding errors make no difference
    order = [int(np.argmin(cost))] if count == 1 else np.argsort(cost, kind="stable").tolist()
    cycles: dict[MatmulMapping, float] = {}
    for index in order:
        if len(cycles) == count or not np.isfinite(cost[index]):
            break
        cycles.setdefault(demand.s.mapping(index), float(cost[index]))
    return list(cycles.items())
