"""Checkpoints that are published are what their authors say they are.

`published_configs.json` has the keys that matter of each model's public `config.json`, and its number of
parameters, to four digits, as the hub counts them in its files; of models of several parts those of the text.
Factors of `longrope` are stand-ins: they change no shape.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtia_emu import api
from mtia_emu.checkpoints import FAMILIES, open_checkpoint
from mtia_emu.errors import UserError

PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "published_configs.json").read_text())


def written(folder: Path, name: str, **changes: Any) -> Path:
    """Write a model's `config.json`, with keys changed, and return its path."""
    path = folder / "config.json"
    path.write_text(json.dumps(PUBLISHED[name]["config"] | changes))
    return path


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_as_many_parameters_as_are_published(name: str, tmp_path: Path) -> None:
    found = open_checkpoint(str(written(tmp_path, name)), {"seq": 1, "past": 64})
    counted = found.model.graph("x", found.dims).parameters
    assert counted == pytest.approx(PUBLISHED[name]["parameters"], rel=1e-3)


def test_every_family_has_a_published_model() -> None:
    kinds = set()
    for model in PUBLISHED.values():
        config = model["config"]
        kinds |= {config["model_type"], config.get("text_config", {}).get("model_type")}
    assert set(FAMILIES) - kinds == {"ministral"}


SPELT: list[tuple[str, dict[str, Any]]] = [
    ("Llama-3.1-8B", {"dtype": "bfloat16", "torch_dtype": None, "head_dim": None}),
    ("Llama-3.1-8B", {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}),
    ("Llama-3.1-8B", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}),
    ("Llama-3.1-8B", {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {}}}),
    ("Llama-3.1-8B", {"rope_theta": None, "rope_scaling": None, "rope_parameters": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_theta": 500000.0,
    }}),
    ("Qwen2-72B", {"rope_scaling": {
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768,
    }}),
    ("gpt-oss-20b", {"layer_types": None, "num_experts_per_tok": None}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes"), SPELT)
def test_other_spellings_mean_the_same_shapes(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    dims = {"batch": 1, "seq": 2, "past": 64}
    right = open_checkpoint(str(written(tmp_path, name)), dims).model.graph("x", dims)
    other = open_checkpoint(str(written(tmp_path, name, **changes)), dims).model.graph("x", dims)
    assert right.weights == other.weights


def test_llama_4_reads_in_a_step_what_its_active_parameters_say(tmp_path: Path) -> None:
    """17 B of 109 B parameters are active; embeddings are looked up: a step reads 2 bytes of each other."""
    path = written(tmp_path, "Llama-4-Scout-17B-16E")
    config = PUBLISHED["Llama-4-Scout-17B-16E"]["config"]["text_config"]
    cut = config | {"num_hidden_layers": 4, "moe_layers": None}
    path.write_text(json.dumps({"model_type": "llama4", "text_config": cut}))
    done = api.run(f"hf:{path}", "mtia-2i", dims={"seq": 1, "past": 64}, gpu=None, state="cold")
    hidden, ffn, heads = 5120, 8192, (40 + 2 * 8 + 40) * 128
    layer = hidden * (heads + 2 * 3 * ffn)  # attention, the shared expert and one of sixteen
    assert done.report.traffic.dram_read_bytes == pytest.approx(2 * (4 * layer + hidden * 202048), rel=0.01)


def test_every_second_layer_of_maverick_has_experts(tmp_path: Path) -> None:
    path = written(tmp_path, "Llama-4-Maverick-17B-128E")
    found = open_checkpoint(str(path), {"seq": 1, "past": 64})
    shapes = {w.name: w.shape for w in found.model.graph("x", found.dims).weights}
    for layer in range(48):
        wide = (128, 5120, 8192) if layer % 2 else (5120, 16384)
        assert shapes[f"model.layers.{layer}.mlp.up_proj.weight"] == wide


def test_what_no_llama_4_has_is_refused(tmp_path: Path) -> None:
    name = "Llama-4-Scout-17B-16E"
    config = PUBLISHED[name]["config"]["text_config"]
    for key, value, said in (
        ("no_rope_layers", [1, 1], "2 entries for 48 layers"),
        ("layer_types", ["sliding_attention"] * 48, "chunked_attention"),
        ("num_experts_per_tok", 17, "17 of 16 experts"),
        ("attention_chunk_size", 0, "attention_chunk_size"),
        ("floor_scale", 0, "floor_scale"),
    ):
        with pytest.raises(UserError, match=said):
            open_checkpoint(str(written(tmp_path, name, text_config=config | {key: value})), {})
