"""Joules: counts of events times their prices, and the power that flows for as long as the chip is on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..program.events import COUNTERS, DTYPE_NAMES, Events
from ..program.isa import Block
from ..results.report import Joules, Traffic

Array = np.ndarray[Any, Any]
PJ = 1e-12
PRICE_OF = {name: attrgetter(counter.price) for name, counter in COUNTERS.items()}


def traffic(ev: Events) -> Traffic:
    """Return the bytes that a block moves, by level and direction."""
    return Traffic(**{f.name: int(getattr(ev, f.name).sum()) for f in fields(Traffic)})


def dynamic(block: Block, ev: Events, chip: Chip) -> Joules:
    """Return what a block's events cost, every multiply-add at its full price; see `spared` for zeros."""
    logic, memory = chip.energy.logic_scale * PJ, chip.energy.memory_scale * PJ
    scales = {"compute": logic, "local": memory, "sram": logic, "dram": PJ, "noc": logic, "control": logic}
    parts, by_kind = dict.fromkeys(scales, 0.0), dict.fromkeys(scales, 0.0)
    for name, counter in COUNTERS.items():
        price = PRICE_OF[name](chip)
        if counter.by:
            by_kind[counter.part] += _by_dtype(getattr(ev, name), getattr(ev, counter.by), price)
        else:
            parts[counter.part] += float(getattr(ev, name).sum()) * price
    return Joules(**{part: (by_kind[part] + parts[part]) * scale for part, scale in scales.items()})


def _by_dtype(counts: Array, kinds: Array, price: Mapping[str, float]) -> float:
    """Return the pJ of counts whose price depends on a dtype, by its number (fp32's for unknown ones)."""
    prices = np.array([price.get(name, price["fp32"]) for name in DTYPE_NAMES])
    return float((counts * prices[kinds.astype(int)]).sum())


def spared(zero_macs: Mapping[str, int], chip: Chip) -> float:
    """Return the joules that multiply-adds with a zero operand do not take, by counts for each dtype."""
    e = chip.energy
    pj = 0.0
    for name, count in zero_macs.items():
        kind = name if name in e.mac_pj else "fp32"
        pj += count * (e.mac_pj[kind] - e.zero_mac_pj[kind])
    return pj * e.logic_scale * PJ


def standing(chip: Chip) -> Joules:
    """Return the joules of a second in which nothing happens, by what spends them.

    `static` is leakage and links held up, `dram` the devices at rest, `clock` the clock tree and what
    control has no price of its own.
    """
    e = chip.energy
    return Joules(
        dram=e.dram_idle_w,
        static=e.leakage_w(chip.die_mm2) + e.link_w,
        clock=e.clock_w(chip.die_mm2, chip.clock_hz),
    )
