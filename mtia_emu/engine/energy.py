"""Joules: counts of events times their prices, and the power that flows for as long as the chip is on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..machine.supply import local_scale, logic_scale, sram_scale, supply_v
from ..machine.units.dram import DramTiming
from ..program.events import COUNTERS, DTYPE_NAMES
from ..results.report import Joules, Traffic
from ..silicon import powered_mm2
from ..sums import add_up
from .totals import Totals

Array = np.ndarray[Any, Any]
PJ = 1e-12
SUPPLIED: dict[str, Callable[[Chip], float] | None] = {
    **dict.fromkeys(("compute", "noc", "control"), logic_scale),
    **{"local": local_scale, "sram": sram_scale, "dram": None},
}
"""By the part of `Joules` that events have a price in: what that is multiplied by."""
PRICE_OF = {name: attrgetter(counter.price) for name, counter in COUNTERS.items()}


def traffic(totals: Totals) -> Traffic:
    """Return the bytes that a block moves, by level and direction."""
    counted = (f.name for f in fields(Traffic) if f.name != "host_bytes")  # which no command moves
    return Traffic(**{name: int(totals.of(name)) for name in counted})


def dynamic(totals: Totals, chip: Chip) -> Joules:
    """Return what a block's events cost where the chip's prices hold: see `supplied` for its own supply.

    Every multiply-add has its full price; see `spared` for zeros.
    """
    parts, by_kind = dict.fromkeys(SUPPLIED, 0.0), dict.fromkeys(SUPPLIED, 0.0)
    for name, counter in COUNTERS.items():
        price = PRICE_OF[name](chip)
        if counter.by:
            by_kind[counter.part] += totals.priced(name, counter.by, _by_dtype(price))
        else:
            parts[counter.part] += totals.of(name) * price
    parts["dram"] += more_activates(totals, chip) * chip.energy.dram_activate_pj
    parts["dram"] += code_bytes(totals, chip) * chip.energy.dram_read_pj_per_byte
    return Joules(**{part: (by_kind[part] + pj) * PJ for part, pj in parts.items()})


def scales(chip: Chip) -> dict[str, float]:
    """Return what events of each part are multiplied by at the chip's clock and capacities."""
    return {part: scale(chip) for part, scale in SUPPLIED.items() if scale}


def supplied(joules: Joules, by: Mapping[str, float]) -> Joules:
    """Return the joules of events at a chip's `scales`, of those where its prices hold."""
    return replace(joules, **{part: getattr(joules, part) * scale for part, scale in by.items()})


def more_activates(totals: Totals, chip: Chip) -> float:
    """Return the rows of DRAM's banks that a block's runs of bytes open beyond what streams would."""
    timing = _timing(totals, chip)
    return 0.0 if timing is None else _of_runs(totals, chip, timing.more_activates_per_byte)


def code_bytes(totals: Totals, chip: Chip) -> float:
    """Return the bytes of error-correcting code that cross DRAM's pins beside a block's data.

    They cost what bytes that are read do; no traffic counts them.
    """
    timing = _timing(totals, chip)
    return (
        0.0 if timing is None or not timing.ecc_data_bytes else _of_runs(totals, chip, timing.code_per_byte)
    )


def _timing(totals: Totals, chip: Chip) -> DramTiming | None:
    """Return the timings of the chip's DRAM, which a block that leaves it alone does not ask for."""
    return chip.dram_timing if len(totals.runs[0]) else None


def _of_runs(totals: Totals, chip: Chip, per_byte: Callable[[Array, int], Array]) -> float:
    """Return what a block's bytes in DRAM come to, by what a byte does in runs of its length."""
    lengths, bytes_ = totals.runs
    return float((bytes_ * per_byte(lengths, chip.dram.channels)).sum())


def _by_dtype(price: Mapping[str, float]) -> tuple[float, ...]:
    """Return a price for each number of a dtype, that of fp32 where it has none."""
    return tuple(price.get(name, price["fp32"]) for name in DTYPE_NAMES)


def spared(zero_macs: Mapping[str, int], chip: Chip) -> float:
    """Return the joules that multiply-adds with a zero operand do not take, by counts for each dtype."""
    if not zero_macs:
        return 0.0
    e, pj = chip.energy, 0.0
    for name, count in zero_macs.items():
        kind = name if name in e.mac_pj else "fp32"
        pj += count * (e.mac_pj[kind] - e.zero_mac_pj[kind])
    return pj * logic_scale(chip) * PJ


def standing(chip: Chip) -> Joules:
    """Return the joules of a second in which nothing happens, by what spends them.

    `static` is leakage and links held up, `dram` the devices at rest, `clock` the clock tree and what
    control has no price of its own.
    """
    e = chip.energy
    return Joules(
        dram=e.dram_idle_w,
        static=add_up(leakage_w(chip).values()) + e.link_w,
        clock=add_up(clock_w(chip).values()),
    )


def leakage_w(chip: Chip) -> dict[str, float]:
    """Return the watts that leak, by component of the die, at the chip's clock."""
    volts = supply_v(chip)
    return {name: chip.energy.leakage_w_of(mm2, volts) for name, mm2 in powered_mm2(chip).items()}


def clock_w(chip: Chip) -> dict[str, float]:
    """Return the watts of the clock tree and of unpriced control, by component of the die."""
    e, volts, hertz = chip.energy, supply_v(chip), chip.clock_hz
    return {name: e.clock_w_of(mm2, volts, hertz) for name, mm2 in powered_mm2(chip).items()}


def asleep_w(chip: Chip) -> float:
    """Return the watts of a chip whose clock stands: leakage at the least supply, links and DRAM held up."""
    e = chip.energy
    volts = min(chip.power.least_v, supply_v(chip))
    return e.leakage_w_of(add_up(powered_mm2(chip).values()), volts) + e.link_w + e.dram_idle_w
