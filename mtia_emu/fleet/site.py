"""Power of servers and halls: what is drawn, and what is set aside.

Each function is one formula, without factors of units.
"""

from __future__ import annotations

from .quantity import Numbers


def drawn_w(busy_w: Numbers, idle_share: Numbers, load: Numbers) -> Numbers:
    """Return the mean power of something at a mean load: idle + slope x load.

    Power is linear in load before saturation (Cho et al., Power Sloshing, ISCA 2026, figure 8: R2 0.71 to
    0.94), so the mean load gives the mean power.
    """
    return busy_w * (idle_share + (1 - idle_share) * load)


def provisioned_w(busy_w: Numbers, over_busy: Numbers) -> Numbers:
    """Return the power that is set aside for something: a decision, not what it draws."""
    return busy_w * over_busy


def energy(power: Numbers, pue: Numbers, time: Numbers) -> Numbers:
    """Return the energy at the meter: drawn power x PUE x time."""
    return power * pue * time


def water(energy_it: Numbers, litres_per_energy: Numbers) -> Numbers:
    """Return the water that cooling evaporates for an energy of IT: water is quoted by energy before PUE."""
    return energy_it * litres_per_energy
