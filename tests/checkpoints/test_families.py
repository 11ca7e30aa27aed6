"""Every family computes what transformers computes, by the values of a checkpoint that it wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from stored import NAMES, ORACLE, about, save_checkpoint

from mtia_emu import sources
from mtia_emu.checkpoints import FAMILIES, open_checkpoint
from mtia_emu.oracle import expected_outputs

Arrays = dict[str, np.ndarray]
PAST, NEW = 11, 3
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def widened(path: Path) -> Path:
    """Write a model that computes in fp32 what another computes in fp16, and return its path."""
    model = onnx.load(path)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == HALF:
            wide = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == HALF:
            value.type.tensor_type.elem_type = FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == HALF:
                attribute.i = FLOAT
    wide_path = path.with_suffix(".wide.onnx")
    onnx.save(model, wide_path)
    return wide_path


def run(folder: Path, dims: dict[str, int], given: Arrays) -> Arrays:
    """Return what a checkpoint's model computes, in fp32."""
    with sources.open_model(f"hf:{folder}", dims, execute_seed=0) as source:
        return expected_outputs(widened(source.path), given).outputs


def step(tokens: np.ndarray, past: int) -> Arrays:
    """Return the inputs of a step without its cache."""
    batch, seq = tokens.shape
    return {"input_ids": tokens, "position_ids": np.tile(np.arange(past, past + seq), (batch, 1))}


def assert_close(got: np.ndarray, right: np.ndarray) -> None:
    """Hold logits to those of transformers, by the largest."""
    np.testing.assert_allclose(got[:, 0], right, atol=2e-3 * np.abs(right).max())


@pytest.mark.parametrize("name", NAMES)
def test_prefill_and_the_step_after_it_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    folder = save_checkpoint(name, tmp_path)
    tokens = ORACLE[f"{name}/tokens"]
    batch = {"batch": len(tokens)}
    whole = run(folder, batch | {"seq": PAST + NEW}, step(tokens, 0))
    assert_close(whole["logits"], ORACLE[f"{name}/step"])
    prefill = run(folder, batch | {"seq": PAST}, step(tokens[:, :PAST], 0))
    assert_close(prefill["logits"], ORACLE[f"{name}/prefill"])
    model = open_checkpoint(str(folder), {}).model
    for past in (PAST, PAST + NEW - 1):
        given = step(tokens[:, past:], past)
        for key, value in whole.items():
            if key.startswith("present"):
                axis, kept = value.ndim - 2, model.kept(int(key.split(".")[1]), past)
                if not kept:
                    continue
                given[key.replace("present", "past_key_values")] = value.take(range(past - kept, past), axis)
        after = run(folder, batch | {"seq": PAST + NEW - past, "past": past}, given)
        assert_close(after["logits"], ORACLE[f"{name}/step"])


def test_every_family_is_held_to_transformers() -> None:
    held = {about(name)["config"]["model_type"].removesuffix("_text") for name in NAMES}
    alike = {"ministral", "mistral3", "kimi_k2"}  # other names of families that are
    assert held | alike == set(FAMILIES)
