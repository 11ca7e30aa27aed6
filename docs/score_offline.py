"""Offline throughput of Llama-3-8B in fp8 on one GPU, from its step table, beside what NVIDIA publishes.

    python docs/score_offline.py

Published: output tokens a second of Llama-3.1-8B FP8 on one GPU (TensorRT-LLM v1.0, performance overview, at
NVIDIA/TensorRT-LLM@00f37686), which has the sizes of Llama-3-8B. Nothing is fitted. In steady state each step
decodes as many sequences as memory holds, and takes in as many prompt tokens as finished sequences make room
for. Keys and values have 8 bits there and 16 in the table. So twice as many fit, and a context costs what
half of it does in 16 bits, since reading it is what takes the time.
"""

from __future__ import annotations

from statistics import median

from mtia_emu import load_gpu
from mtia_emu.options import Options
from mtia_emu.serving.step_table import GroupedSteps, ServingStep
from mtia_emu.study.kept_tables import kept_table
from mtia_emu.study.step_tables import Hull

HULL = Hull(tokens=8192, decodes=2048, context=8192)
MEMORY_SHARE = 0.9  # TensorRT-LLM's default share of free memory for keys and values
KV_SHARE = 0.5  # of the bytes of a key or value in the table
PUBLISHED = {  # input tokens, output tokens: output tokens a second
    "h100-sxm": {
        (128, 128): 28312, (128, 2048): 22714, (500, 2000): 17660, (1000, 1000): 15220, (1000, 2000): 13899,
        (2048, 128): 3450, (2048, 2048): 9305, (5000, 500): 3459,
    },
    "h200-sxm": {
        (128, 128): 27911, (128, 2048): 26221, (500, 2000): 20770, (1000, 1000): 17744, (1000, 2000): 16828,
        (2048, 128): 3538, (2048, 2048): 12194, (5000, 500): 3902,
    },
}  # fmt: skip


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
    for name, rows in PUBLISHED.items():
        table = kept_table("llama-3-8b", load_gpu(name), HULL, options=Options(dtype="fp8"))
        off = []
        for (prompt, output), published in rows.items():
            rate, count = offline(table, prompt, output)
            off.append(rate / published - 1)
            sizes = f"{prompt:5,} in, {output:5,} out"
            print(
                f"{name}  {sizes}  {rate:7,.0f} with {count:4}   {published:7,}   {off[-1]:+.0%}", flush=True
            )
        print(f"{name}  median {median(map(abs, off)):.0%}, worst {max(map(abs, off)):.0%} off")


if __name__ == "__main__":
    main()
