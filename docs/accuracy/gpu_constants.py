"""The fitted constants of the GPU files: within which bounds each may lie, and where its fit starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtia_emu.gpu import Facts

BOUNDS: dict[str, tuple[float, float]] = {
    "matmul_latency_s": (1e-7, 5e-6), "gemv_latency_s": (1e-7, 5e-6), "tile_s": (1e-8, 1e-5),
    "k_step_s": (5e-9, 1e-6), "wave_s": (1e-8, 2e-5), "split_s": (3e-7, 8e-6),
    "reduce_bytes_per_s": (5e11, 5e13), "overlap": (1.5, 12.0), "matmul_dram_efficiency": (0.5, 0.98),
    "l2_efficiency": (0.3, 2.0), "l2_usable": (0.2, 1.0), "heat_s": (1e-4, 1.0), "quantise_s": (1e-6, 2e-5),
    "quantise_efficiency": (0.2, 1.0), "quantise_fp4_s": (5e-7, 2e-5),
    "rates.fp8_e4m3.k_step_s": (5e-9, 5e-6),
    "rates.tf32.efficiency": (0.4, 1.0), "rates.tf32.k_step_s": (5e-9, 5e-6),
    "rates.bf16.efficiency": (0.5, 1.0), "rates.fp8_e4m3.efficiency": (0.4, 1.0),
    "rates.fp4.efficiency": (0.3, 1.0), "rates.fp4.k_step_s": (5e-9, 5e-6),
    "attention.prefill_s": (2e-6, 3e-5), "attention.decode_s": (2e-6, 3e-5),
    "attention.block_s": (1e-7, 1e-5),
    "attention.query_block_s": (1e-8, 1e-5), "attention.split_s": (1e-8, 2e-5),
    "attention.sm_bytes_per_s": (3e9, 2e11), "attention.efficiency": (0.2, 1.0),
    "attention.prefill_dram_efficiency": (0.3, 0.98), "attention.decode_dram_efficiency": (0.5, 0.98),
    "links.efficiency": (0.05, 1.0), "links.latency_s": (1e-6, 3e-5), "links.hop_s": (1e-7, 1e-5),
    "links.small_bytes_per_s": (5e8, 4e11), "links.large_s": (1e-7, 2e-4), "row_step_s": (5e-8, 3e-6),
    "narrow_step_s": (5e-8, 3e-6), "narrow_efficiency": (0.1, 1.0),
    "sustained_heat": (1.0, 3.0), "bag_clocks": (1.0, 1e3), "lookup_clocks": (1.0, 1e3),
    "element_clocks": (1e-3, 10.0), "links.direct.start_s": (5e-7, 3e-5),
    "links.direct.peer_s": (1e-9, 1e-5), "links.direct.two_shot_s": (1e-7, 1e-4),
    "links.direct.efficiency": (0.1, 1.0),
}  # fmt: skip
START: dict[str, float] = {
    "matmul_latency_s": 1.2e-6, "gemv_latency_s": 2.8e-6, "tile_s": 1e-6, "k_step_s": 1e-7, "wave_s": 5e-7,
    "split_s": 2.5e-6, "reduce_bytes_per_s": 5e12, "overlap": 3.0, "matmul_dram_efficiency": 0.8,
    "l2_efficiency": 1.0, "l2_usable": 0.5, "heat_s": 5e-3, "quantise_s": 1e-5,
    "quantise_efficiency": 0.7, "quantise_fp4_s": 2e-6, "rates.fp8_e4m3.k_step_s": 1e-7,
    "rates.tf32.efficiency": 0.85, "rates.tf32.k_step_s": 1e-7,
    "rates.bf16.efficiency": 0.9,
    "rates.fp8_e4m3.efficiency": 0.75, "rates.fp4.efficiency": 0.7, "rates.fp4.k_step_s": 3e-7,
    "attention.prefill_s": 1.1e-5, "attention.decode_s": 1.1e-5,
    "attention.block_s": 3.5e-6, "attention.query_block_s": 1e-6, "attention.split_s": 2e-6,
    "attention.sm_bytes_per_s": 2.5e10, "attention.efficiency": 0.6, "attention.prefill_dram_efficiency": 0.8,
    "attention.decode_dram_efficiency": 0.85, "links.efficiency": 0.8, "links.latency_s": 5e-6,
    "links.hop_s": 1e-6, "links.small_bytes_per_s": 1e11, "links.large_s": 1.5e-5, "row_step_s": 5e-7,
    "narrow_step_s": 5e-7, "narrow_efficiency": 0.6,
    "sustained_heat": 1.4, "bag_clocks": 20.0, "lookup_clocks": 10.0, "element_clocks": 0.1,
    "links.direct.start_s": 3e-6, "links.direct.peer_s": 1e-7, "links.direct.two_shot_s": 3e-6,
    "links.direct.efficiency": 0.7,
}  # fmt: skip
"""Where every fit starts, the same for all GPUs, so that a rerun gives the same values."""

MATMUL = ("matmul_latency_s", "tile_s", "k_step_s", "wave_s", "split_s", "reduce_bytes_per_s", "overlap",
          "matmul_dram_efficiency", "l2_efficiency", "l2_usable", "heat_s")  # fmt: skip
ATTENTION = tuple(k for k in BOUNDS if k.startswith("attention."))
QUANTISE = ("quantise_s", "quantise_efficiency")
NARROW_KEYS = ("narrow_step_s", "narrow_efficiency")
BAGS = ("bag_clocks", "lookup_clocks", "element_clocks")
LINKS = tuple(k for k in BOUNDS if k.startswith("links.") and "direct" not in k)
DIRECT = tuple(k for k in BOUNDS if k.startswith("links.direct."))


def get(facts: Facts, key: str) -> float:
    """Return a value by its dotted key."""
    value: Any = facts
    for part in key.split("."):
        value = getattr(value, part)
    return float(value)


def put(facts: Facts, values: Mapping[str, float]) -> Facts:
    """Return the facts with values put at dotted keys."""
    for key, value in values.items():
        facts = _with(facts, key.split("."), value)
    return facts


def _with(model: Any, path: Sequence[str], value: float) -> Any:
    inner = value if len(path) == 1 else _with(getattr(model, path[0]), path[1:], value)
    return model.model_copy(update={path[0]: inner})
