"""Score the GPU reference against measured bf16 products, on shapes that were not fitted.

    python docs/score_gpu.py measured_gemm.csv

The file has columns gpu, dtype, m, n, k and latency_us: a digest of NVIDIA's aiconfigurator tables.
"""

from __future__ import annotations

import csv
import random
import statistics
import sys
from pathlib import Path

from mtia_emu.gpu import load_gpu

GPUS = {"a100-sxm-80gb": "A100", "h100-sxm": "H100"}
SEED = 0  # of the split: half of the (n, k) pairs were fitted


def scoring_half(path: Path, device: str) -> list[tuple[int, int, int, float]]:
    """Return (m, k, n, seconds) of the bf16 rows whose (n, k) pair was not fitted."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [r for r in csv.DictReader(stream) if r["gpu"] == device and r["dtype"] == "bfloat16"]
    pairs = sorted({(int(r["n"]), int(r["k"])) for r in rows})
    fitted = set(random.Random(SEED).sample(pairs, len(pairs) // 2))
    return [
        (int(r["m"]), int(r["k"]), int(r["n"]), float(r["latency_us"]) * 1e-6)
        for r in rows
        if (int(r["n"]), int(r["k"])) not in fitted
    ]


def score(name: str, rows: list[tuple[int, int, int, float]]) -> tuple[float, float, float]:
    """Return the median and the 90th percentile of the error, and the median signed error."""
    gpu = load_gpu(name)
    signed = [gpu.matmul_seconds(m, k, n, "bf16") / seconds - 1 for m, k, n, seconds in rows]
    errors = sorted(map(abs, signed))
    return statistics.median(errors), errors[int(0.9 * len(errors))], statistics.median(signed)


def main() -> None:
    """Print a line for each GPU."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit(__doc__)
    for name, device in GPUS.items():
        rows = scoring_half(Path(sys.argv[1]), device)
        median, ninth, bias = score(name, rows)
        print(f"{name}: {len(rows)} rows, median {median:.1%}, 90th percentile {ninth:.1%}, bias {bias:+.1%}")


if __name__ == "__main__":
    main()
