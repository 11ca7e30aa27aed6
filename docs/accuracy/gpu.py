"""The page on the GPU reference: every table and picture of `docs/accuracy-gpu.md`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from accuracy import gpu_bags, gpu_models, gpu_scores, gpu_second, gpu_served, gpu_small, tables
from accuracy.score import Score, cells, percent, score, table
from mtia_emu.gpu import Bands, Facts, gpu_names

DTYPES = ("bf16", "fp8_e4m3", "fp4")
DERATED = {
    "a100-sxm-80gb": (0.80, 0.75, 6e-6),
    "h100-sxm": (0.80, 0.80, 4e-6),
    "h200-sxm": (0.75, 0.80, 4e-6),
    "b200": (0.70, 0.70, 2e-6),
    "l40s": (0.70, 0.80, 3e-6),
}
"""Shares of the rate and the bandwidth, and a fixed time, that fit these tables best (own grid search)."""
TARGETS = {"bf16": "5 %, 15 %", "fp8_e4m3": "7 %, 20 %", "fp4": "none"}
HEAD = ["rows", "median error", "90th percentile", "bias"]


def dtypes(name: str) -> list[str]:
    """Return the dtypes that a GPU has a rate and a table for."""
    return [d for d in DTYPES if getattr(gpu_scores.gpu(name).rates, d) is not None]


@cache
def layers() -> str:
    """Return the scores of linear layers on the half that was not fitted."""
    rows = [
        [name, d, *cells(gpu_scores.layers(name, d)), TARGETS[d]]
        for name in tables.SYSTEMS
        for d in dtypes(name)
    ]
    return table(["GPU", "dtype", *HEAD, "aim: median, 90th"], rows)


def transfer() -> str:
    """Return the scores of an H200 that has H100's constants and its own datasheet."""
    facts = gpu_scores.from_h100()
    rows = [[d, *cells(gpu_scores.layers("h200-sxm", d, facts=facts))] for d in ("bf16", "fp8_e4m3")]
    return table(["dtype", *HEAD], rows)


def spreads() -> str:
    """Return how far two other runtimes' measurements of bf16 layers are from the one that is scored."""
    rows = []
    for name in tables.SYSTEMS:
        for runtime in ("vllm", "sglang"):
            s = gpu_scores.spread(name, runtime)
            rows.append([name, runtime, percent(s.median), f"{s.low:.2f} to {s.high:.2f}"])
    return table(["GPU", "other runtime", "median difference", "80 % of ratios"], rows)


def rooflines() -> str:
    """Return the datasheet roofline, a derated one and the reference on the same rows of bf16."""
    rows = []
    for name in tables.SYSTEMS:
        each: list[tuple[str, Score]] = [
            ("datasheet roofline", gpu_scores.layers(name, "bf16", gpu_models.roofline)),
            ("derated roofline", gpu_scores.layers(name, "bf16", _derated(name))),
            ("reference", gpu_scores.layers(name, "bf16")),
        ]
        rows += [[name, label, *cells(s)] for label, s in each]
    return table(["GPU", "model", *HEAD], rows)


def _derated(name: str) -> gpu_scores.Predict:
    def predict(facts: Facts, dtype: str, rows: tables.Frame) -> np.ndarray:
        return gpu_models.derated(facts, dtype, rows, DERATED[name])

    return predict


def other_kernels() -> str:
    """Return the scores of attention, elementwise kernels, norms and collectives."""
    rows = []
    for name in tables.ATTENTION:
        for phase, label in (("context", "attention, prefill"), ("generation", "attention, decode")):
            rows.append([name, label, *cells(gpu_scores.attention(name, phase))])
    for name in tables.NCCL:
        rows.append([name, "collectives, 2 to 8 GPUs", *cells(gpu_scores.collectives(name))])
    for name in gpu_small.VIDUR:
        for label, ops in {**gpu_small.GROUPS, "token look-up": ("emb",)}.items():
            found = gpu_scores.vectors(name, ops)
            rows += [[name, label, *cells(found)]] if found else []
    return table(["GPU", "kernel", *HEAD], rows)


