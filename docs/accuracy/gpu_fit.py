"""Fit the constants of the GPU files on half of the measured groups; write them with their origin.

    make fit-gpu            # every GPU that has tables
    python docs/accuracy/gpu_fit.py h100-sxm --check    # print, write nothing

The other half of the groups is scored by `make accuracy`. The same data and seed give the same values.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from accuracy import gpu_bags, tables
from accuracy.gpu_borrow import GAPS, NEAREST, alike, all_of, borrow
from accuracy.gpu_constants import BAGS, BOUNDS, START, put
from accuracy.gpu_small import POWER as POWER_TABLES
from accuracy.gpu_tasks import Task, bags_task, tasks
from accuracy.gpu_write import write
from accuracy.gpu_write_bands import write_bands
from accuracy.score import SEED, score
from mtia_emu.gpu import Facts, gpu_names, load_gpu

SOFT = 0.05  # errors beyond this count less: a library's rare bad choice is no property of the GPU


def fit(facts: Facts, task: Task) -> dict[str, float]:
    """Return the values that make the task's residuals small, in four digits."""
    from scipy.optimize import least_squares

    low, high = (np.log([BOUNDS[k][i] for k in task.keys]) for i in (0, 1))
    start = np.log([START[k] for k in task.keys])
    done = least_squares(
        lambda x: task.residuals(put(facts, dict(zip(task.keys, np.exp(x), strict=True)))),
        np.clip(start, low + 1e-3, high - 1e-3),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=SOFT,
        diff_step=0.02,
        max_nfev=30,
    )
    return {k: float(f"{x:.4g}") for k, x in zip(task.keys, np.exp(done.x), strict=True)}


def fit_bags() -> None:
    """Fit embedding bags of the one GPU that rows are published of; all others borrow its constants."""
    task, name = bags_task(), gpu_bags.MEASURED
    if task is None:
        return
    write(name, fit(load_gpu(name), task), f"fitted by make fit-gpu: {task.source} (seed {SEED})")
    for other in gpu_names():
        if other != name:
            borrow(other, dict.fromkeys(BAGS, name))


def fill() -> None:
    """Put what has no table of its own into every GPU's file."""
    fit_bags()
    for name, keys in GAPS.items():
        borrow(name, keys)
    for name in NEAREST:
        borrow(name, all_of(name))
    for name in (*tables.SYSTEMS, "a100-sxm-40gb", "h100-pcie"):
        alike(name)


def main() -> None:
    """Fit the GPUs that are named, or all that have tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gpu", nargs="*", help=f"one of {', '.join(tables.SYSTEMS)}; all by default")
    parser.add_argument("--check", action="store_true", help="print what would be written, write nothing")
    wanted = parser.parse_args()
    # what others borrow is fitted first, so that a fit does not hang on what the files held before
    for name in sorted(wanted.gpu or tables.SYSTEMS, key=lambda name: name not in POWER_TABLES):
        facts: Facts = load_gpu(name)
        heat = START["sustained_heat"] if name in POWER_TABLES else load_gpu("h200-sxm").sustained_heat
        facts = put(facts, {"sustained_heat": heat})
        for task in tasks(name, facts):
            values = fit(facts, task)
            facts = put(facts, values)
            residual = task.residuals(facts)
            found = score(np.exp(residual), np.ones_like(residual))
            print(f"{name}: {task.source}: median {found.median:.1%}, 90th percentile {found.ninth:.1%}")
            print("  " + ", ".join(f"{k} = {v:g}" for k, v in values.items()), flush=True)
            if not wanted.check:
                write(name, values, f"fitted by make fit-gpu: {task.source} (seed {SEED})")
    if not wanted.check:
        fill()
        write_bands()


if __name__ == "__main__":
    main()
