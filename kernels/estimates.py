"""What estimates of kernels share: how work that overlaps adds up, and chains of PEs that sum one tile.

An estimate lays a mapping's work out as shapes, asks the machine's units and ways what these take, and joins
the answers by a rule of its own. It has no rate and no latency of its own. A wrong one costs time, never a
wrong result; `tests/kernels/test_estimates.py` holds each kernel's to the timing reading within `BANDS`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mtia_emu.machine import ways
from mtia_emu.machine.chip import Chip

Array = np.ndarray[Any, Any]
# share of the work on resources that do not bound which still shows (estimates); in attention it is more, for
# within a panel its units wait for each other
OVERLAP_LOSS = {"product": 0.02, "attention": 0.05}


def exposed(every: Any, most: Any, kernel: str = "product") -> Any:
    """Return the cycles of `every` resource together that are not hidden behind `most`, the busiest's."""
    return OVERLAP_LOSS[kernel] * (every - most)


def chain(parts: ArrayLike, bytes_: ArrayLike, chip: Chip) -> Array:
    """Return the cycles in which the last tile's sums pass along the PEs that each hold a part of k.

    A PE passes its sums on from the first bank of accumulators on; only the last one's are waited for whole.
    """
    way = ways.pass_on(bytes_, chip)
    hop = way.busy / chip.pe.reduce.banks + way.latency
    return np.where(np.asarray(parts) > 1, (np.asarray(parts) - 2) * hop + way.busy, 0.0)
