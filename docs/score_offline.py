"""Offline throughput of Llama-3 in fp8 on GPUs, from their step tables, beside what is published.

    python docs/score_offline.py [MACHINE ...]

Published: output tokens a second of Llama-3.1-8B and Llama-3.3-70B in fp8 (TensorRT-LLM v1.0, performance
overview, at NVIDIA/TensorRT-LLM@00f37686), which have the sizes of Llama-3-8B and 70B. Nothing is fitted. In
steady state each step decodes as many sequences as memory holds, and takes in as many prompt tokens as
finished sequences make room for. Keys and values have 8 bits there and 16 in the table. So twice as many fit,
and a context costs what half of it does in 16 bits, since reading it is what takes the time.

MLPerf Inference 5.1, offline, Llama-2-70B in fp8 on eight GPUs: the least and the most of what is published
(mlcommons/inference_results_v5.1). Its requests have 294.45 tokens out on the mean (265.0 to 323.9, a tenth
less and more, are what its checker lets pass); how many tokens they have in is not verified here, so several
numbers are tried. It has a smaller vocabulary than Llama-3.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from statistics import median

from mtia_emu.compiler.partition.mesh import parse_parallel

from mtia_emu import load_gpu
from mtia_emu.options import Options
from mtia_emu.results.machine import Machine
from mtia_emu.serving.step_table import GroupedSteps, ServingStep
from mtia_emu.study.kept_tables import kept_table
from mtia_emu.study.step_tables import Hull
from mtia_emu.study.system_machine import SystemMachine
from mtia_emu.system.load import load_system

HULL = Hull(tokens=8192, decodes=2048, context=8192)
MEMORY_SHARE = 0.9  # TensorRT-LLM's default share of free memory for keys and values
KV_SHARE = 0.5  # of the bytes of a key or value in the table
PROMPTS, ANSWER = (200, 300, 400), 294  # tokens of MLPerf's requests: in, tried; out
Sizes = tuple[int, int]


@dataclass(frozen=True)
class PublishedRates:
    """Output tokens a second of a model on GPUs, by (input tokens, output tokens) of its requests.

    `mlperf` are the least and the most that eight GPUs reached in MLPerf.
    """

    model: str
    machine: str
    gpus: int
    rows: dict[Sizes, float]
    mlperf: tuple[float, float] | None = field(default=None)


PUBLISHED = (
    PublishedRates("llama-3-8b", "h100-sxm", 1, {
        (128, 128): 28312, (128, 2048): 22714, (500, 2000): 17660, (1000, 1000): 15220, (1000, 2000): 13899,
        (2048, 128): 3450, (2048, 2048): 9305, (5000, 500): 3459,
    }),
    PublishedRates("llama-3-8b", "h200-sxm", 1, {
        (128, 128): 27911, (128, 2048): 26221, (500, 2000): 20770, (1000, 1000): 17744, (1000, 2000): 16828,
        (2048, 128): 3538, (2048, 2048): 12194, (5000, 500): 3902,
    }),
    PublishedRates("llama-3-70b", "h200-sxm", 1, {
        (128, 128): 3803, (128, 2048): 4336, (500, 2000): 3666, (1000, 1000): 2909, (1000, 2000): 2994,
        (2048, 128): 442, (2048, 2048): 2003, (5000, 500): 566,
    }, (34302, 35317)),
    PublishedRates("llama-3-70b", "dgx-h100", 2, {
        (128, 128): 6378, (128, 2048): 6651, (500, 2000): 5222, (1000, 1000): 4205, (1000, 2000): 4146,
        (2048, 128): 762, (2048, 2048): 3082, (5000, 500): 898,
    }, (31176, 31220)),
)  # fmt: skip


def machine_of(case: PublishedRates) -> Machine:
    """Return one GPU, or a system of which the model takes some."""
    if case.gpus == 1:
        return load_gpu(case.machine)
    return SystemMachine(load_system(case.machine), parse_parallel(f"tp={case.gpus}"), {})


def offline(table: GroupedSteps, prompt: int, output: int) -> tuple[float, int]:
    """Return output tokens a second in steady state, and how many sequences decode at once."""
    room = MEMORY_SHARE * (table.memory_bytes - table.weight_bytes)
    most = room / (KV_SHARE * table.kv_bytes_per_token * (prompt + output / 2))
    count = int(min(most, table.limits.decodes, table.limits.tokens * output / (prompt + output)))
    contexts = tuple(round(KV_SHARE * (prompt + 1 + output * (i + 0.5) / count)) for i in range(count))
    whole, part = divmod(count * prompt / output, prompt)
    prompts = ((prompt, 0),) * int(whole) + (((int(part), 0),) if part >= 1 else ())
    count = min(count, table.limits.sequences - len(prompts))
    cost = table.step(ServingStep(prompts, contexts[:count]))
    return count / cost.seconds, count


def main() -> None:
    """Print a row for each published one, and how far off they are."""
    for case in PUBLISHED:
        if not sys.argv[1:] or case.machine in sys.argv[1:]:
            compared(case)


def compared(case: PublishedRates) -> None:
    """Print the rows of a model on a machine."""
    table = kept_table(case.model, machine_of(case), HULL, options=Options(dtype="fp8"))
    name, off = f"{case.model} {case.gpus} x {case.machine}", list[float]()
    for (prompt, output), published in case.rows.items():
        rate, count = offline(table, prompt, output)
        off.append(rate / published - 1)
        sizes = f"{prompt:5,} in, {output:5,} out"
        print(f"{name}  {sizes}  {rate:7,.0f} with {count:4}   {published:7,}   {off[-1]:+.0%}", flush=True)
    print(f"{name}  median {median(map(abs, off)):.0%}, worst {max(map(abs, off)):.0%} off")
    if case.mlperf is None:
        return
    low, high = case.mlperf
    for prompt in PROMPTS:
        rate = 8 / case.gpus * offline(table, prompt, ANSWER)[0]
        share = f"{rate / high - 1:+.0%} to {rate / low - 1:+.0%}"
        sizes = f"MLPerf, 8 GPUs, {prompt} in, {ANSWER} out"
        print(f"{sizes}  {rate:7,.0f}   {low:,.0f} to {high:,.0f}   {share}", flush=True)


if __name__ == "__main__":
    main()
