"""Whose constants a GPU borrows where it has no table of its own."""

from __future__ import annotations

from collections.abc import Mapping

from accuracy.gpu_constants import BAGS, BOUNDS, DIRECT, NARROW_KEYS, QUANTISE, get
from accuracy.gpu_write import write
from mtia_emu.gpu import Facts, load_gpu

NEAREST = {"a100-sxm-40gb": "a100-sxm-80gb", "v100": "a100-sxm-80gb", "h100-pcie": "h100-sxm",
           "mi300x": "h100-sxm"}  # fmt: skip
"""GPUs without tables of their own, and the one whose fitted constants they borrow."""

OWN = {
    "mi300x": ("l2_usable", "rates.tf32.efficiency", "rates.bf16.efficiency", "rates.fp8_e4m3.efficiency"),
    "v100": ("rates.bf16.efficiency",),
}
"""What such a GPU has a source of its own for, or lacks."""

POWER = ("sustained_heat",)
VECTOR = ("row_step_s", *NARROW_KEYS)
TF32 = ("rates.tf32.efficiency", "rates.tf32.k_step_s")
TF32_GPUS = ("h100-sxm", "h200-sxm", "b200", "h100-pcie", "mi300x")
"""GPUs with TF32 as H100 was measured; on the others it is as efficient as bf16."""
GAPS = {
    "a100-sxm-80gb": dict.fromkeys(POWER, "h200-sxm") | dict.fromkeys(QUANTISE, "h100-sxm"),
    "h100-sxm": dict.fromkeys(POWER, "h200-sxm"),
    "h200-sxm": dict.fromkeys((*VECTOR, *TF32), "h100-sxm"),
    "b200": dict.fromkeys((*VECTOR, *TF32), "h100-sxm"),
    "l40s": dict.fromkeys(VECTOR, "a100-sxm-80gb") | dict.fromkeys(POWER, "h200-sxm"),
}
"""What a GPU with tables has none for, and the GPU whose value stands in."""


def borrow(name: str, keys: Mapping[str, str]) -> None:
    """Put values of other GPUs into a GPU's file, saying whose they are."""
    for other in sorted(set(keys.values())):
        found: Facts = load_gpu(other)
        values = {k: get(found, k) for k, whose in keys.items() if whose == other}
        write(name, values, f"make fit-gpu: no table of its own, as {other}")


LIKE = {"tf32": "bf16", "fp16": "bf16", "int8": "fp8_e4m3"}
"""Dtypes without a table, and the one of the same tensor core whose efficiency stands in."""


def alike(name: str) -> None:
    """Put efficiency and step of a dtype's like where it has no table, on the GPUs that have tables."""
    facts: Facts = load_gpu(name)
    for dtype, other in LIKE.items():
        found = getattr(facts.rates, other)
        measured = dtype == "tf32" and name in TF32_GPUS
        if getattr(facts.rates, dtype) is not None and found is not None and not measured:
            each = {"efficiency": found.efficiency, "k_step_s": found.k_step_s}
            values = {f"rates.{dtype}.{key}": value for key, value in each.items() if value is not None}
            write(name, values, f"make fit-gpu: no table of its own, as {other}")


def all_of(name: str) -> dict[str, str]:
    """Return every fitted key of a GPU without tables, with whose value stands in."""
    other, facts = NEAREST[name], load_gpu(name)
    keys = [k for k in BOUNDS if "fp4" not in k and k not in (*BAGS, *OWN.get(name, ()))]
    keys = [k for k in keys if k != "gemv_latency_s" or facts.gemv_latency_s is not None]
    keys = [k for k in keys if k not in TF32 or name in TF32_GPUS]
    keys = [
        k for k in keys if k not in DIRECT or (facts.links is not None and facts.links.direct is not None)
    ]
    return {k: other for k in keys if not k.startswith("rates.") or getattr(facts.rates, k.split(".")[1])}
