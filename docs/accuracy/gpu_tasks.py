"""What is fitted together of a GPU: keys, and how far the model is from half of the measured groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accuracy import gpu_bags, gpu_models, gpu_second, tables
from accuracy.gpu_constants import ATTENTION, BAGS, DIRECT, LINKS, MATMUL, NARROW_KEYS, QUANTISE
from accuracy.gpu_small import NARROW, NORMS, rows_seconds, sustained_rows, vidur
from accuracy.score import SEED, halves
from mtia_emu.gpu import Facts

Vector = np.ndarray
SAMPLE = 6000  # rows of each dtype that are fitted, drawn by the seed from the fitting half


@dataclass(frozen=True)
class Task:
    """What is fitted together: dotted keys, log(modelled / measured) of the rows, and their source."""

    keys: tuple[str, ...]
    residuals: Callable[[Facts], Vector]
    source: str


def fitting_rows(name: str, dtype: str) -> Any:
    """Return the sample of a dtype's linear layers that is fitted."""
    rows = tables.gemm(name, dtype)
    rows = rows[halves(list(zip(rows.n, rows.k, strict=True)))]
    return rows.sample(min(SAMPLE, len(rows)), random_state=SEED)


def gemm_task(name: str, facts: Facts, dtypes: Sequence[str], keys: Sequence[str]) -> Task:
    """Return the fit of linear layers of the dtypes, with each one's efficiency beside `keys`."""
    parts = [(d, fitting_rows(name, d)) for d in dtypes]
    wanted = [*keys, *(f"rates.{d}.efficiency" for d, _ in parts)]

    def residuals(at: Facts) -> Vector:
        each = [np.log(gpu_models.layer_seconds(at, d, r) / r.seconds.to_numpy()) for d, r in parts]
        return np.concatenate(each)

    runtime = f"trtllm {tables.GEMM[name]['trtllm']}"
    return Task(tuple(wanted), residuals, f"{runtime} layers, {', '.join(dtypes)}, half of the (n, k) pairs")


def gemm_tasks(name: str, facts: Facts) -> list[Task]:
    """Return the fits of linear layers: all constants on 16 bits, then what only 8 and 4 bits have."""
    gemv = () if facts.gemv_latency_s is None else ("gemv_latency_s",)
    sixteen, heat = gemm_task(name, facts, ("bf16",), [*MATMUL, *gemv]), heat_task(name)
    # how much a long burst heats a board and how much a steady state does hang together: once more each
    found = [sixteen] if heat is None else [sixteen, heat, sixteen, heat]
    if facts.rates.fp8_e4m3 is not None:
        found.append(gemm_task(name, facts, ("fp8_e4m3",), [*QUANTISE, "rates.fp8_e4m3.k_step_s"]))
    if facts.rates.fp4 is not None:
        found.append(gemm_task(name, facts, ("fp4",), ["quantise_fp4_s", "rates.fp4.k_step_s"]))
    return found


def attention_task(name: str) -> Task:
    """Return the fit of prefill and decode attention on half of the head layouts."""
    parts = []
    for phase in ("context", "generation"):
        rows = tables.attention(name, phase)
        rows = rows[halves(list(zip(rows.num_heads, rows.num_key_value_heads, strict=True)))]
        parts.append((phase, rows.sample(min(SAMPLE, len(rows)), random_state=SEED)))

    def residuals(at: Facts) -> Vector:
        each = [np.log(gpu_models.attention_seconds(at, r, p) / r.seconds.to_numpy()) for p, r in parts]
        return np.concatenate(each)

    return Task(
        ATTENTION, residuals, f"{' '.join(tables.ATTENTION[name])} attention, half of the head layouts"
    )


def bags_task() -> Task | None:
    """Return the fit of embedding bags on half of the published rows."""
    rows = gpu_bags.bags()
    if rows is None:
        return None
    rows = rows[gpu_bags.chosen(rows)]

    def residuals(facts: Facts) -> Vector:
        return np.log(gpu_bags.bag_seconds(facts, rows) / rows.seconds.to_numpy())

    return Task(BAGS, residuals, "ISCA 2023 fig. 12, A100 rows, 64 tables of int8, half of the rows")


def tf32_task() -> Task:
    """Return the fit of TF32 beside bf16 on half of the shapes that OpenXLA published of H100."""
    keys = ("rates.tf32.efficiency", "rates.tf32.k_step_s")
    text = "OpenXLA, what fp32 (as TF32) takes over bf16, half of the shapes"
    return Task(keys, lambda at: np.log(gpu_second.tf32_over_bf16(at)), text)


def links_task(name: str) -> Task:
    """Return the fit of collectives on half of the pairs of operation and message size."""
    rows = tables.collectives(name)
    rows = rows[halves(list(zip(rows.op_name, rows.message_size, strict=True)))]

    def residuals(at: Facts) -> Vector:
        return np.log(gpu_models.nccl_seconds(at, rows) / rows.seconds.to_numpy())

    return Task(LINKS, residuals, f"NCCL {tables.NCCL[name]}, half of the operations and sizes")


def direct_task(name: str) -> Task:
    """Return the fit of a serving runtime's all-reduces on half of the message sizes."""
    rows = tables.direct(name, "trtllm")
    rows = rows[halves(list(rows.message_size))]

    def residuals(at: Facts) -> Vector:
        return np.log(gpu_models.reduce_seconds(at, rows) / rows.seconds.to_numpy())

    return Task(DIRECT, residuals, f"trtllm {tables.DIRECT[name]['trtllm']} all-reduce, half of the sizes")


def row_task(name: str, ops: Sequence[str], keys: Sequence[str], what: str) -> Task | None:
    """Return the fit of row kernels on half of the row counts; None where the reference folder is absent."""
    rows = vidur(name, tuple(ops))
    if rows is None:
        return None
    rows = rows[halves(list(rows.M))]
    return Task(
        tuple(keys),
        lambda at: np.log(rows_seconds(at, rows) / rows.latency_s.to_numpy()),
        f"Vidur {what}, half of the row counts",
    )


def heat_task(name: str) -> Task | None:
    """Return the fit of sustained runs on half of the (n, k) pairs; None where the folder is absent."""
    rows = sustained_rows(name, "bfloat16")
    if rows is None:
        return None
    rows = rows[halves(list(zip(rows.n, rows.k, strict=True)))]

    def residuals(at: Facts) -> Vector:
        modelled = gpu_models.layer_seconds(at, "bf16", rows, True)
        return np.log(modelled / rows.seconds.to_numpy())

    return Task(("sustained_heat",), residuals, "vllm 0.22.0 sustained layers, half of the (n, k) pairs")


def tasks(name: str, facts: Facts) -> list[Task]:
    """Return what can be fitted of a GPU."""
    found: list[Task | None] = list(gemm_tasks(name, facts))
    found += [attention_task(name)] if name in tables.ATTENTION else []
    found += [links_task(name), direct_task(name)] if name in tables.NCCL else []
    found += [tf32_task()] if name == "h100-sxm" else []
    found += [row_task(name, NORMS, ("row_step_s",), "layer norms")]
    found += [row_task(name, NARROW, NARROW_KEYS, "rotary and activation kernels")]
    return [t for t in found if t is not None]
