"""Scores of the GPU reference on the halves that were not fitted, and the spread between sources."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from accuracy import gpu_models, gpu_small, tables
from accuracy.score import Score, halves, score
from mtia_emu.gpu import Facts, Gpu, load_gpu

Frame = Any
Predict = Callable[[Facts, str, Frame], np.ndarray]


@cache
def gpu(name: str) -> Gpu:
    """Return a GPU by name."""
    return load_gpu(name)


@cache
def scoring_layers(name: str, dtype: str) -> Frame:
    """Return the linear layers of the scoring half: the (n, k) pairs that were not fitted."""
    rows = tables.gemm(name, dtype)
    return rows[~halves(list(zip(rows.n, rows.k, strict=True)))]


def layers(
    name: str, dtype: str, predict: Predict = gpu_models.layer_seconds, facts: Facts | None = None
) -> Score:
    """Return the score of a model of linear layers, the reference itself by default."""
    rows = scoring_layers(name, dtype)
    return score(predict(facts or gpu(name), dtype, rows), rows.seconds.to_numpy())


def from_h100() -> Gpu:
    """Return an H200 with the constants that were fitted to H100, and what its own datasheet says."""
    own, other = gpu("h200-sxm"), gpu("h100-sxm")
    datasheet = ("name", "text", "dram_bytes", "dram_bytes_per_s")
    return other.model_copy(update={key: getattr(own, key) for key in datasheet})


def attention(name: str, phase: str) -> Score:
    """Return the score of attention on the head layouts that were not fitted."""
    rows = tables.attention(name, phase)
    rows = rows[~halves(list(zip(rows.num_heads, rows.num_key_value_heads, strict=True)))]
    return score(gpu_models.attention_seconds(gpu(name), rows, phase), rows.seconds.to_numpy())


def collectives(name: str) -> Score:
    """Return the score of collectives on the operations and sizes that were not fitted."""
    rows = tables.collectives(name)
    rows = rows[~halves(list(zip(rows.op_name, rows.message_size, strict=True)))]
    return score(gpu_models.nccl_seconds(gpu(name), rows), rows.seconds.to_numpy())


def reduces(name: str, runtime: str) -> Score:
    """Return the score of a runtime's all-reduces: of sizes that were not fitted, or of a second source."""
    rows = tables.direct(name, runtime)
    rows = rows[~halves(list(rows.message_size))] if runtime == "trtllm" else rows
    return score(gpu_models.reduce_seconds(gpu(name), rows), rows.seconds.to_numpy())


def vectors(name: str, ops: tuple[str, ...]) -> Score | None:
    """Return the score of elementwise kernels or norms on the row counts that were not fitted."""
    rows = gpu_small.vidur(name, ops)
    if rows is None:
        return None
    rows = rows[~halves(list(rows.M))]
    return score(gpu_small.rows_seconds(gpu(name), rows), rows.latency_s.to_numpy())


def sustained(name: str, dtype: str, least_s: float = 0.0) -> dict[str, Score] | None:
    """Return the scores of time, watts and joules of sustained layers that were not fitted."""
    rows = gpu_small.sustained_rows(name, tables.DTYPES[dtype])
    if rows is None or not len(rows):
        return None
    rows = rows[~halves(list(zip(rows.n, rows.k, strict=True)))]
    rows = rows[rows.seconds >= least_s]
    seconds, watts = gpu_small.sustained(gpu(name), dtype, rows)
    return {
        "time": score(seconds, rows.seconds.to_numpy()),
        "power": score(watts, rows.avg_power_w.to_numpy()),
        "energy": score(seconds * watts, rows.energy_j.to_numpy()),
    }


def short_joules(name: str) -> tuple[float, float]:
    """Return measured / modelled watts, 10 and 90 %, of all layers below `metered_s`: none was fitted.

    The meter averages over a second with idle gaps in it, so that the truth lies above its low end.
    """
    facts = gpu(name)
    rows = gpu_small.sustained_rows(name, tables.DTYPES["bf16"], 0.0)
    rows = rows[rows.seconds < facts.metered_s]
    _, watts = gpu_small.sustained(facts, "bf16", rows)
    low, high = np.quantile(rows.avg_power_w.to_numpy() / watts, (0.1, 0.9))
    return float(low), float(high)


def spread(name: str, runtime: str, dtype: str = "bf16") -> Score:
    """Return how far another runtime's measurements are from those that were fitted, on the scoring half."""
    keys = ["m", "n", "k"]
    both = scoring_layers(name, dtype).merge(
        tables.gemm(name, dtype, runtime), on=keys, suffixes=("", "_other")
    )
    return score(both.seconds.to_numpy(), both.seconds_other.to_numpy())
