"""Score MLPerf's offline rows of Llama-3.1-405B on 8 to 32 GPUs.

    python docs/score_mlperf.py FILE.csv

FILE.csv has rows of MLPerf Inference 5.1, datacenter, closed. Of those in fp8 on H100 and H200 SXM the best
by GPU and number stands. Prompts and outputs have the means of the benchmark's data, 9,400 and 680 tokens, as
recalled from MLCommons, "Llama 3.1 405B in MLPerf Inference v5.0"; they were not checked against the data.
Eight GPUs hold a model (`tp=8`), servers stand side by side (`dp`), joined by their NICs. Throughput is as
in `score_parallel.py`; nothing is fitted.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from score_parallel import CHUNK, FREE, MODELS, SYSTEMS, capacity, run

MODEL, TABLE = "Llama-3.1-405B", "llama3.1-405b"
PROMPT, OUTPUT = 9400, 680
EACH = 8  # GPUs of a server


def published(path: Path) -> dict[tuple[str, int], float]:
    """Return the best published tokens a second by GPU and how many of them."""
    best: dict[tuple[str, int], float] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            gpu = next((g for g in SYSTEMS if row["accelerator"] == f"NVIDIA {g}-SXM-{_memory(g)}"), None)
            right = (row["model"], row["scenario"], row["weights"]) == (TABLE, "Offline", "fp8")
            if gpu is not None and right:
                key = gpu, int(row["nodes"]) * int(row["accelerators_per_node"])
                best[key] = max(float(row["result"]), best.get(key, 0.0))
    return best


def _memory(gpu: str) -> str:
    return {"H100": "80GB", "H200": "141GB"}[gpu]


def here(gpu: str, gpus: int) -> float:
    """Return output tokens a second over so many GPUs."""
    servers = gpus // EACH
    system = SYSTEMS[gpu] if servers == 1 else f"{SYSTEMS[gpu]}*{servers}"
    parallel = f"dp={servers},tp={EACH}"
    prefill_s, weights = run(MODEL, system, parallel, servers, CHUNK, 0)
    room = FREE * (capacity(gpu) - weights) * EACH
    batch = servers * int(room / (MODELS[MODEL].cache_bytes * (PROMPT + OUTPUT)))
    decode_s, _ = run(MODEL, system, parallel, batch, 1, (PROMPT + OUTPUT // 2) // 2)
    step_s = decode_s + batch / servers * PROMPT / OUTPUT * prefill_s / CHUNK
    return batch / step_s


def main() -> None:
    """Print a row for each number of GPUs, and the ratio to the smallest of the same GPU."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows = {key: (result, here(*key)) for key, result in sorted(published(Path(sys.argv[1])).items())}
    print("| GPUs | published tokens/s | here | here / published | growth: published | here | error |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (gpu, gpus), (result, ours) in rows.items():
        first = rows[min(key for key in rows if key[0] == gpu)]
        grown, own = result / first[0], ours / first[1]
        print(
            f"| {gpus} {gpu} | {result:,.0f} | {ours:,.0f} | {ours / result:.2f} | {grown:.2f} | {own:.2f} | "
            f"{own / grown - 1:+.1%} |"
        )


if __name__ == "__main__":
    main()
