"""Weights of a checkpoint have the shapes of its config, and values that fp16 holds, or are refused."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from stored import NAMES, about, save_checkpoint, save_tensors
from tensor_values import tensor_values

from mtia_emu import api, settings, train
from mtia_emu.checkpoints import open_checkpoint
from mtia_emu.checkpoints.safetensors import SINGLE, open_tensors
from mtia_emu.checkpoints.weights import CheckpointValues
from mtia_emu.errors import UserError
from mtia_emu.sources import training_dims

EMBEDDINGS = "model.embed_tokens.weight"


def tensors(name: str) -> dict[str, np.ndarray]:
    """Return the tensors of a stored checkpoint."""
    return {key: tensor_values(key, shape) for key, shape in about(name)["tensors"].items()}


def test_a_checkpoint_is_executed_with_its_own_values(tmp_path: Path) -> None:
    save_checkpoint("qwen3", tmp_path)
    done = api.run(f"hf:{tmp_path}", "mtia-2i", dims={"seq": 4}, check=True, gpu=None)
    assert done.check is not None and done.check.passed
    other = api.run(f"hf:{tmp_path}", "mtia-2i", dims={"seq": 4}, check=True, gpu=None, seed=1)
    program = api.compile_model(f"hf:{tmp_path}", dims={"seq": 4}, seed=2)
    stored = np.asarray(program.data[EMBEDDINGS])
    np.testing.assert_array_equal(stored, tensors("qwen3")[EMBEDDINGS])
    assert other.check is not None and other.check.passed


def test_a_config_alone_is_executed_with_random_values(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(about("llama")["config"]))
    done = api.run(f"hf:{tmp_path}", "mtia-2i", dims={"seq": 1, "past": 3}, check=True, gpu=None)
    assert done.check is not None and done.check.passed


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-00001-of-00002.safetensors"])
def test_weights_that_are_not_read_are_not_taken_for_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(about("llama")["config"]))
    (tmp_path / name).touch()
    assert open_checkpoint(str(tmp_path), {}).build(tmp_path, None).is_file()
    with pytest.raises(UserError, match=f"{name}, are not read"):
        open_checkpoint(str(tmp_path), {}).build(tmp_path, 0)


def test_bf16_and_parts_of_a_larger_model_are_read(tmp_path: Path) -> None:
    save_checkpoint("llama", tmp_path)
    wide = {
        key.replace("model.", "model.language_model.", 1): value.astype(ml_dtypes.bfloat16)
        for key, value in tensors("llama").items()
    }
    save_tensors(tmp_path / SINGLE, wide, "BF16")
    path = open_checkpoint(str(tmp_path), {}).build(tmp_path, 0)
    size = sum(value.nbytes for value in wide.values())
    assert path.with_suffix(".weights").stat().st_size == size


def refused(folder: Path, values: dict[str, np.ndarray], dtype: str = "F16") -> str:
    """Return what is said of a checkpoint with these tensors."""
    save_tensors(folder / SINGLE, values, dtype)
    with pytest.raises(UserError) as error:
        open_checkpoint(str(folder), {}).build(folder, 0)
    return str(error.value)


def test_what_does_not_fit_the_config_is_refused(tmp_path: Path) -> None:
    save_checkpoint("llama", tmp_path)
    right = tensors("llama")
    assert EMBEDDINGS in refused(tmp_path, {k: v for k, v in right.items() if k != EMBEDDINGS})
    assert "[96, 32]" in refused(tmp_path, right | {EMBEDDINGS: np.zeros((96, 32), np.float16)})
    wide = {key: value.astype(np.float32) for key, value in right.items()}
    assert "fp16 does not hold" in refused(tmp_path, wide | {EMBEDDINGS: wide[EMBEDDINGS] + 1e6}, "F32")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4)])
def test_tensors_of_any_other_shape_are_refused(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    save_checkpoint(name, tmp_path)
    save_tensors(tmp_path / SINGLE, dict.fromkeys(about(name)["tensors"], np.zeros(shape, np.float16)))
    found = open_checkpoint(str(tmp_path), {})
    values = CheckpointValues(open_tensors(tmp_path), found.model, found.config)
    for weight in found.model.graph(name, found.dims).weights:
        if weight.shape != shape:
            with pytest.raises(UserError):
                values(weight)


def test_a_checkpoint_is_trained_by_the_logits_of_all_tokens(tmp_path: Path) -> None:
    """As the zoo's decoders are: `tests/study/test_training.py`."""
    save_checkpoint("qwen3", tmp_path)
    assert training_dims(f"hf:{tmp_path}", {"seq": 8}) == {"scored": 8, "seq": 8}
    step = train(f"hf:{tmp_path}", "tiny", dims={"seq": 8}, loss="cross-entropy", optimizer="sgd", gpu=None)
    assert (step.items, step.counted) == (8, "tokens")


def test_values_larger_than_memory_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint("llama", tmp_path)
    monkeypatch.setenv(settings.MEMORY.name, "1000")
    with pytest.raises(UserError, match=settings.MEMORY.name):
        open_checkpoint(str(tmp_path), {}).build(tmp_path, 0)
