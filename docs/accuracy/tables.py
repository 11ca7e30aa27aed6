"""The measured tables: NVIDIA's, from the package `aiconfigurator-core`, and the reference folder's."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = Path(os.environ.get("MTIA_EMU_REFERENCE", ROOT.parent / "shared" / "reference"))
PACKAGE = "aiconfigurator_core"

SYSTEMS = {
    "a100-sxm-80gb": "a100_sxm",
    "h100-sxm": "h100_sxm",
    "h200-sxm": "h200_sxm",
    "b200": "b200_sxm",
    "l40s": "l40s",
}
GEMM = {
    "a100-sxm-80gb": {"trtllm": "1.0.0", "vllm": "0.14.0", "sglang": "0.5.10"},
    **{
        name: {"trtllm": "1.3.0rc20", "vllm": "0.24.0", "sglang": "0.5.14"}
        for name in ("h100-sxm", "h200-sxm", "b200", "l40s")
    },
}
"""Runtimes and versions whose GEMM tables are read; the first is the one that is fitted and scored."""

ATTENTION = {
    "a100-sxm-80gb": ("vllm", "0.14.0"),
    "h100-sxm": ("vllm", "0.24.0"),
    "h200-sxm": ("vllm", "0.24.0"),
    "b200": ("trtllm", "1.3.0rc20"),
    "l40s": ("trtllm", "1.3.0rc20"),
}
ATTENTION_OTHERS = {
    "a100-sxm-80gb": {"trtllm": "1.0.0", "sglang": "0.5.10"},
    "h100-sxm": {"trtllm": "1.3.0rc20", "sglang": "0.5.14"},
    "h200-sxm": {"trtllm": "1.3.0rc20", "sglang": "0.5.14"},
    "b200": {"vllm": "0.24.0", "sglang": "0.5.14"},
    "l40s": {"vllm": "0.24.0", "sglang": "0.5.14"},
}
"""Runtimes whose attention was not fitted: a second source."""
NCCL = {"a100-sxm-80gb": "2.27.3", "h100-sxm": "2.29.2", "h200-sxm": "2.29.2", "b200": "2.29.2"}
DIRECT = {
    "a100-sxm-80gb": {"trtllm": "1.0.0", "vllm": "0.14.0"},
    **{name: {"trtllm": "1.3.0rc20", "vllm": "0.24.0"} for name in ("h100-sxm", "h200-sxm", "b200")},
}
"""Runtimes whose own all-reduces are read; the first is the one that is fitted and scored."""
DTYPES = {"bf16": "bfloat16", "fp8_e4m3": "fp8", "fp4": "nvfp4"}

Frame = Any


def systems() -> Path:
    """Return the folder of the package's tables; leave, saying how to install it, where it is absent."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        sys.exit("the measured tables are not installed: pip install 'mtia-emu[accuracy]'")
    return Path(found.origin).parent / "systems" / "data"


def version() -> str:
    """Return the version of the package of tables."""
    return importlib.metadata.version(PACKAGE)


def read(path: Path) -> Frame:
    """Return a table of the package."""
    import pandas

    return pandas.read_parquet(path)


def gemm(name: str, dtype: str, runtime: str = "trtllm") -> Frame:
    """Return m, n, k and seconds of a GPU's measured linear layers, a row a shape (median of repeats)."""
    path = systems() / SYSTEMS[name] / "gemm" / runtime / GEMM[name][runtime] / "gemm_perf.parquet"
    rows = read(path)
    rows = rows[rows.gemm_dtype == DTYPES[dtype]]
    out = rows.groupby(["m", "n", "k"], as_index=False).latency.median()
    return out.assign(seconds=out.latency * 1e-3)


def attention(name: str, phase: str, other: tuple[str, str] | None = None) -> Frame:
    """Return bf16 attention of head size 128 without a window: `phase` is "context" or "generation".

    `other` is a runtime and its version; without it, the one that is fitted.
    """
    runtime, release = other or ATTENTION[name]
    folder = systems() / SYSTEMS[name] / "attention" / runtime / release
    rows = read(folder / f"{phase}_attention_perf.parquet")
    rows = rows[
        (rows.attn_dtype == "bfloat16") & (rows.kv_cache_dtype == "bfloat16") & (rows.head_dim == 128)
    ]
    if "window_size" in rows:
        rows = rows[rows.window_size == 0]
    keys = ["batch_size", "isl", "step", "num_heads", "num_key_value_heads"]
    out = rows.groupby(keys, as_index=False).latency.median()
    return out.assign(seconds=out.latency * 1e-3)


def collectives(name: str) -> Frame:
    """Return fp16 NCCL collectives of 2, 4 and 8 GPUs; `bytes` is the whole message."""
    path = systems() / SYSTEMS[name] / "comm" / "nccl" / NCCL[name] / "nccl_perf.parquet"
    rows = read(path)
    rows = rows[(rows.nccl_dtype == "half") & rows.num_gpus.isin([2, 4, 8])]
    out = rows.groupby(["op_name", "num_gpus", "message_size"], as_index=False).latency.median()
    return out.assign(seconds=out.latency * 1e-3, bytes=2.0 * out.message_size)


def direct(name: str, runtime: str) -> Frame:
    """Return bf16 all-reduces of a serving runtime's own kernels; `bytes` is the whole message."""
    folder = systems() / SYSTEMS[name] / "comm" / runtime / DIRECT[name][runtime]
    rows = read(folder / "custom_allreduce_perf.parquet")
    if "backend" in rows:
        rows = rows[rows.backend == f"{runtime}_graph"]
    out = rows.groupby(["num_gpus", "message_size"], as_index=False).latency.median()
    return out.assign(seconds=out.latency * 1e-3, bytes=2.0 * out.message_size)


def reference(file: str) -> Frame | None:
    """Return a table of the reference folder, None where it is not there."""
    import pandas

    path = REFERENCE / "gpu" / file
    return pandas.read_csv(path) if path.is_file() else None
