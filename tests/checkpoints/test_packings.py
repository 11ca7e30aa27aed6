"""Packed checkpoints give the values that transformers unpacks of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from packed import STORED
from stored import about, save_checkpoint, save_mixed
from tensor_values import tensor_values

from mtia_emu.checkpoints import open_checkpoint
from mtia_emu.checkpoints.packings import PackedTensors
from mtia_emu.checkpoints.safetensors import open_tensors
from mtia_emu.errors import UserError

FP8 = ml_dtypes.float8_e4m3fn


def packed(folder: Path, tensors: dict[str, np.ndarray], block: list[int] | None = None) -> PackedTensors:
    """Return tensors as a checkpoint has them that packs its values."""
    save_mixed(folder / "model.safetensors", tensors)
    found = open_tensors(folder)
    return PackedTensors(found.folder, found.found, block)


def test_experts_of_gpt_oss_are_unpacked_as_transformers_does(tmp_path: Path) -> None:
    blocks = {"e_blocks": STORED["mxfp4/blocks"], "e_scales": STORED["mxfp4/scales"]}
    np.testing.assert_array_equal(packed(tmp_path, blocks)["e"], STORED["mxfp4/values"])


SCALED: list[tuple[tuple[int, ...], list[int] | None]] = [
    ((), None), ((1,), None), ((5, 1), None), ((3, 2), [2, 4]), ((1, 1), [128, 128]),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "block"), SCALED)
def test_eight_bit_floats_are_multiplied_by_their_scales(
    shape: tuple[int, ...], block: list[int] | None, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    value = rng.standard_normal((5, 7)).astype(FP8)
    scales = rng.random(shape).astype(np.float32)
    found = packed(tmp_path, {"w": value, "w_scale_inv": scales}, block)["w"]
    for row in range(5):
        for column in range(7):
            at = (row // block[0], column // block[1]) if block else (row, 0)
            scale = scales.reshape(-1)[0] if scales.size == 1 else scales[at]
            assert found[row, column] == np.float32(value[row, column]) * scale


ROWS = np.zeros((1, 2, 3), np.uint8)
WRONG: list[tuple[dict[str, np.ndarray], list[int] | None, str]] = [
    ({"w": np.zeros((4, 4), FP8)}, None, "packed as F8_E4M3"),
    ({"w": np.zeros((4, 4), FP8), "w_scale": np.zeros((3, 1), np.float32)}, None, r"\[3, 1\] for \[4, 4\]"),
    ({"w": np.zeros((4, 4), FP8), "w_scale": np.zeros((1, 2), np.float32)}, [2, 2], r"for \[4, 4\]"),
    ({"w_blocks": np.zeros((1, 2, 3, 16), np.uint8)}, None, "w_scales is absent"),
    (
        {"w_blocks": np.zeros((1, 2, 3), np.uint8), "w_scales": np.zeros((1, 2, 3), np.uint8)},
        None,
        "right: .experts",
    ),
    (
        {"w_blocks": np.zeros((1, 2, 3, 16), np.float16), "w_scales": np.zeros((1, 2, 3), np.uint8)},
        None,
        "F16",
    ),
]


@pytest.mark.parametrize(("tensors", "block", "said"), WRONG)
def test_what_does_not_fit_is_refused(
    tensors: dict[str, np.ndarray], block: list[int] | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        packed(tmp_path, tensors, block)["w"]


def with_config(folder: Path, name: str, **changes: Any) -> None:
    """Write a model's `config.json` with keys changed."""
    (folder / "config.json").write_text(json.dumps(about(name)["config"] | changes))


def test_a_packed_deepseek_is_the_one_that_it_was_packed_of(tmp_path: Path) -> None:
    save_checkpoint("deepseek_v3", tmp_path)
    block = [16, 16]
    mixed: dict[str, np.ndarray] = {}
    for name, shape in about("deepseek_v3")["tensors"].items():
        value = tensor_values(name, shape)
        if value.ndim < 2 or "embed" in name or "gate.weight" in name:
            mixed[name] = value
            continue
        mixed[name] = (value.astype(np.float32) * 4).astype(FP8)
        mixed[f"{name}_scale_inv"] = np.full([-(-n // 16) for n in shape], 0.25, np.float32)
    save_mixed(tmp_path / "model.safetensors", mixed)
    with_config(
        tmp_path, "deepseek_v3", quantization_config={"quant_method": "fp8", "weight_block_size": block}
    )
    found = open_checkpoint(str(tmp_path), {})
    given = found._values()
    weight = next(w for w in found.model.graph("x", found.dims).weights if "o_proj" in w.name)
    right = mixed[weight.name].astype(np.float32).T / 4
    np.testing.assert_array_equal(given(weight), right.astype(np.float16))
    assert found.build(tmp_path, 0).is_file()


def test_packings_that_are_not_read_name_those_that_are(tmp_path: Path) -> None:
    save_checkpoint("llama", tmp_path)
    with_config(tmp_path, "llama", quantization_config={"quant_method": "awq"})
    with pytest.raises(UserError, match=r"packed by 'awq' and not read .read: fp8, mxfp4"):
        open_checkpoint(str(tmp_path), {}).build(tmp_path, 0)
