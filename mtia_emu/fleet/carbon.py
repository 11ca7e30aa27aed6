"""CO2e of operation and of making things. Each function is one formula, without factors of units."""

from __future__ import annotations

from .quantity import Numbers


def operational_kg(energy: Numbers, kg_per_energy: Numbers) -> Numbers:
    """Return the CO2e of an energy at the meter."""
    return energy * kg_per_energy


def die_kg(die_area: Numbers, kg_per_area: Numbers, good: Numbers) -> Numbers:
    """Return the CO2e of a good die: that of its area over the share of good dies.

    The share is the one that its dollars are counted with.
    """
    return die_area * kg_per_area / good


def own_device_kg(dies_kg: Numbers, memory: Numbers, kg_per_memory: Numbers, package_kg: Numbers) -> Numbers:
    """Return the CO2e embodied in a device of one's own."""
    return dies_kg + memory * kg_per_memory + package_kg


def attributed_kg(embodied_kg: Numbers, busy: Numbers, life: Numbers, utilisation: Numbers) -> Numbers:
    """Return a job's share of embodied CO2e: its busy time over that of a life, not over wall time."""
    return embodied_kg * busy / (life * utilisation)


def kg_per_flop(embodied_kg: Numbers, flop_per_s: Numbers, life: Numbers) -> Numbers:
    """Return embodied CO2e over all operations of a life at full rate, which no machine reaches.

    A maker's "carbon intensity" on that basis lies far below one by the operations that were really done,
    with the energy that they took: the two are not comparable.
    """
    return embodied_kg / (flop_per_s * life)