def reduces() -> str:
    """Return the scores of all-reduces of serving runtimes; the second runtime is not fitted at all."""
    rows = []
    for name in tables.NCCL:
        for runtime, use in (("trtllm", "held-out sizes"), ("vllm", "a second source")):
            rows.append([name, runtime, use, *cells(gpu_scores.reduces(name, runtime))])
    return table(["GPU", "runtime", "rows are", *HEAD], rows)


def bags() -> str:
    """Return the scores of embedding bags on the rows that were not fitted, by the number of tables."""
    rows = []
    for count in (gpu_bags.FEWER, gpu_bags.TABLES, gpu_bags.MORE):
        found = gpu_bags.scored(gpu_scores.gpu(gpu_bags.MEASURED), count)
        if found is None:
            return "The reference folder is not there."
        rows.append([f"{count}", *cells(found), f"{found.low:.2f} to {found.high:.2f}"])
    return table(["tables assumed", *HEAD, "80 % of measured / modelled"], rows)


def bands() -> str:
    """Return the bands of every GPU, as its file has them."""
    kinds = list(Bands.model_fields)
    rows = []
    for name in gpu_names():
        each = [getattr(gpu_scores.gpu(name).bands, kind) for kind in kinds]
        rows.append([name, *(f"{b.low:.2f} to {b.high:.2f}" for b in each)])
    return table(["GPU", *(kind.replace("_", " ") for kind in kinds)], rows)


def host_timed() -> str:
    """Return softmax, layer norm and GELU timed by the host on A100, launch and synchronisation included."""
    found = gpu_second.of("a100-sxm-80gb", "vector")
    if not found:
        return "The reference folder is not there."
    rows = [[s.text.rpartition(", ")[2], *cells(score(s.modelled, s.measured))] for s in found]
    return table(["operator", *HEAD], rows)


def power() -> str:
    """Return time, watts and joules of sustained layers of 50 us and more."""
    rows = []
    for name in gpu_small.POWER:
        found = gpu_scores.sustained(name, "bf16")
        rows += [[name, what, *cells(s)] for what, s in (found or {}).items()]
    return (
        table(["GPU", "of sustained bf16 layers", *HEAD], rows)
        if rows
        else "The reference folder is not there."
    )


def draw(path: Path) -> None:
    """Draw modelled over measured time of the scoring half, a panel a GPU."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "accuracy"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(tables.SYSTEMS), figsize=(15, 3.2), sharey=True)
    for axis, name in zip(axes, tables.SYSTEMS, strict=True):
        rows = gpu_scores.scoring_layers(name, "bf16")
        for predict, label in (
            (gpu_models.roofline, "datasheet roofline"),
            (gpu_models.layer_seconds, "reference"),
        ):
            ratio = predict(gpu_scores.gpu(name), "bf16", rows) / rows.seconds.to_numpy()
            axis.plot(*_quantiles(rows.seconds.to_numpy() * 1e6, ratio), label=label)
        axis.set(xscale="log", title=name, xlabel="measured, us", ylim=(0, 1.6))
        axis.axhline(1, color="grey", linewidth=0.5)
    axes[0].set_ylabel("modelled / measured")
    axes[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


def _quantiles(seconds: np.ndarray, ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median ratio in forty groups of rows of like measured time."""
    order = np.array_split(np.argsort(seconds), 40)
    return np.array([np.median(seconds[i]) for i in order]), np.array([np.median(ratio[i]) for i in order])


SECTIONS: dict[str, Callable[[], str]] = {
    "gpu-layers": layers,
    "gpu-transfer": transfer,
    "gpu-spread": spreads,
    "gpu-rooflines": rooflines,
    "gpu-kernels": other_kernels,
    "gpu-reduces": reduces,
    "gpu-bags": bags,
    "gpu-bands": bands,
    "gpu-second": gpu_second.coverage,
    "gpu-host": host_timed,
    "gpu-power": power,
    "gpu-decode": gpu_served.decode,
    "gpu-served": gpu_served.others,
}
