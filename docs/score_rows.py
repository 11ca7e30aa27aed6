"""Print how long gradients of embedding tables take beside look-ups, and the ratios that were published.

The sets of tables are the zoo's (`zoo:tbe-production-N`, FBGEMM's production configurations). Shapes of the
published embeddings are not known: ratios are compared, not times. Backward is from the gradients of pooled
rows to changed tables. Usage: python docs/score_rows.py [OPTIMIZER [CHIP_OR_GPU ...]]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

import mtia_emu
from mtia_emu.gpu import gpu_names
from mtia_emu.results.report import Report
from mtia_emu.zoo.bags import BagTables
from mtia_emu.zoo.models import MODELS

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT.parent / "shared/reference/training/mtia300_tbe_forward_backward.csv"
LOSS = "mse"  # whose layers are neither look-ups nor their gradients
SETS = [name for name, model in MODELS.items() if isinstance(model, BagTables) and "production" in name]


def seconds(report: Report, first_launch_s: float) -> tuple[float, float]:
    """Return the seconds of look-ups, and of all from pooled rows' gradients to changed tables.

    The look-ups come first in a step. What the first launch of a run takes beyond any other is left out: in
    training no step is the first.
    """
    forward, backward = -first_launch_s, 0.0
    for layer in report.layers:
        if layer.op in ("embedding_bag", "embedding_bags"):
            forward += layer.seconds
        elif layer.op == "update_rows" or layer.name.startswith("embedding_bag"):
            backward += layer.seconds
    return forward, backward


def mean(ratios: list[float]) -> str:
    """Return the geometric mean of ratios, and their range."""
    return f"{np.exp(np.mean(np.log(ratios))):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}"


def score(machine: str, optimizer: str) -> None:
    """Print a line for each set of tables on a chip or a GPU, and the mean."""
    ratios, gpu = [], machine in gpu_names()
    launch = 0.0
    if not gpu:
        given = mtia_emu.load_chip(machine).launch
        launch = given.first_s - given.replace_s
    print(f"{machine}, {optimizer}: set of tables, forward us, backward us, backward / forward")
    for name in SETS:
        done = mtia_emu.train(
            f"zoo:{name}", "mtia-300" if gpu else machine, loss=LOSS, optimizer=optimizer,
            gpu=machine if gpu else None,
        )  # fmt: skip
        report = done.gpu if gpu else done.report
        assert report is not None
        forward, backward = seconds(report, launch)
        ratios.append(backward / forward)
        print(f"  {name:20} {forward * 1e6:8.1f} {backward * 1e6:8.1f} {ratios[-1]:6.2f}")
    print(f"  geometric mean {mean(ratios)}")


def published() -> None:
    """Print the means of what was published."""
    if not PUBLISHED.exists():
        print(
            f"no reference data at {PUBLISHED}: the published geometric mean of MTIA 300 is 3.49 (ISCA 2026)"
        )
        return
    lines = [line for line in PUBLISHED.read_text("utf-8").splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    for chip in ("h100_500w", "h200", "mtia_300"):
        ratios = [float(row[f"{chip}_bwd_ms"]) / float(row[f"{chip}_fwd_ms"]) for row in rows]
        print(f"published, {chip}, {len(rows)} embeddings of unknown shape: geometric mean {mean(ratios)}")


if __name__ == "__main__":
    given = sys.argv[1:]
    published()
    for machine in given[1:] or ["mtia-300", "h100-sxm", "h200-sxm"]:
        score(machine, given[0] if given else "adagrad{rowwise=true}")
