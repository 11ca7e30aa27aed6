"""Joules: counts of events times their prices, and the power that flows for as long as the chip is on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..machine.chip import Chip
from ..program.isa import Block
from ..results.report import Joules, Traffic
from .events import DTYPE_NAMES, Events

Array = np.ndarray[Any, Any]
PJ = 1e-12


def traffic(ev: Events) -> Traffic:
    """Return the bytes that a block moves, by level and direction."""
    return Traffic(
        int(ev.local_read_bytes.sum()),
        int(ev.local_write_bytes.sum()),
        int(ev.sram_read_bytes.sum()),
        int(ev.sram_write_bytes.sum()),
        int(ev.dram_read_bytes.sum()),
        int(ev.dram_write_bytes.sum()),
        int(ev.noc_bytes.sum()),
    )


def dynamic(block: Block, ev: Events, chip: Chip) -> Joules:
    """Return what a block's events cost, every multiply-add at its full price; see `spared` for zeros."""
    e = chip.energy
    logic, memory = e.logic_scale * PJ, e.memory_scale * PJ
    prices = np.array([e.mac_pj.get(name, e.mac_pj["fp32"]) for name in DTYPE_NAMES])
    compute = float((ev.macs * prices[ev.mac_dtype.astype(int)]).sum())
    compute += float(ev.simd_passes.sum()) * e.simd_pj + float(ev.scalar_elements.sum()) * e.scalar_pj
    return Joules(
        compute=compute * logic,
        local=_moved(
            ev.local_read_bytes, e.local_read_pj_per_byte, ev.local_write_bytes, e.local_write_pj_per_byte
        )
        * memory,
        sram=_moved(
            ev.sram_read_bytes, e.sram_read_pj_per_byte, ev.sram_write_bytes, e.sram_write_pj_per_byte
        )
        * logic,
        dram=_moved(
            ev.dram_read_bytes, e.dram_read_pj_per_byte, ev.dram_write_bytes, e.dram_write_pj_per_byte
        )
        * PJ,
        noc=float(ev.noc_byte_hops.sum()) * e.noc_pj_per_byte_hop * logic,
        control=float(ev.commands.sum()) * e.command_pj * logic,
    )


def _moved(read: Array, read_pj: float, written: Array, write_pj: float) -> float:
    return float(read.sum()) * read_pj + float(written.sum()) * write_pj


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
