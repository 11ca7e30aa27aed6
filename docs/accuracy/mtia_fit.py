"""Fit the few parameters of MTIA 1 that only its published results tell: `make fit-mtia`.

`launch.first_s` on half of the fully connected layers; `pe.core.row_issue_cycles` and
`pe.simd.row_startup_cycles` on half of the embedding bags that DRAM does not bound,
`dram.channel_interleave_bytes` on half of those that it bounds. Each fit takes the value
with the least median error on its half; the chip file holds the result, the accuracy page the errors.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from mtia_cases import compiled, fc, halves, in_sram, rows_of, tbe_operator, tbe_rate

from mtia_emu import api
from mtia_emu.machine.chip import Chip, load_chip

CHIP = "mtia-1"
LAUNCHES_S = np.arange(2.0e-6, 6.01e-6, 0.1e-6)
ISSUES = (12, 15, 18, 21, 24)
STARTUPS = (15, 18, 21, 24, 27, 30)
INTERLEAVES = (32, 64, 128, 256)  # from a burst to the longest row of a table


def fit_launch() -> tuple[float, float]:
    """Return the launch in seconds that fits best, and its median error."""
    cases = [c for c in fc(load_chip(CHIP, {"launch.first_s": 0.0})) if c.fitted]
    errors = [
        float(np.median([abs((c.here + 1e6 * s) / c.published - 1) for c in cases])) for s in LAUNCHES_S
    ]
    best = int(np.argmin(errors))
    return float(LAUNCHES_S[best]), errors[best]


def fit_rows() -> tuple[tuple[int, int], float]:
    """Return the cycles of a row's request and of its sum that fit best, and the median error."""
    rows = rows_of("mtia1_tbe.csv")
    mine = [r for r, half in zip(rows, halves(len(rows)), strict=True) if half and in_sram(r)]
    base = load_chip(CHIP)
    programs = [(r, *compiled(tbe_operator(r), base, "weights-dram")) for r in mine]
    errors = {
        pair: float(np.median([_error(*program, *pair) for program in programs]))
        for pair in itertools.product(ISSUES, STARTUPS)
    }
    best = min(errors, key=lambda pair: errors[pair])
    return best, errors[best]


def fit_interleave() -> tuple[int, float]:
    """Return the bytes after which the next channel follows that fit best, and the median error."""
    rows = rows_of("mtia1_tbe.csv")
    mine = [r for r, half in zip(rows, halves(len(rows)), strict=True) if half and not in_sram(r)]
    programs = [(r, *compiled(tbe_operator(r), load_chip(CHIP), "weights-dram")) for r in mine]
    errors = {
        size: float(
            np.median([_miss(*program, {"dram.channel_interleave_bytes": size}) for program in programs])
        )
        for size in INTERLEAVES
    }
    best = min(errors, key=lambda size: errors[size])
    return best, errors[best]


def _error(row: dict[str, str], program: Any, lookups: Any, issue: int, startup: int) -> float:
    chosen = {"pe.core.row_issue_cycles": issue, "pe.simd.row_startup_cycles": startup}
    return _miss(row, program, lookups, chosen)


def _miss(row: dict[str, str], program: Any, lookups: Any, chosen: dict[str, int]) -> float:
    chip: Chip = load_chip(CHIP, chosen)
    report = api.run_program(program, chip, lookups=lookups, gpu=None).report
    return abs(tbe_rate(tbe_operator(row), report.seconds) / float(row["gb_per_s"]) - 1)


def main() -> None:
    """Print the fitted values."""
    launch, error = fit_launch()
    print(f"launch.first_s = {launch:.1e}  # median error of the fitted half {100 * error:.1f} %")
    (issue, startup), error = fit_rows()
    print(f"pe.core.row_issue_cycles = {issue}, pe.simd.row_startup_cycles = {startup}", end="")
    print(f"  # median error of the fitted half {100 * error:.1f} %")
    size, error = fit_interleave()
    print(f"dram.channel_interleave_bytes = {size}  # median error of the fitted half {100 * error:.1f} %")


if __name__ == "__main__":
    main()
