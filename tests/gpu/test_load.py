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
from mtia_emu.types import BF16, FP16, Work

WORKS = [
    Work("mm", "matmul", "matmul", BF16, (1, 64, 4096, 4096), 1 << 30, 0, 68_157_440, 1 << 19),
    Work("decode", "attention", "attention", BF16, (64, 4, 0, 2048, 128, 128), 1 << 27, 0, 1 << 26, 1 << 16),
    Work(
        "prefill", "attention", "attention", BF16, (8, 256, 64, 2048, 128, 128), 1 << 30, 0, 1 << 24, 1 << 20
    ),
    Work("softmax", "softmax", "vector", FP16, (10**6,), 0, 10**6, 2 * 10**6, 2 * 10**6, 1000),
    Work("turn", "rotary", "vector", FP16, (10**6,), 0, 10**6, 2 * 10**6, 2 * 10**6, 1000),
    Work("bag", "embedding_bag", "embedding_bag", FP16, (10**5, 100, 64, 10**6), 0, 10**7, 10**7, 12_800),
]
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
        for work in WORKS:
            kernel = gpu.kernel(work, sustained=sustained)
            assert 0 < kernel.seconds < math.inf
            assert 0 <= kernel.joules <= gpu.tdp_w * kernel.seconds * (1 + 1e-9)
        report = gpu.run(WORKS, model="", dtype="bf16", dims={})
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
    if re.fullmatch(r"gemv_latency_s|rates\.\w+\.(k_step_s|cuts_k)", key):
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
