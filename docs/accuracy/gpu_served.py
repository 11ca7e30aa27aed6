"""Models served by one H100: decode steps, the prompts that ride in them, and the sampler of the runtime."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from accuracy import gpu_scores, tables
from accuracy.score import cells, percent, score, table
from mtia_emu.gpu import Gpu, Mode
from mtia_emu.types import BF16, FP32, Work
from mtia_emu.zoo.llama import Llama
from mtia_emu.zoo.models import MODELS as ZOO

Cost = np.ndarray  # seconds, joules

RADIX_PASSES = 4  # of 8 bits of 32 (CUB radix sort); each reads and writes a key (4 B) and two indices (8 B)
SAMPLER = {
    "to fp32": (2, 4), "temperature": (4, 4),
    "index": (0, 8), "sort by value": (4 + 12 * RADIX_PASSES, 12 * RADIX_PASSES), "sort by row": (16, 8),
    "take sorted": (12, 12), "softmax of sorted": (4, 4), "cumulative sum": (4, 4),
    "top-p mask": (4, 1), "mask out": (5, 4), "scatter back": (12, 4),
    "softmax": (4, 4), "exponential noise": (0, 4), "divide": (8, 4), "argmax": (4, 0),
}  # fmt: skip
"""Bytes a logit that each kernel of top-p sampling reads and writes.

The benchmark asks for temperature 0.8 and top-p 0.95 (ml-energy/benchmark 053fb7a, `top_p` of its arguments),
for which vLLM sorts the logits (its native top-k and top-p sampler, a kernel a step of the formula). PyTorch
sorts fewer than 128 rows as one array, then by row (`segmented_sort_pairs_by_full_sort` of SortStable.cu);
its sort of more rows moves 1.1 times as much, which is not told apart.
"""

QWEN3 = {"heads": 40, "kv_heads": 8, "head_dim": 128, "vocab": 151_936, "rope_theta": 1e6, "context": 40_960}
MODELS: dict[str, Llama] = {
    "Llama-3.1-8B": ZOO["llama-3-8b"],  # type: ignore[dict-item]
    "Qwen3-14B": Llama(source="Qwen/Qwen3-14B config.json", layers=40, hidden=5120, ffn=17_408, **QWEN3),  # type: ignore[arg-type]
    "Qwen3-8B": Llama(
        source="Qwen/Qwen3-8B config.json", layers=36, hidden=4096, ffn=12_288, **{**QWEN3, "heads": 32}
    ),  # type: ignore[arg-type]
}
"""The served models; Qwen3 norms each head's queries and keys beside what a Llama does (`head_norms`)."""

FITTED = ("Qwen3-14B", "lm-arena-chat")  # the runs that tell how long the prompts of their data set are
SCORED = ("Llama-3.1-8B", "lm-arena-chat")
PROMPTS = (300, 600, 900)  # tokens between which seconds are taken as a line while the length is sought
GPQA_PROMPT = 250  # estimate: a question and four answers; 2 % of the keys that its steps read


@dataclass(frozen=True)
class Run:
    """One published run: rates as measured; `age` is what a running sequence has put out, on average."""

    model: str
    data: str
    batch: float
    tokens_per_s: float
    watts: float
    output: float
    age: float

    @property
    def step_s(self) -> float:
        """Return the mean seconds of a step."""
        return self.batch / self.tokens_per_s

    @property
    def j_per_token(self) -> float:
        """Return joules of the GPU for each token that it put out."""
        return self.watts / self.tokens_per_s


def runs() -> list[Run]:
    """Return the published runs."""
    with (tables.ROOT / "docs" / "data" / "served_h100.csv").open(encoding="utf-8") as stream:
        rows = list(csv.reader(line for line in stream if not line.startswith("#")))
    return [Run(model, data, *map(float, rest)) for model, data, *rest in rows[1:]]


def cost(gpu: Gpu, works: Sequence[Work]) -> Cost:
    """Return seconds and joules of kernels on a board in steady state."""
    kernels = [gpu.kernel(w, sustained=True) for w in works]
    return np.array([sum(k.seconds for k in kernels), sum(k.joules for k in kernels)])


def sampler(gpu: Gpu, batch: int, vocabulary: int) -> Cost:
    """Return seconds and joules of sampling a token for each of `batch` sequences."""
    count = batch * vocabulary
    return cost(
        gpu,
        [
            Work("", name, "vector", FP32, (count,), 0, count, read * count, write * count)
            for name, (read, write) in SAMPLER.items()
        ],
    )


def head_norms(gpu: Gpu, model: str, rows: int) -> Cost:
    """Return what norms of each head's queries and keys take, a kernel each, in the models that have them."""
    sizes = MODELS[model]
    if not model.startswith("Qwen3"):
        return np.zeros(2)
    kernels = []
    for heads in (sizes.heads, sizes.kv_heads):
        count = rows * heads * sizes.head_dim
        kernels.append(
            Work("", "rmsnorm", "vector", BF16, (count,), 0, 4 * count, 2 * count, 2 * count, sizes.head_dim)
        )
    return sizes.layers * cost(gpu, kernels)


