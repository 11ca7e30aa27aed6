"""Score models split over GPUs: TensorRT-LLM's published throughput of Llama-3.3-70B over one and two.

    python docs/score_parallel.py FILE.csv

FILE.csv has rows `model,gpu,parallelism,gpus,weights,input_tokens,output_tokens,output_tokens_per_s`, as of
TensorRT-LLM's perf-overview.md. Nothing is fitted to them. Throughput is that of a batch that never runs dry:
each step decodes a token of every sequence and prefills as many prompt tokens as that asks for. The batch is
what fits in nine tenths of the memory that weights leave (TensorRT-LLM's default), a whole sequence each. The
cache is in fp8: contexts of half the length in fp16 are timed, which read as many bytes.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from mtia_emu import api

MODEL, TABLE = "zoo:llama-3-70b", "Llama-3.3-70B"
SYSTEMS = {"H100": "dgx-h100", "H200": "hgx-h200"}
FREE = 0.9  # of the memory that weights leave: TensorRT-LLM's kv_cache_free_gpu_mem_fraction
CACHE_BYTES = 80 * 2 * 8 * 128  # a token's, in fp8: layers, keys and values, heads, elements
CHUNK = 2048  # prompt tokens that are prefilled together
MOST = 2048  # sequences of a batch


@dataclass(frozen=True)
class Row:
    """A published row and what is computed for it: tokens a second, and the batch."""

    gpu: str
    gpus: int
    prompt: int
    output: int
    published: float
    release: str
    here: float
    batch: int


@cache
def run(gpu: str, gpus: int, batch: int, seq: int, past: int) -> tuple[float, int]:
    """Return the seconds of one step, and the bytes of weights that a GPU holds in fp8."""
    dims = {"batch": batch, "seq": seq, "past": past}
    parallel = f"tp={gpus}"
    outcome = api.run_over(MODEL, dims=dims, gpu=None, system=SYSTEMS[gpu], parallel=parallel, dtype="fp8")
    use = outcome.report.system
    assert use is not None
    return outcome.report.seconds, use.stages[0].memory.weights


@cache
def capacity(gpu: str) -> float:
    """Return the bytes of memory of a GPU."""
    from mtia_emu.gpu import load_gpu

    return load_gpu(f"{gpu.lower()}-sxm").dram_bytes


def here(gpu: str, gpus: int, prompt: int, output: int) -> tuple[float, int]:
    """Return output tokens a second, and the batch."""
    prefill_s, weights = run(gpu, gpus, 1, CHUNK, 0)
    room = FREE * (capacity(gpu) - weights) * gpus
    batch = max(1, min(MOST, int(room / (CACHE_BYTES * (prompt + output)))))
    decode_s, _ = run(gpu, gpus, batch, 1, (prompt + output // 2) // 2)
    step_s = decode_s + batch * prompt / output * prefill_s / CHUNK
    return batch / step_s, batch


def rows(path: Path) -> Iterator[Row]:
    """Yield the rows of Llama-3.3-70B, with what is computed for each."""
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["model"] == TABLE and row["parallelism"].startswith("TP"):
                gpu, gpus = row["gpu"], int(row["gpus"])
                prompt, output = int(row["input_tokens"]), int(row["output_tokens"])
                release = "v1.0" if "(v1.0)" in row["source"] else "later"
                published = float(row["output_tokens_per_s"])
                yield Row(gpu, gpus, prompt, output, published, release, *here(gpu, gpus, prompt, output))


def main() -> None:
    """Print the rows, and how throughput grows from one GPU to two."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    each = list(rows(Path(sys.argv[1])))
    print("| GPUs | release | prompt | output | published tokens/s | here | here / published | batch |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in each:
        print(
            f"| {r.gpus} {r.gpu} | {r.release} | {r.prompt} | {r.output} | {r.published:,.0f} | "
            f"{r.here:,.0f} | {r.here / r.published:.2f} | {r.batch} |"
        )
    for name in dict.fromkeys((r.gpu, r.gpus) for r in each):
        ratios = [r.here / r.published for r in each if (r.gpu, r.gpus) == name]
        print(f"\n{name[1]} {name[0]}: here / published {median(ratios):.2f} median of {len(ratios)} rows")
    known = {(r.gpu, r.gpus, r.prompt, r.output): r for r in each if r.release == "v1.0"}
    for (gpu, gpus, prompt, output), two in known.items():
        one = known.get(("H200", 1, prompt, output))
        if (gpu, gpus) == ("H100", 2) and one is not None:
            published, ours = two.published / one.published, two.here / one.here
            print(
                f"2 H100 over 1 H200, {prompt} + {output}: published {published:.2f}, here {ours:.2f} "
                f"({ours / published - 1:+.0%})"
            )


if __name__ == "__main__":
    main()
