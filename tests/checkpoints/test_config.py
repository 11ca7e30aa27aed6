"""A `config.json` is hostile: what is wrong with one is said, and nothing else happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import NAMES, about

from mtia_emu import api
from mtia_emu.checkpoints import FAMILIES, open_checkpoint
from mtia_emu.checkpoints.config import Config
from mtia_emu.checkpoints.families import model_of
from mtia_emu.errors import UserError
from mtia_emu.zoo.models import MODELS

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 96, "vocab_size": 128,
}  # fmt: skip


def written(folder: Path, values: object) -> Path:
    """Write a `config.json` and return its path."""
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    return path


def test_an_unknown_model_type_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        model_of(written(tmp_path, LLAMA | {"model_type": "bert"}))
    assert "unknown model_type 'bert'" in str(error.value)
    assert all(name in str(error.value) for name in FAMILIES)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": -1}, "hidden_size"),
    ({"hidden_size": "64"}, "hidden_size"),
    ({"hidden_size": 1 << 40}, "hidden_size"),
    ({"num_hidden_layers": 10**30}, "num_hidden_layers"),
    ({"num_hidden_layers": None}, "num_hidden_layers: Field required"),
    ({"num_key_value_heads": 3}, "no multiple"),
    ({"head_dim": 15}, "head_dim is 15"),
    ({"hidden_act": "relu6"}, "relu6"),
    ({"rope_scaling": {"rope_type": "mystery"}}, "mystery"),
    ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
    ({"rope_scaling": {"rope_type": "linear", "factor": float("nan")}}, "factor"),
    ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1], "long_factor": [1]}}, "lengths than 8"),
    (
        {"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 5}},
        "low_freq_factor or above",
    ),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 8, "rope_theta": 1}}, "above 1"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 1e-320}}, "factor"),
    ({"partial_rotary_factor": 0.01}, "turned part of head_dim is 0"),
    ({"num_attention_heads": 128}, "head_dim is 0"),
    ({"model_type": "mistral", "sliding_window": 4, "layer_types": ["odd", "odd"]}, "'odd'"),
    ({"model_type": "mistral", "sliding_window": 4, "layer_types": []}, "2 layers"),
    ({"model_type": "mixtral", "num_experts_per_tok": 9}, "9 of 8 experts"),
    ({"model_type": "qwen3_moe", "moe_intermediate_size": 8}, "num_experts is missing"),
    ({"model_type": "deepseek_v3"}, "moe_intermediate_size is missing"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        open_checkpoint(str(written(tmp_path, LLAMA | changes)), {})
    assert said in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model_type": 3}', '{"a": 1, "a": 2}', "[" * 100000])
def test_what_is_no_config_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"right: a transformers checkpoint's folder or its config\.json"):
        open_checkpoint(str(tmp_path), {})


def test_a_folder_without_a_config_and_a_dimension_too_many_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.json"):
        open_checkpoint(str(tmp_path), {})
    with pytest.raises(UserError, match="dimension"):
        open_checkpoint(str(written(tmp_path, LLAMA)), {"tokens": 3})
    with pytest.raises(UserError, match="it is not there"):
        open_checkpoint(str(tmp_path / "none.json"), {})


JUNK = st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=5) | st.lists(
    st.integers(-1, 9), max_size=3
)  # fmt: skip


@settings(max_examples=120)
@given(
    name=st.sampled_from(NAMES),
    changes=st.dictionaries(st.sampled_from(sorted(Config.model_fields)), JUNK, min_size=1, max_size=3),
)
def test_any_values_make_a_model_or_an_error_of_the_users(
    name: str, changes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.mktemp("config"), about(name)["config"] | changes)
    try:
        checkpoint = open_checkpoint(str(path), {"seq": 3, "past": 4})
        checkpoint.model.graph("any", checkpoint.dims)
    except UserError as error:
        assert str(path) in str(error)


def test_a_model_too_large_for_anything_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 1 << 18, "intermediate_size": 1 << 18, "num_local_experts": 4096}
    path = written(tmp_path, LLAMA | sizes | {"model_type": "mixtral"})
    with pytest.raises(UserError, match="more than"):
        api.compile_model(f"hf:{path}")


def test_of_a_model_of_several_parts_the_language_part_is_taken(tmp_path: Path) -> None:
    inner = {key: value for key, value in LLAMA.items() if key != "model_type"}
    values = {"model_type": "gemma3", "vision_config": {}, "text_config": inner}
    model = model_of(written(tmp_path, values | {"text_config": inner | {"num_hidden_layers": 7}}))[0]
    assert model.hidden == 64 and [model.kept(layer, 5000) for layer in range(7)] == [4095] * 5 + [5000, 4095]


def test_a_llama_of_a_config_is_the_zoos_node_for_node(tmp_path: Path) -> None:
    values = LLAMA | {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "vocab_size": 128256, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 8192,
    }  # fmt: skip
    dims = {"batch": 1, "seq": 4, "past": 5}
    ours = open_checkpoint(str(written(tmp_path, values)), dims).model.graph("x", dims)
    assert ours.ops == MODELS["llama-3-8b"].graph("x", dims).ops
