"""A served Llama-3.1-8B: decode steps, the prompts that enter them, and the sampler of the runtime."""

from __future__ import annotations

import csv
from collections.abc import Callable

from accuracy import gpu_scores, tables
from accuracy.score import percent, table
from mtia_emu.gpu import Gpu, Mode
from mtia_emu.types import FP32, Work

PROMPT = 300  # tokens; the source does not give it: estimate from the data set's single and two-turn prompts
VOCABULARY = 128_256  # Llama 3.1

RADIX_PASSES = 4  # of 8 bits of 32: each reads and writes a key (4 B) and an index (8 B) (CUB radix sort)
SAMPLER = {
    "to fp32": (2, 4), "temperature": (4, 4),
    "sort": (4 + 12 * RADIX_PASSES, 12 * RADIX_PASSES), "softmax of sorted": (4, 4), "cumulative sum": (4, 4),
    "top-p mask": (4, 1), "mask out": (5, 4), "scatter back": (12, 4),
    "softmax": (4, 4), "exponential noise": (0, 4), "divide": (8, 4), "argmax": (4, 0),
}  # fmt: skip
"""Bytes a logit that each kernel of top-p sampling reads and writes.

The benchmark asks for temperature 0.8 and top-p 0.95 (ml-energy/benchmark 053fb7a, `top_p` of its arguments),
for which vLLM sorts the logits (its native top-k and top-p sampler, a kernel a step of the formula).
"""


def sampler(gpu: Gpu, batch: int) -> tuple[float, float]:
    """Return seconds and joules of sampling a token for each of `batch` sequences."""
    count = batch * VOCABULARY
    kernels = [
        gpu.kernel(
            Work("", name, "vector", FP32, (count,), 0, count, read * count, write * count), sustained=True
        )
        for name, (read, write) in SAMPLER.items()
    ]
    return sum(k.seconds for k in kernels), sum(k.joules for k in kernels)


def step(gpu: Gpu, batch: int, seq: int, past: int) -> tuple[float, float]:
    """Return seconds and joules of one pass of the decoder."""
    import mtia_emu

    dims = {"batch": batch, "seq": seq, "past": past}
    works = mtia_emu.compile_model("zoo:llama-3-8b", dims=dims).works
    done = gpu.run(works, model="", dtype="bf16", dims=dims, mode=Mode(sustained=True))
    return done.seconds, done.joules


def decode(progress: Callable[[str], None] = print) -> str:
    """Return Llama-3.1-8B served on one H100, beside what was measured."""
    gpu = gpu_scores.gpu("h100-sxm")
    prefill_s, prefill_j = step(gpu, 1, PROMPT, 0)
    rows = []
    with (tables.ROOT / "docs" / "data" / "llama31_8b_h100.csv").open(encoding="utf-8") as stream:
        measured = list(csv.DictReader(line for line in stream if not line.startswith("#")))
    for point in measured:
        batch, output = int(point["batch"]), float(point["output_tokens"])
        progress(f"decode, batch {batch}")
        decode_s, decode_j = step(gpu, batch, 1, PROMPT + round(output))
        sample_s, sample_j = sampler(gpu, batch)
        shared = batch / output  # prompts that enter a step, so that the batch stays full
        rate = batch / (decode_s + sample_s + shared * prefill_s)
        energy = (decode_j + sample_j + shared * prefill_j) / batch
        real, real_j = float(point["tokens_per_s"]), float(point["j_per_token"])
        rows.append([
            str(batch), f"{real:,.0f}", f"{rate:,.0f}", percent(rate / real - 1, signed=True),
            f"{real_j:.3f}", f"{energy:.3f}", percent(energy / real_j - 1, signed=True),
        ])  # fmt: skip
    head = ["batch", "tokens/s measured", "modelled", "error", "J/token measured", "modelled", "error"]
    return table(head, rows)
