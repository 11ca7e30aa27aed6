"""How fast a chip or GPU reads rows that lie anywhere in its DRAM."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ..gpu import gpu_names, load_gpu
from ..machine.chip import load_chip


@lru_cache(maxsize=1024)
def row_seconds(chip: str, row_bytes: float) -> float:
    """Return the DRAM time of one of many rows at random places, in seconds; no cache finds any.

    Of a chip: whole bursts at the rate that runs of that length reach. Of a GPU: whole sectors and an
    activate, at the rate of streams. Rows of a table are read without others waiting for them.
    """
    if chip in gpu_names():
        facts = load_gpu(chip)
        sector = facts.dram_sector_bytes
        moved = math.ceil(row_bytes / sector) * sector + facts.dram_activate_bytes
        return float(moved / (facts.dram_bytes_per_s * facts.dram_efficiency))
    found = load_chip(chip)
    many = 1e6
    return float(found.run_cycles(np.array([row_bytes]), np.array([many]))[0]) / found.clock_hz / many
