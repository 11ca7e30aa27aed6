"""Measurements of the reference folder: norms and elementwise kernels, sustained runs with watts."""

from __future__ import annotations

from typing import Any

import numpy as np

from accuracy import tables
from mtia_emu.gpu import Facts
from mtia_emu.gpu.kernel import Board
from mtia_emu.gpu.memory import rotary, rowwise, streamed
from mtia_emu.types import FP16, ElementwiseWork, RotaryWork, RowWork

Frame = Any
VIDUR = {"a100-sxm-80gb": "A100-80GB", "h100-sxm": "H100-80GB"}
POWER = {"h200-sxm": "NVIDIA H200", "b200": "NVIDIA B200"}
LEAST_S = 50e-6  # power of shorter kernels is noise: the meter averages over a second
COARSE_S = 4e-6  # times are whole microseconds in the source: below this their rounding is more than 12 %

OPERANDS = {"add": (2, 1, 0), "attn_rope": (1, 1, 1), "mlp_act": (2, 1, 1), "input_layernorm": (1, 1, 1),
            "post_attention_layernorm": (1, 1, 1), "emb": (1, 1, 1)}  # fmt: skip
"""Tensors read and written by the kernels in the source, and whether one block of threads takes a row."""

NARROW = ("attn_rope", "mlp_act")  # a thread of these moves one element at a time, once through the row
NORMS = ("input_layernorm", "post_attention_layernorm")

GROUPS = {
    "add": ("add",),
    "rotary, activation": NARROW,
    "norm": NORMS,
}


def vidur(name: str, ops: tuple[str, ...]) -> Frame | None:
    """Return measured kernels of one kind, those long enough to be timed in whole microseconds."""
    rows = tables.reference("measured_elementwise.csv")
    if rows is None or name not in VIDUR:
        return None
    rows = rows[(rows.device == VIDUR[name]) & rows.op.isin(ops) & (rows.latency_s >= COARSE_S)]
    return rows.reset_index(drop=True)


def vector_seconds(board: Board, m: int, n: int, op: str) -> float:
    """Return the time of a measured kernel on m rows of n fp16 elements."""
    reads, writes, by_row = OPERANDS[op]
    size = m * n
    moved = {"read_bytes": 2 * reads * size, "write_bytes": 2 * writes * size}
    given = {"elements": size, "flops": size} | moved
    if op in NARROW:
        return rotary(board, RotaryWork("", op, FP16, row=n, **given)).seconds
    if by_row:
        return rowwise(board, RowWork("", op, FP16, row=n, **given)).seconds
    return streamed(board, ElementwiseWork("", op, FP16, **given)).seconds


def rows_seconds(facts: Facts, rows: Frame) -> np.ndarray:
    """Return the time of measured vector kernels."""
    each = zip(rows.M, rows.N, rows.op, strict=True)
    board = Board(facts)
    return np.array([vector_seconds(board, int(m), int(n), op) for m, n, op in each])


def sustained_rows(name: str, dtype: str, least_s: float = LEAST_S) -> Frame | None:
    """Return linear layers of sustained runs of `least_s` and more, with their watts and joules."""
    rows = tables.reference("measured_gemm_power.csv")
    if rows is None or name not in POWER:
        return None
    rows = rows[(rows.device == POWER[name]) & (rows.dtype == dtype) & (rows.latency_s >= least_s)]
    return rows.assign(seconds=rows.latency_s).reset_index(drop=True)


def sustained(facts: Facts, dtype: str, rows: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return the seconds and the watts of linear layers on a board in steady state."""
    from accuracy.gpu_models import linear, quantise_seconds
    from mtia_emu.gpu.matmul import choose

    rate, s = facts.rate(dtype)[1], linear(facts, dtype, rows)
    chosen = choose(Board(facts, steady=True), rate, s)
    at = chosen.column[:, None]
    moved = np.take_along_axis(np.broadcast_to(chosen.times.dram_bytes, chosen.free.shape), at, 1)[:, 0]
    active = np.take_along_axis(chosen.active, at, 1)[:, 0]
    compute = np.take_along_axis(chosen.compute, at, 1)[:, 0]
    work = compute + facts.dram_j_per_byte * moved + active
    watts = np.minimum(facts.tdp_w, facts.idle_w + work / chosen.seconds)
    extra = quantise_seconds(facts, dtype, rows)
    return chosen.seconds + extra, watts
