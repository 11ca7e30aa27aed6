"""Joules: counts of events times their prices. Static power flows for the whole time."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..chip import Chip
from ..isa import Block
from ..report import Joules, Traffic
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
    """Return what a block's events cost; static power is added where the time is known."""
    e = chip.energy
    prices = np.array([e.mac_pj.get(name, e.mac_pj["fp32"]) for name in DTYPE_NAMES])
    compute = (ev.macs * prices[ev.mac_dtype.astype(int)]).sum() + ev.simd_passes.sum() * e.simd_pj
    return Joules(
        compute=float(compute + ev.scalar_elements.sum() * e.scalar_pj) * PJ,
        local=float(
            (
                ev.local_read_bytes * e.local_read_pj_per_byte
                + ev.local_write_bytes * e.local_write_pj_per_byte
            ).sum()
        )
        * PJ,
        sram=float(
            (
                ev.sram_read_bytes * e.sram_read_pj_per_byte + ev.sram_write_bytes * e.sram_write_pj_per_byte
            ).sum()
        )
        * PJ,
        dram=float(
            (
                ev.dram_read_bytes * e.dram_read_pj_per_byte + ev.dram_write_bytes * e.dram_write_pj_per_byte
            ).sum()
        )
        * PJ,
        noc=float(ev.noc_byte_hops.sum()) * e.noc_pj_per_byte_hop * PJ,
        control=float(ev.commands.sum()) * e.command_pj * PJ,
    )
