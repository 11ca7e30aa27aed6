"""The `config.json` of a checkpoint of transformers, read without trusting it.

Keys are those of transformers' configuration classes; ours are those that change what is computed. All other
keys are ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from ..errors import UserError
from ..files.json_file import read_json

CONFIG = "config.json"
MAX_BYTES = 1 << 22
MAX_LAYERS, MAX_SIZE, MAX_VOCAB, MAX_EXPERTS = 1024, 1 << 18, 1 << 24, 4096
RIGHT = "a transformers checkpoint's folder or its config.json"

Size = Annotated[int, Field(ge=1, le=MAX_SIZE, strict=True)]
Count = Annotated[int, Field(ge=0, le=MAX_SIZE, strict=True)]
Number = Annotated[float, Field(ge=1e-12, le=1e12, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Flags = Annotated[list[Annotated[int, Field(ge=0, le=MAX_LAYERS)]], Field(max_length=MAX_LAYERS)]
Divisors = Annotated[list[Number], Field(max_length=MAX_SIZE)]


class Lenient(BaseModel):
    """A frozen value with what else the file says left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Rope(Lenient):
    """`rope_scaling`, or since transformers 5 `rope_parameters`."""

    kind: Annotated[str, Field(max_length=64)] = Field(
        "default", validation_alias=AliasChoices("rope_type", "type")
    )
    theta: Number | None = Field(None, validation_alias="rope_theta")
    partial_rotary_factor: Share | None = None
    factor: Number | None = None
    original: Size | None = Field(None, validation_alias="original_max_position_embeddings")
    low_freq_factor: Number = 1.0
    high_freq_factor: Number = 4.0
    attention_factor: Number | None = None
    beta_fast: Number | None = None
    beta_slow: Number | None = None
    mscale: float | None = Field(None, ge=0, le=100)
    mscale_all_dim: float | None = Field(None, ge=0, le=100)
    truncate: bool = True
    short_mscale: Number | None = None
    long_mscale: Number | None = None
    llama_4_scaling_beta: float | None = Field(None, ge=0, le=100)
    short_factor: Divisors | None = None
    long_factor: Divisors | None = None


class LayerRopes(Lenient):
    """`rope_parameters` of a model whose layers with a window turn otherwise than the others."""

    full_attention: Rope
    sliding_attention: Rope


class Quantization(Lenient):
    """How a checkpoint's values are packed."""

    quant_method: Annotated[str, Field(max_length=64)] = "unknown"
    weight_block_size: Annotated[list[Size], Field(min_length=2, max_length=2)] | None = None


