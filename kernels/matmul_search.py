"""The choice of a product's mapping: every candidate's cost estimated at once, the least taken."""

from __future__ import annotations

import numpy as np

from mtia_emu.chip import Chip

from .builder import NoRoom
from .matmul_estimate import estimate
from .matmul_plan import Mapping, Plan, Problem
from .matmul_space import PANELS, SHORT, Space


def plan_matmul(problem: Problem, chip: Chip, forced: Mapping | None = None) -> Plan:
    """Return the plan with the least estimated time; ties go to the first candidate.

    Raises `NoRoom` where no tile fits the chip's local memory.
    """
    if forced is not None:
        return Plan(problem, forced, chip)
    for panels in (PANELS, SHORT):
        space = Space(problem, chip, panels)
        cost = estimate(space)
        best = int(np.argmin(cost))
        if np.isfinite(cost.flat[best]):
            return Plan(problem, space.mapping(best), chip)
    raise NoRoom(
        f"matmul: no tile of {problem.m}x{problem.k}x{problem.n} {problem.a} fits "
        f"{chip.pe.local.bytes} bytes of local memory"
    )
