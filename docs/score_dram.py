"""Score the DRAM model: against another bank-level model, and its fast form against its simulator.

    python docs/score_dram.py

The other model's figures are in docs/data/dram_efficiency.csv, computed for the same timings; nothing was
fitted to them. "stripe" is a run that stays in one channel, "interleaved" one that goes over the channels
burst by burst, so that each channel sees bursts at random.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtia_emu.errors import UserError
from mtia_emu.machine.drams import dram_names, load_dram
from mtia_emu.machine.units.dram import STREAM_ROWS, DramTiming, measure

DATA = Path(__file__).parent / "data" / "dram_efficiency.csv"
SEED = 1  # not that of the fast form
SETS = 60
ALIGNED = (1, 2, 4, 8, 16, 64)  # bursts: such runs start at a multiple of their length and keep to stripes
STRADDLING = (3, 5, 11, 27, 90)  # bursts: such runs begin anywhere in a stripe
WRITES = (0.0, 0.4)


class Row(NamedTuple):
    """One figure of the other model, and ours: simulated with another seed, and by the fast form."""

    dram: str
    layout: str
    run_bytes: int
    published: float
    simulated: float
    fast: float


def rows() -> list[Row]:
    """Return each figure of the other model beside ours, all with refresh of all banks at once."""
    with DATA.open(encoding="utf-8", newline="") as stream:
        return [
            _row(r["dram"], r["layout"], int(r["run_bytes"]), float(r["efficiency"]))
            for r in csv.DictReader(stream)
        ]


def _row(name: str, layout: str, run_bytes: int, published: float) -> Row:
    timing = load_dram(name, refresh="all-bank")
    if layout == "interleaved":
        timing = load_dram(name, refresh="all-bank", channel_interleave_bytes=timing.burst_bytes)
    channels = 1 << 20 if layout == "interleaved" else 1
    stream = layout == "stream"
    run = STREAM_ROWS * timing.row_bytes * timing.bank_groups if stream else run_bytes
    local = int(timing.local_run(np.array(run), channels))
    simulated, _ = measure(timing, local // timing.burst_bytes, stream=stream, seed=SEED)
    return Row(
        name, layout, run_bytes, published, simulated, float(timing.efficiency(np.array(run), 0.0, channels))
    )


def fast_errors(runs: tuple[int, ...], sets: int = SETS) -> np.ndarray:
    """Return fast minus simulated share of peak, for runs of so many bursts, over random parameter sets."""
    rng = np.random.default_rng(SEED)
    errors = []
    for timing in (_random(rng) for _ in range(sets)):
        for bursts in runs:
            for share in WRITES:
                truth, _ = measure(timing, bursts, share, seed=SEED)
                errors.append(float(timing.efficiency(np.array(bursts * timing.burst_bytes), share)) - truth)
    return np.array(errors)


def _random(rng: np.random.Generator) -> DramTiming:
    """Return a shipped channel with every timing, the queue and the layout drawn anew."""
    while True:
        name = str(rng.choice(dram_names()))
        base = load_dram(name)
        drawn = {
            key: int(value * rng.uniform(0.6, 1.6)) for key, value in base if key.endswith("_cycles")
        } | {
            "queue_requests": int(2 ** rng.integers(4, 8)),
            "group_interleave_bytes": base.burst_bytes << int(rng.integers(0, 5)),
            "refresh": str(rng.choice(["all-bank", "none"])),
        }
        try:
            return load_dram(name, **drawn)
        except UserError:  # drawn parameters that contradict one another
            continue


def together(run_bytes: int, readers: int, bursts: int = 60_000) -> float:
    """Return the share of peak of runs that lie one after another, `readers` of them read at once in turn."""
    timing = load_dram("lpddr5-6400")
    burst = np.arange(run_bytes // timing.burst_bytes)[None, :, None] * timing.burst_bytes
    groups = np.arange(bursts // (burst.size * readers))[:, None, None] * readers
    address = ((groups + np.arange(readers)) * run_bytes + burst).ravel()
    ends = np.sort(timing.simulate(address, np.zeros(address.size, bool)).finish_s)
    first, last = len(ends) // 5, len(ends) * 4 // 5
    return float((last - first) * timing.burst_bytes / (ends[last] - ends[first]) / timing.bytes_per_s)


def main() -> None:
    """Print the rows and the spread of the fast form's errors."""
    found = rows()
    for row in found:
        print(
            f"{row.dram:12} {row.layout:11} {row.run_bytes or '':>4}  other model {row.published:.3f}"
            f"  simulated {row.simulated:.3f}  fast {row.fast:.3f}"
        )
    for what, ours in (("simulated", [r.simulated for r in found]), ("fast", [r.fast for r in found])):
        worst = np.abs(np.array(ours) - [r.published for r in found])
        print(f"{what}: {len(found)} rows, mean difference {worst.mean():.3f}, largest {worst.max():.3f}")
    print(f"fast form against the simulator, {SETS} random parameter sets, with and without writes:")
    for what, runs in (("aligned", ALIGNED), ("straddling", STRADDLING)):
        errors = fast_errors(runs)
        size = np.abs(errors)
        print(
            f"{what} runs: {len(errors)} points, median {np.median(size):.3f}, 90th percentile "
            f"{np.quantile(size, 0.9):.3f}, largest {size.max():.3f}, bias {errors.mean():+.3f}"
        )
    for run_bytes in (256, 512, 1024):
        shares = ", ".join(f"{n} at once {together(run_bytes, n):.3f}" for n in (1, 8, 64))
        alone = float(load_dram("lpddr5-6400").efficiency(np.array(run_bytes)))
        print(f"lpddr5-6400, runs of {run_bytes} B at random {alone:.3f}, one after another: {shares}")


if __name__ == "__main__":
    main()
