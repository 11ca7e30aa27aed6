"""GPU files that mean harm, or are broken: refused by name, or harmless."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.gpu import gpu_text, load_gpu
from mtia_emu.gpu.load import MAX_FILE_BYTES, known_keys
from mtia_emu.options import Mode
from mtia_emu.types import (
    BF16,
    FP16,
    WORKS,
    AttentionWork,
    BagWork,
    CopyWork,
    ElementwiseWork,
    ExpertsWork,
    ImplicitGemmWork,
    ModelWork,
    ProductWork,
    RotaryWork,
    RowUpdateWork,
    RowWork,
    ScanWork,
    Work,
)

HEADS = {"kv_heads": 8, "keys": 2048, "key_size": 128, "value_size": 128}
MOVED = {"read_bytes": 2 * 10**6, "write_bytes": 2 * 10**6}
VECTOR = {"elements": 10**6, "flops": 10**6, **MOVED}
LOOKED_UP = {"lookups": 10**5, "bags": 100, "dim": 64, "rows": 10**6, "flops": 10**7}
LOOPED = {"steps": 100, "depth": 12, "flops": 10**6, **MOVED}
ALL: tuple[Work, ...] = (
    ProductWork("mm", "matmul", BF16, batch=1, m=64, k=4096, n=4096, flops=0, **MOVED),
    ExpertsWork(
        "moe",
        "expert_matmul",
        BF16,
        batch=8,
        m=8,
        rows=64,
        k=4096,
        n=4096,
        expert_bytes=1 << 25,
        flops=0,
        **MOVED,
    ),
    ImplicitGemmWork("conv", "conv", BF16, batch=1, m=4096, k=576, n=64, flops=0, left_bytes=10**6, **MOVED),
    AttentionWork("decode", "attention", BF16, batch=8, group=4, queries=1, **HEADS),
    AttentionWork("prefill", "attention", BF16, batch=1, group=4, queries=64, diagonal=1984, **HEADS),
    RowWork("softmax", "softmax", FP16, row=1000, **VECTOR),
    RotaryWork("turn", "rotary", FP16, row=1000, **VECTOR),
    ElementwiseWork("add", "add", FP16, **VECTOR),
    CopyWork("copy", "copy", FP16, **MOVED),
    ScanWork("lstm", "scan", FP16, rows=4, k=512, n=2048, **LOOPED),
    ScanWork("wide", "scan", FP16, rows=4, k=8192, n=32768, **LOOPED),
    ScanWork("mamba", "scan", FP16, rows=4096, k=0, n=0, **LOOPED),
    BagWork("bag", "embedding_bag", FP16, read_bytes=10**7, write_bytes=12_800, **LOOKED_UP),
    RowUpdateWork(
        "rows",
        "update_rows",
        FP16,
        lookups=1000,
        dim=64,
        rows=10**6,
        changed=999,
        pieces=1998,
        narrow=999,
        old_bytes=10**5,
        flops=10**6,
        **MOVED,
    ),
)
VALUES = ["1e308", "1e30", "1e9", "1e-30", "5e-324", "0.0", "-1.0", "nan", "inf", "-inf", "0", "-1", "64"]
VALUES += ["9" * 400, '"x"', "[]", "[[64, 64], [1e9, 1]]", "true", "1979-05-27", "{ a = 1 }"]


@settings(max_examples=400)
@given(st.sampled_from(known_keys()), st.sampled_from(VALUES), st.booleans())
def test_a_hostile_value_is_refused_or_harmless(key: str, value: str, sustained: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an overflow in a sum would only warn
        try:
            gpu = load_gpu("b200", {key: value})
        except UserError as error:
            assert "gpu" in str(error) and len(str(error)) < 2000
            return
        assert {type(work) for work in ALL} == set(WORKS)
        for work in ALL:
            kernel = gpu.kernel(work, mode=Mode(sustained=sustained))
            assert 0 < kernel.seconds < math.inf
            assert 0 <= kernel.joules <= gpu.tdp_w * kernel.seconds * (1 + 1e-9)
        report = gpu.report(ModelWork(ALL, dtype="bf16"))
        assert report.cycles >= 0 and math.isfinite(report.joules)
        if gpu.links is not None:
            assert 0 <= gpu.collective_seconds("all_reduce", 1 << 20, 8) < math.inf


@pytest.mark.parametrize("key", known_keys())
def test_a_missing_key_is_named_or_optional(key: str, tmp_path: Path) -> None:
    document = tomlkit.parse(gpu_text("b200"))
    *outer, last = key.split(".")
    table = document
    for part in outer:
        table = table.get(part, {})  # type: ignore[assignment]
    table.pop(last, None)
    path = tmp_path / "mine.toml"
    path.write_text(tomlkit.dumps(document))
    if re.fullmatch(r"gemv_latency_s|rates\.\w+\.(k_step_s|cuts_k)|links\.direct", key):
        assert load_gpu(str(path)).matmul_seconds(64, 4096, 4096, "fp4") > 0
        return
    with pytest.raises(UserError, match=re.escape(f"key '{key}' is missing")):
        load_gpu(str(path))


def test_large_files_and_binaries_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(UserError, match="at most 262144 are read"):
        load_gpu(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as text"):
        load_gpu(str(path))
    path.write_text("a = " + "[" * 5000)
    with pytest.raises(UserError, match=re.escape(str(path))):
        load_gpu(str(path))
