"""What estimates of kernels share: how work that overlaps adds up, and chains of PEs that sum one tile.

An estimate lays a mapping's work out as shapes, asks the machine's units and ways what these take, and joins
the answers by a rule of its own. It has no rate and no latency of its own. A wrong one costs time, never a
wrong result; `tests/kernels/test_estimates.py` holds each kernel's to the timing reading within `BANDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtia_emu.machine import ways
from mtia_emu.machine.chip import Chip

Array = np.ndarray[Any, Any]
Numbers = Array | float
# share of the work on resources that do not bound which still shows (estimates); in attention it is more, for
# within a panel its units wait for each other
OVERLAP_LOSS = {"product": 0.02, "attention": 0.05}


@dataclass(frozen=True)
class EstimateBand:
    """What an estimate is held to, as shares of the timed cycles.

    `spread` is the 10th, 50th and 90th percentile of 400 random calls, small ones as often as large ones
    (`tests/kernels/estimated.py`). Any call of their kinds is within `least` and `most`.
    """

    least: float
    most: float
    spread: tuple[float, float, float]


BANDS = {
    "product": EstimateBand(0.40, 1.60, (0.876, 1.010, 1.118)),
    "packed product": EstimateBand(0.45, 2.00, (0.917, 1.045, 1.199)),
    "attention": EstimateBand(0.30, 2.00, (0.889, 1.038, 1.177)),
    "bags": EstimateBand(0.75, 1.40, (0.985, 0.997, 1.048)),
    "rows": EstimateBand(0.80, 1.70, (1.000, 1.000, 1.073)),
    "pace": EstimateBand(0.45, 1.70, (0.883, 1.000, 1.248)),  # of rows in DRAM
}


def exposed(every: Any, most: Any, kernel: str = "product") -> Any:
    """Return the cycles of `every` resource together that are not hidden behind `most`, the busiest's."""
    return OVERLAP_LOSS[kernel] * (every - most)


def chain(parts: Numbers, bytes_: Numbers, chip: Chip) -> Array:
    """Return the cycles, in any shape, in which the last tile's sums pass along PEs that split k.

    A PE passes its sums on from the first bank of accumulators on; only the last one's are waited for whole.
    """
    way = ways.pass_on(bytes_, chip)
    hop = way.busy / chip.pe.reduce.banks + way.latency
    return np.where(np.asarray(parts) > 1, (np.asarray(parts) - 2) * hop + way.busy, 0.0)
