"""Print how long gradients of embedding tables take beside look-ups, and the ratios that were published.

The sets of tables are the zoo's (`zoo:tbe-production-N`, FBGEMM's production configurations). Shapes of the
published embeddings are not known: ratios are compared, not times. Backward is from the gradients of pooled
rows to changed tables. Usage: python docs/score_rows.py [OPTIMIZER [CHIP ...]]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

import mtia_emu
from mtia_emu.results.training import Training
from mtia_emu.zoo.bags import BagTables
from mtia_emu.zoo.models import MODELS

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT.parent / "shared/reference/training/mtia300_tbe_forward_backward.csv"
LOSS = "mse"  # whose layers are neither look-ups nor their gradients
SETS = [name for name, model in MODELS.items() if isinstance(model, BagTables) and "production" in name]


def seconds(training: Training) -> tuple[float, float]:
    """Return the seconds of look-ups, and of all from pooled rows' gradients to changed tables."""
    forward = backward = 0.0
    for layer in training.report.layers:
        if "embedding_bags" not in layer.name:
            continue
        if "(backward)" in layer.name or "(optimizer)" in layer.name:
            backward += layer.seconds
        else:
            forward += layer.seconds
    return forward, backward


def mean(ratios: list[float]) -> str:
    """Return the geometric mean of ratios, and their range."""
    return f"{np.exp(np.mean(np.log(ratios))):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}"


def score(chip: str, optimizer: str) -> None:
    """Print a line for each set of tables, and the mean."""
    ratios = []
    print(f"{chip}, {optimizer}: set of tables, forward us, backward us, backward / forward")
    for name in SETS:
        forward, backward = seconds(
            mtia_emu.train(f"zoo:{name}", chip, loss=LOSS, optimizer=optimizer, gpu=None)
        )
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
    for machine in given[1:] or ["mtia-300"]:
        score(machine, given[0] if given else "adagrad{rowwise=true}")
