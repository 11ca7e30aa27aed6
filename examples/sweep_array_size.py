"""Sweep the side of the matrix unit: cycles, and the share of peak, of a small decoder.

Peak rate grows with the square of the side. Time follows only until something else, which stays as it is,
bounds it.
"""

from __future__ import annotations

from collections import Counter

import mtia_emu
from mtia_emu.results.report import Report
from mtia_emu.types import dtype

CHIP, MODEL, DIMS = "mtia-2i", "zoo:llama-tiny", {"batch": 4, "seq": 128}


def main() -> None:
    """Print a row for each side."""
    print(f"{'array':>8s} {'peak MAC/cycle':>15s} {'cycles':>9s} {'of peak':>8s}  bound by")
    for side in (8, 16, 32, 64):
        settings = {"pe.matrix.rows": side, "pe.matrix.cols": side, "pe.matrix.arrays": 1}
        report = mtia_emu.run(MODEL, CHIP, dims=DIMS, settings=settings, gpu=None).report
        peak = mtia_emu.load_chip(CHIP, settings).peak_macs_per_cycle(dtype(report.dtype))
        name = f"{side} x {side}"
        print(f"{name:>8s} {peak:15,.0f} {report.cycles:9,d} {report.utilization:8.1%}  {bound(report)}")


def bound(report: Report) -> str:
    """Return what bound the largest share of the time."""
    cycles: Counter[str] = Counter()
    for layer in report.layers:
        cycles[layer.bound_by] += layer.cycles
    return cycles.most_common(1)[0][0]


if __name__ == "__main__":
    main()