class Config(Lenient):
    """What a decoder is, by transformers' keys; a key that a family does not have keeps its default."""

    model_type: Annotated[str, Field(max_length=64)]
    hidden_size: Size
    num_hidden_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS, strict=True)]
    num_attention_heads: Annotated[int, Field(ge=1, le=4096, strict=True)]
    num_key_value_heads: Annotated[int, Field(ge=1, le=4096, strict=True)] | None = None
    head_dim: Size | None = None
    intermediate_size: Size
    vocab_size: Annotated[int, Field(ge=1, le=MAX_VOCAB, strict=True)]
    max_position_embeddings: Annotated[int, Field(ge=1, le=1 << 30, strict=True)] = 2048
    rms_norm_eps: Annotated[float, Field(ge=0, lt=1)] = 1e-6
    layer_norm_eps: Annotated[float, Field(ge=0, lt=1)] = 1e-5
    act: Annotated[str, Field(max_length=64)] = Field(
        "silu", validation_alias=AliasChoices("hidden_activation", "hidden_act")
    )
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    lm_head_bias: bool = False
    qk_layernorm: bool = False
    rope_theta: Number | None = None
    rope_local_base_freq: Number | None = None
    partial_rotary_factor: Share | None = None
    rope_scaling: Rope | None = None
    rope_parameters: LayerRopes | Rope | None = Field(None, union_mode="left_to_right")
    original_max_position_embeddings: Size | None = None
    # windows
    sliding_window: Annotated[int, Field(ge=0, le=1 << 30)] | None = None
    use_sliding_window: bool | None = None
    max_window_layers: Count | None = None
    layer_types: (
        Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=MAX_LAYERS)] | None
    ) = None
    sliding_window_pattern: Size | None = None
    no_rope_layers: Flags | None = None
    no_rope_layer_interval: Size = 4
    attention_chunk_size: Annotated[int, Field(ge=1, le=1 << 30)] | None = None
    # scales and caps
    use_qk_norm: bool = True
    attn_temperature_tuning: bool | Annotated[int, Field(ge=0, le=1 << 20)] = True
    floor_scale: Number = 8192
    attn_scale: float = Field(0.1, ge=0, le=100)
    query_pre_attn_scalar: Number | None = None
    attn_logit_softcapping: Number | None = None
    final_logit_softcapping: Number | None = None
    embedding_multiplier: Number = 1.0
    residual_multiplier: Number = 1.0
    attention_multiplier: Number | None = None
    logits_scaling: Number = 1.0
    # experts
    num_experts: Annotated[int, Field(ge=1, le=MAX_EXPERTS)] | None = Field(
        None, validation_alias=AliasChoices("num_local_experts", "num_experts", "n_routed_experts")
    )
    num_experts_per_tok: Annotated[int, Field(ge=1, le=MAX_EXPERTS)] | None = None
    moe_intermediate_size: Size | None = None
    shared_expert_intermediate_size: Count = 0
    norm_topk_prob: bool | None = None
    decoder_sparse_step: Size = 1
    mlp_only_layers: Flags | None = None
    swiglu_limit: Number = 7.0
    intermediate_size_mlp: Size | None = None
    interleave_moe_layer_step: Size = 1
    moe_layers: Flags | None = None
    router_jitter_noise: float = Field(0.01, ge=0, lt=1)
    # latents
    q_lora_rank: Count | None = None
    kv_lora_rank: Size | None = None
    qk_nope_head_dim: Size | None = None
    qk_rope_head_dim: Size | None = None
    v_head_dim: Size | None = None
    first_k_dense_replace: Count = 0
    moe_layer_freq: Size = 1
    n_shared_experts: Count | None = None
    n_group: Annotated[int, Field(ge=1, le=MAX_EXPERTS)] | None = None
    topk_group: Annotated[int, Field(ge=1, le=MAX_EXPERTS)] | None = None
    topk_method: Literal["greedy", "group_limited_greedy", "noaux_tc"] | None = None
    routed_scaling_factor: Number = 1.0
    rope_interleave: bool = True
    # how the file's values are stored
    quantization_config: Quantization | None = None


def config_file(place: Path) -> Path:
    """Return the `config.json` of a folder, or the file that is named; raise `UserError` for none."""
    path = place / CONFIG if place.is_dir() else place
    if not path.is_file():
        missing = f"holds no {CONFIG}" if place.is_dir() else "is not there"
        files = sorted(place.glob("*.gguf")) if place.is_dir() else []
        meant = f"; did you mean 'hf:{files[0]}'?" if files else ""
        raise UserError(f"hf:{place}: it {missing}{meant} (right: hf:FOLDER, {RIGHT}; or hf:FILE.gguf)")
    return path


def read_values(path: Path) -> dict[str, Any]:
    """Return the keys of a `config.json`; of a model of several parts those of its language part.

    Raises `UserError` for what is not JSON, not an object, or names no `model_type`.
    """
    values = read_json(path, RIGHT, MAX_BYTES)
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise UserError(f"{path}: no object with a 'model_type' (right: {RIGHT})")
    inner = values.get("text_config")
    if not isinstance(inner, dict):
        return values
    shared = {key: values[key] for key in ("tie_word_embeddings", "quantization_config") if key in values}
    return shared | {"model_type": f"{values['model_type']}_text"} | inner


def checked(values: dict[str, Any], path: Path) -> Config:
    """Return the keys as a checked value; raise `UserError` that names the first few that are wrong."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = []
        for found in error.errors()[:4]:
            seen = "" if found["type"] == "missing" else f", here {str(found['input'])[:60]!r}"
            lines.append(f"{'.'.join(map(str, found['loc']))}: {found['msg']}{seen}")
        raise UserError(f"{path}: {'; '.join(lines)}") from None