@cache
def step(gpu: Gpu, model: str, batch: int, seq: int, past: int) -> tuple[Cost, Cost]:
    """Return seconds and joules of one pass of the decoder: its attention, and everything else."""
    import mtia_emu

    dims = {"batch": batch, "seq": seq, "past": past}
    with tempfile.TemporaryDirectory() as folder:
        path = MODELS[model].graph("step", dims).save(Path(folder) / "step.onnx", None)
        works = mtia_emu.compile_model(str(path)).works
    done = gpu.run(works, model="", dtype="bf16", dims=dims, mode=Mode(sustained=True))
    parts = [np.zeros(2), np.zeros(2)]
    for layer in done.layers:
        seconds = layer.span_s
        parts[layer.op != "attention"] += (seconds, layer.joules)
    return parts[0], parts[1] + head_norms(gpu, model, batch * seq)


def served(gpu: Gpu, run: Run, prompt: int) -> Cost:
    """Return mean seconds and joules of a step of a served model.

    Prompts enter as sequences end, batch / output a step. A prompt rides in the step of the others (vLLM's
    chunked prefill): the linear layers see its rows beside theirs, its attention is its own.
    """
    batch = round(run.batch)
    attention, rest = step(gpu, run.model, batch, 1, prompt + round(run.age))
    _, alone = step(gpu, run.model, 1, batch, 0)
    _, together = step(gpu, run.model, 1, batch + prompt, 0)
    own, _ = step(gpu, run.model, 1, prompt, 0)
    sampled = sampler(gpu, batch, MODELS[run.model].vocab)
    return attention + rest + sampled + (together - alone + own) * run.batch / run.output


@cache
def prompt_tokens(gpu: Gpu) -> int:
    """Return the prompt length that times the runs of `FITTED` best, in tens of tokens.

    Least squares of log(modelled / measured) seconds a step. No publisher gives that length; it belongs to
    the data set, and so is the same for every model that was served with it, but for the tokenizer.
    """
    chosen = [r for r in runs() if (r.model, r.data) == FITTED]
    seconds = np.array([[served(gpu, r, p)[0] for p in PROMPTS] for r in chosen])
    measured = np.array([r.step_s for r in chosen])
    tried = range(PROMPTS[0], PROMPTS[-1] + 1, 10)
    off = [
        sum(np.log(np.interp(p, PROMPTS, row) / m) ** 2 for row, m in zip(seconds, measured, strict=True))
        for p in tried
    ]
    return tried[int(np.argmin(off))]


@cache
def modelled(gpu: Gpu) -> list[tuple[Run, Cost]]:
    """Return every run with the seconds and joules a step that the reference gives."""
    prompt = prompt_tokens(gpu)
    return [(r, served(gpu, r, GPQA_PROMPT if r.data == "gpqa" else prompt)) for r in runs()]


def decode(progress: Callable[[str], None] = print) -> str:
    """Return Llama-3.1-8B served on one H100, beside what was measured."""
    gpu = gpu_scores.gpu("h100-sxm")
    progress(f"prompts of {prompt_tokens(gpu)} tokens")
    rows = []
    for run, (seconds, joules) in modelled(gpu):
        if (run.model, run.data) != SCORED:
            continue
        rate, energy = run.batch / seconds, joules / run.batch
        rows.append([
            f"{run.batch:.0f}", f"{run.tokens_per_s:,.0f}", f"{rate:,.0f}",
            percent(rate / run.tokens_per_s - 1, signed=True),
            f"{run.j_per_token:.3f}", f"{energy:.3f}", percent(energy / run.j_per_token - 1, signed=True),
        ])  # fmt: skip
    head = ["batch", "tokens/s measured", "modelled", "error", "J/token measured", "modelled", "error"]
    return table(head, rows)


def others() -> str:
    """Return the scores of every served model, and the prompt length that was found."""
    gpu = gpu_scores.gpu("h100-sxm")
    rows = []
    for key in dict.fromkeys((r.model, r.data) for r in runs()):
        part = [(r, c) for r, c in modelled(gpu) if (r.model, r.data) == key]
        measured = np.array([[r.step_s, r.j_per_token * r.batch, r.watts] for r, _ in part])
        found = np.array([[s, j, j / s] for _, (s, j) in part])
        use = "prompts fitted" if key == FITTED else "scored"
        for i, what in enumerate(("time", "energy", "power")):
            rows.append([*key, use, what, *cells(score(found[:, i], measured[:, i]))])
    head = ["model", "data set", "use", "of a step", "runs", "median error", "90th percentile", "bias"]
    low, high = np.quantile([r.j_per_token * r.batch / c[1] for r, c in modelled(gpu)], (0.1, 0.9))
    return (
        f"{table(head, rows)}\n\nPrompts of lm-arena-chat: {prompt_tokens(gpu)} tokens. "
        f"Joules measured / modelled, 80 % of all runs: {low:.2f} to {high:.2f}."
    )
