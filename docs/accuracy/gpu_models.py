"""The GPU reference under the conditions of each measurement: what was timed, and what L2 held already."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtia_emu.gpu import Facts, Rate
from mtia_emu.gpu import attention as flash
from mtia_emu.gpu.collectives import direct_seconds
from mtia_emu.gpu.collectives import seconds as collective_seconds
from mtia_emu.gpu.facts import ELEMENT_BYTES
from mtia_emu.gpu.kernel import Board, active_joules, throttled
from mtia_emu.gpu.matmul import roofline_seconds, seconds
from mtia_emu.gpu.shapes import Shapes, Sizes, shapes

Frame = Any
COPIES = 5  # at most, of weights that a measurement cycles through (aiconfigurator's collectors)
QUANTISE_BYTES = {"fp8_e4m3": 7.0, "fp4": 2.5625}
"""Bytes an activation that quantising moves: fp8 with a dynamic scale reads 2 and writes 2 (magnitudes),
reads 2 (the scale), writes 1; fp4 with a static scale reads 2 and writes 0.5625.
"""


def element_bytes(dtype: str) -> float:
    """Return the bytes of an element."""
    return ELEMENT_BYTES.get(dtype, {"bf16": 2.0, "fp8_e4m3": 1.0}.get(dtype, 2.0))


def kept(facts: Facts, total: np.ndarray) -> np.ndarray:
    """Return the share of `total` bytes, read again and again, that L2 still holds.

    All of them up to 3/4 of what it keeps, none from 5/4 on.
    """
    usable = facts.l2_usable * facts.l2_bytes
    return np.clip((1.25 * usable - total) / (0.5 * usable), 0, 1)


def linear(facts: Facts, dtype: str, rows: Frame) -> Shapes:
    """Return the matmuls as they were measured: on up to five copies of the weights, so that they span L2."""
    element = element_bytes(dtype)
    m, k, n = (rows[c].to_numpy(float) for c in "mkn")
    weights, outputs = n * k * element, m * n * 2
    copies = np.clip(np.ceil(facts.l2_bytes / weights), 1, COPIES)
    warm = kept(facts, copies * (weights + outputs) + m * k * element)
    return shapes((1, m, k, n), element, warm)


def quantise_seconds(facts: Facts, dtype: str, rows: Frame) -> np.ndarray:
    """Return the time that quantising the activations adds to a measured fp8 or fp4 layer."""
    if dtype not in QUANTISE_BYTES:
        return np.zeros(len(rows))
    moved = QUANTISE_BYTES[dtype] * rows.m.to_numpy(float) * rows.k.to_numpy(float)
    cold = np.maximum(0.0, moved - facts.l2_usable * facts.l2_bytes)
    start = facts.quantise_s if dtype == "fp8_e4m3" else facts.quantise_fp4_s
    streamed = np.maximum(moved / facts.l2_bytes_per_s, cold / facts.stream_bytes_per_s)
    return start + streamed / facts.quantise_efficiency


def layer_seconds(facts: Facts, dtype: str, rows: Frame, steady: bool = False) -> np.ndarray:
    """Return the time of measured linear layers: quantising, then the matmul."""
    rate, board = facts.rate(dtype)[1], Board(facts, steady)
    return seconds(board, rate, linear(facts, dtype, rows)) + quantise_seconds(facts, dtype, rows)


def _sizes(rows: Frame) -> Sizes:
    m, k, n = (rows[c].to_numpy(float) for c in "mkn")
    return 1, m, k, n


def roofline(facts: Facts, dtype: str, rows: Frame) -> np.ndarray:
    """Return the datasheet roofline of the same layers, cold."""
    element = element_bytes(dtype)
    s = shapes(_sizes(rows), element)
    return roofline_seconds(facts, facts.rate(dtype)[1], s)


def derated(facts: Facts, dtype: str, rows: Frame, constants: tuple[float, float, float]) -> np.ndarray:
    """Return a roofline with a share of the rate, a share of the bandwidth, and a fixed time."""
    rate = facts.rate(dtype)[1]
    s = shapes(_sizes(rows), element_bytes(dtype))
    compute, memory, start = constants
    work = 2 * s.macs[:, 0] / (compute * rate.flops_per_s)
    return start + np.maximum(work, s.cold_bytes[:, 0] / (memory * facts.dram_bytes_per_s))


def heads(facts: Facts, rows: Frame, phase: str) -> flash.HeadShape:
    """Return measured attention: one cache, read by every repeat, so that L2 keeps small ones."""
    kv, group = (
        rows.num_key_value_heads.to_numpy(float),
        (rows.num_heads / rows.num_key_value_heads).to_numpy(),
    )
    queries = rows.isl.to_numpy(float)
    keys = queries + rows.step.to_numpy(float) if phase == "generation" else queries
    batch = rows.batch_size.to_numpy(float)
    whole = flash.HeadShape(batch, kv, group, queries, keys, 128.0, 128.0, 2.0, phase == "context")
    warm = kept(facts, whole.kv_bytes + whole.io_bytes)
    causal, scattered = phase == "context", (batch > 1) & (kv > 1)
    return flash.HeadShape(batch, kv, group, queries, keys, 128.0, 128.0, 2.0, causal, warm, scattered)


def attention_seconds(facts: Facts, rows: Frame, phase: str) -> np.ndarray:
    """Return the time of measured attention under the power limit."""
    rate: Rate = facts.rate("bf16")[1]
    h = heads(facts, rows, phase)
    free = flash.seconds(facts, rate, h)
    active, cool = active_joules(facts, free), 2 * rate.j_per_flop * h.macs
    dram = facts.dram_j_per_byte * (h.kv_bytes + h.io_bytes) * (1 - np.asarray(h.warm))
    return throttled(facts, free, active + dram + cool * Board(facts).heat(free, active + dram + cool))


def nccl_seconds(facts: Facts, rows: Frame) -> np.ndarray:
    """Return the time of measured collectives."""
    assert facts.links is not None
    out = np.empty(len(rows))
    for kind in rows.op_name.unique():
        mask = (rows.op_name == kind).to_numpy()
        part = rows[mask]
        out[mask] = collective_seconds(facts.links, kind, part.bytes.to_numpy(), part.num_gpus.to_numpy())
    return out


def reduce_seconds(facts: Facts, rows: Frame) -> np.ndarray:
    """Return the time of measured all-reduces of a serving runtime, or the library's where it is less."""
    assert facts.links is not None
    size, gpus = rows.bytes.to_numpy(), rows.num_gpus.to_numpy()
    library = collective_seconds(facts.links, "all_reduce", size, gpus)
    return np.minimum(direct_seconds(facts.links, size, gpus), library)
