"""A GGUF file gives the weights, and is the model, that its checkpoint's folder is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from packed import STORED, header_keys, header_tensors, save_gguf
from stored import ORACLE, save_checkpoint
from test_families import run, step

from mtia_emu import api
from mtia_emu.checkpoints import open_checkpoint
from mtia_emu.checkpoints.gguf_config import ARCHITECTURES
from mtia_emu.errors import UserError

FAMILIES = ("llama", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3",
            "granite", "gpt_oss", "phi3")  # fmt: skip
NOT_SAID = {  # of a tiny model no header says it: llama.cpp goes by the sizes of the published ones
    "qwen2": {"windows"}, "gemma2": {"score_scale"}, "gemma3": {"score_scale", "windows"},
    "qwen2_moe": {"routing"}, "phi3": {"rope_scaling"},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_is_the_model_of_its_checkpoint(family: str, tmp_path: Path) -> None:
    right = open_checkpoint(str(save_checkpoint(family, tmp_path)), {})
    path = save_gguf(tmp_path / "tiny.gguf", header_keys(family), header_tensors(family))
    found = open_checkpoint(str(path), {})
    same = {key: getattr(right.model, key) for key in NOT_SAID.get(family, ())} | {
        "source": right.model.source
    }
    assert replace(found.model, **same) == replace(right.model, epsilon=found.model.epsilon)
    assert found.model.epsilon == pytest.approx(right.model.epsilon)
    ours, theirs = replace(found, model=right.model)._values(), right._values()
    for weight in right.model.graph("x", right.dims).weights:
        np.testing.assert_array_equal(ours(weight), theirs(weight), weight.name)


def test_every_architecture_is_held_to_a_checkpoint() -> None:
    assert set(ARCHITECTURES.values()) - set(FAMILIES) == {"llama4"}  # whose experts lie as GPT-OSS's do


def test_a_file_that_gguf_wrote_computes_what_transformers_computes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(STORED["whole"].tobytes())
    tokens = ORACLE["llama/tokens"]
    found = run(path, {"batch": len(tokens), "seq": tokens.shape[1]}, step(tokens, 0))["logits"][:, 0]
    right = STORED["logits"]
    np.testing.assert_allclose(found, right, atol=2e-3 * np.abs(right).max())
    assert np.abs(right - ORACLE["llama/step"]).max() > 5e-3  # 8 bits are not 16


def test_a_file_is_executed_and_says_how_it_is_packed(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(STORED["whole"].tobytes())
    done = api.run(f"hf:{path}", "mtia-2i", dims={"seq": 4}, check=True, gpu=None)
    assert done.check is not None and done.check.passed and done.program.source == "hf:tiny"
    assert any("Q8_0, 8.5 bits each" in note and "near it: int8" in note for note in done.report.notes)


def test_a_header_is_enough_to_time_a_model(tmp_path: Path) -> None:
    data = STORED["whole"].tobytes()
    whole, head = tmp_path / "whole.gguf", tmp_path / "head.gguf"
    whole.write_bytes(data)
    head.write_bytes(data[: len(data) // 8])
    right = api.run(f"hf:{whole}", "mtia-2i", dims={"seq": 4}, gpu=None).report
    assert api.run(f"hf:{head}", "mtia-2i", dims={"seq": 4}, gpu=None).report.cycles == right.cycles
    with pytest.raises(UserError, match="ends before its values"):
        api.run(f"hf:{head}", "mtia-2i", dims={"seq": 4}, gpu=None, check=True)


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    keys, tensors = header_keys("llama"), header_tensors("llama")
    name = "blk.0.ffn_up.weight"
    odd: list[tuple[dict[str, np.ndarray], str]] = [
        ({k: v for k, v in tensors.items() if k != name}, f"no tensor {name}"),
        (tensors | {name: np.zeros((3, 5), np.float16)}, "comes to"),
        (tensors | {"blk.0.attn_q.weight": np.zeros(5, np.float16)}, "cannot be made"),
    ]
    for other, said in odd:
        path = save_gguf(tmp_path / "odd.gguf", keys, other)
        with pytest.raises(UserError, match=said):
            open_checkpoint(str(path), {}).build(tmp_path, 0)
