"""The parts of a chip that leak and are clocked: what stands in for their power is their modelled area."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import cache

from ..machine.chip import Chip
from .area import area
from .facts import Silicon, load_silicon

FACTS = cache(load_silicon)


def powered_mm2(chip: Chip) -> dict[str, float]:
    """Return the mm2 of a chip by component, as `area` has them: what leakage and the clock tree go with.

    Not the published die, which knows no parameter: a chip that holds more draws more. At a node of which no
    facts are known the areas are those of the nearest one that has some.
    """
    facts = FACTS()
    if f"{chip.node_nm:g}" not in facts.node:
        chip = chip.model_copy(update={"node_nm": nearest_node(chip.node_nm, facts)})
    return asdict(area(chip, facts))


def nearest_node(node_nm: float, facts: Silicon | None = None) -> float:
    """Return the process node that areas are known at and that is nearest by ratio."""
    known = (float(name) for name in (facts or FACTS()).node)
    return min(known, key=lambda known_nm: abs(math.log(known_nm / node_nm)))
