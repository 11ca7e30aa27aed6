"""Score models split over GPUs: TensorRT-LLM's published throughput over one to eight.

    python docs/score_parallel.py FILE.csv [MODEL ...]

FILE.csv has rows `model,gpu,parallelism,gpus,weights,input_tokens,output_tokens,output_tokens_per_s`, as of
TensorRT-LLM's perf-overview.md. Nothing is fitted to them. Throughput is that of a batch that never runs
dry: each step decodes a token of every sequence and prefills as many prompt tokens as that asks for, in one
pass: weights are read once for both (in-flight batching). A pass has at most 8,192 tokens, a batch what fits
in nine tenths of the memory that weights leave, a whole sequence each (TensorRT-LLM's defaults). The cache is
in fp8: contexts of half the length in fp16 are timed, which read as many bytes. TPn is `tp=n`; DEPn,
attention over the batch and experts apart, is `ep=n,dispatch`.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from mtia_emu import api

SYSTEMS = {"H100": "dgx-h100", "H200": "hgx-h200"}
FREE = 0.9  # of the memory that weights leave: TensorRT-LLM's kv_cache_free_gpu_mem_fraction
CHUNK = 2048  # tokens of a prompt by which the attention of prefills is timed
MOST = 2048  # sequences of a batch: TensorRT-LLM's max_batch_size
MOST_TOKENS = 8192  # of a pass, prompts and decodes together: TensorRT-LLM's max_num_tokens
STEP = 64  # tokens a GPU to which passes are rounded


@dataclass(frozen=True)
class Scored:
    """A model of the table: its name in the zoo, and the bytes that a token's cache takes in fp8."""

    zoo: str
    cache_bytes: int


MODELS = {  # layers, keys and values, heads, elements; of DeepSeek a latent and a key that all heads share
    "Llama-3.3-70B": Scored("llama-3-70b", 80 * 2 * 8 * 128),
    "Llama-3.1-405B": Scored("llama-3.1-405b", 126 * 2 * 8 * 128),
    "Qwen3-235B-A22B": Scored("qwen3-235b", 94 * 2 * 4 * 128),
    "DeepSeek-R1-0528": Scored("deepseek-v3", 61 * (512 + 64)),
}


@dataclass(frozen=True)
class Row:
    """A published row and what is computed for it: tokens a second, and the batch."""

    model: str
    gpu: str
    how: str
    gpus: int
    prompt: int
    output: int
    published: float
    release: str
    here: float
    batch: int


@cache
def run(model: str, system: str, parallel: str, batch: int, seq: int, past: int) -> tuple[float, int]:
    """Return the seconds of one step, and the bytes of weights that a GPU holds in fp8."""
    outcome = api.run_over(
        f"zoo:{MODELS[model].zoo}",
        dims={"batch": batch, "seq": seq, "past": past},
        gpu=None,
        system=system,
        parallel=parallel,
        dtype="fp8",
    )
    use = outcome.report.system
    assert use is not None
    return outcome.report.seconds, use.stages[0].memory.weights


@cache
def capacity(gpu: str) -> float:
    """Return the bytes of memory of a GPU."""
    from mtia_emu.gpu import load_gpu

    return load_gpu(f"{gpu.lower()}-sxm").dram_bytes


def here(model: str, gpu: str, how: str, gpus: int, tokens: tuple[int, int]) -> tuple[float, int]:
    """Return output tokens a second, and the batch, of (prompt, output) tokens a sequence."""
    prompt, output = tokens
    apart = how.startswith("DEP")
    parallel, share = (f"ep={gpus},dispatch", gpus) if apart else (f"tp={gpus}", 1)
    system = SYSTEMS[gpu]
    prefill_s, weights = run(model, system, parallel, share, CHUNK // share, 0)
    room = FREE * (capacity(gpu) - weights) * gpus
    each = MODELS[model].cache_bytes * (prompt + output)
    most = min(MOST * share, int(room / each), int(MOST_TOKENS * share / (1 + prompt / output)))
    batch = max(1, most // share) * share
    prompts = batch * prompt / output  # tokens to prefill in a step

    def alone(tokens: float) -> float:
        """Return the seconds of a pass of so many tokens that see next to nothing before them."""
        step = STEP if tokens > STEP * share else 1
        return run(model, system, parallel, math.ceil(tokens / share / step) * step * share, 1, 1)[0]

    decode_s, _ = run(model, system, parallel, batch, 1, (prompt + output // 2) // 2)
    seen_s = max(decode_s - alone(batch), 0.0)
    seen_s += prompts / CHUNK * max(prefill_s - alone(CHUNK), 0.0)
    return batch / (alone(batch + prompts) + seen_s), batch


def rows(path: Path, models: list[str]) -> Iterator[Row]:
    """Yield the rows of some models, with what is computed for each."""
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["model"] in models:
                gpu, how, gpus = row["gpu"], row["parallelism"], int(row["gpus"])
                tokens = int(row["input_tokens"]), int(row["output_tokens"])
                release = "v1.0" if "(v1.0)" in row["source"] else "later"
                found = here(row["model"], gpu, how, gpus, tokens)
                published = float(row["output_tokens_per_s"])
                yield Row(row["model"], gpu, how, gpus, *tokens, published, release, *found)


def grown(each: list[Row]) -> Iterator[str]:
    """Yield how throughput grows from one H200 to two H100, in one release, by lengths."""
    known = {(r.model, r.gpu, r.gpus, r.prompt, r.output): r for r in each if r.release == "v1.0"}
    for (model, gpu, gpus, prompt, output), two in known.items():
        one = known.get((model, "H200", 1, prompt, output))
        if (gpu, gpus) == ("H100", 2) and one is not None:
            yield _ratio(f"2 H100 over 1 H200, {model}, {prompt} + {output}", two, one)
        other = known.get((model, "H100", gpus, prompt, output))
        if gpu == "H200" and other is not None and gpus > 1:
            yield _ratio(f"{gpus} H200 over {gpus} H100, {model}, {prompt} + {output}", two, other)


def _ratio(what: str, two: Row, one: Row) -> str:
    published, ours = two.published / one.published, two.here / one.here
    return f"{what}: published {published:.2f}, here {ours:.2f} ({ours / published - 1:+.0%})"


def main() -> None:
    """Print the rows, and how throughput grows."""
    if len(sys.argv) < 2 or set(sys.argv[2:]) - set(MODELS):
        sys.exit(__doc__)
    each = []
    print("| model | GPUs | how | prompt | output | published tokens/s | here | here / published | batch |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in rows(Path(sys.argv[1]), sys.argv[2:] or list(MODELS)):
        each.append(r)
        print(
            f"| {r.model} | {r.gpus} {r.gpu} | {r.how}, {r.release} | {r.prompt} | {r.output} | "
            f"{r.published:,.0f} | {r.here:,.0f} | {r.here / r.published:.2f} | {r.batch} |",
            flush=True,
        )
    for name in dict.fromkeys((r.model, r.gpu, r.how) for r in each):
        ratios = [r.here / r.published for r in each if (r.model, r.gpu, r.how) == name]
        print(
            f"{name[0]}, {name[2]} of {name[1]}: here / published {median(ratios):.2f} median, "
            f"{min(ratios):.2f} to {max(ratios):.2f}, of {len(ratios)} rows"
        )
    for line in grown(each):
        print(line)


if __name__ == "__main__":
    main()
