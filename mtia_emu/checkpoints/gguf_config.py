"""The `config.json` that a GGUF file stands for: its header's keys, in transformers' words.

Keys: github.com/ggml-org/ggml, docs/gguf.md, and llama.cpp's gguf-py/gguf/constants.py. What llama.cpp knows
by heart of an architecture stands here, too (source: its src/llama-model.cpp).
"""

from __future__ import annotations

from typing import Any

from ..errors import UserError, refuse_unknown
from .config import MAX_LAYERS
from .gguf import PackedModel

ARCHITECTURES = {
    "llama": "llama", "llama4": "llama4", "qwen2": "qwen2", "qwen2moe": "qwen2_moe", "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe", "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3", "phi3": "phi3",
    "granite": "granite", "gpt-oss": "gpt_oss",
}  # fmt: skip
"""The family of each architecture that we have."""
KEYS = {
    "hidden_size": "embedding_length", "num_hidden_layers": "block_count", "vocab_size": "vocab_size",
    "intermediate_size": "feed_forward_length", "max_position_embeddings": "context_length",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length", "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "sliding_window": "attention.sliding_window", "rope_theta": "rope.freq_base",
    "num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
    "logits_scaling": "logit_scale", "residual_multiplier": "residual_scale",
    "embedding_multiplier": "embedding_scale", "attention_multiplier": "attention.scale",
    "interleave_moe_layer_step": "interleave_moe_layer_step",
}  # fmt: skip
"""Transformers' key, and the header's behind its architecture's name."""
LARGEST = {"gemma2": 46, "gemma3": 62}  # layers of the 27B models, whose scores are scaled by hidden / heads
MAVERICK = 128  # experts of the Llama 4 that norms no queries


def config_values(model: PackedModel) -> dict[str, Any]:
    """Return the keys of the `config.json` that a file stands for.

    Raises `UserError` for an architecture that we do not have, and for sizes that differ by layer.
    """
    keys, path = model.keys, model.path
    name = str(keys.get("general.architecture", ""))[:64]
    if name not in ARCHITECTURES:
        raise UserError(f"{path}: {refuse_unknown('architecture', name, ARCHITECTURES)}")
    values = {ours: keys[f"{name}.{key}"] for ours, key in KEYS.items() if f"{name}.{key}" in keys}
    values = {key: _alike(value, f"{path}: {name}.{KEYS[key]}") for key, value in values.items()}
    if not values.get("num_local_experts", 1):
        del values["num_local_experts"]
    if "vocab_size" not in values and "token_embd.weight" in model.found:
        values["vocab_size"] = model.found["token_embd.weight"].shape[0]
    values |= {
        "model_type": "mixtral" if name == "llama" and "num_local_experts" in values else ARCHITECTURES[name],
        "tie_word_embeddings": "output.weight" not in model.found,
        "attention_bias": "blk.0.attn_q.bias" in model.found,
    }
    values |= _rotations(model, name, values)
    return values | _by_heart(name, values)


def _alike(value: Any, where: str) -> Any:
    """Return a size, one of a list where all are one."""
    if not isinstance(value, list):
        return value
    if not value or len(value) > MAX_LAYERS or len(set(value)) > 1:
        raise UserError(f"{where} differs by layer (right: one for all)")
    return value[0]


def _rotations(model: PackedModel, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return how queries and keys are turned: what is turned of a head, and how wavelengths are stretched."""
    keys = model.keys
    found: dict[str, Any] = {}
    head = values.get("head_dim") or _head(values)
    turned = keys.get(f"{name}.rope.dimension_count")
    if isinstance(turned, int) and isinstance(head, int) and 0 < turned < head:
        found["partial_rotary_factor"] = turned / head
    scaling = {
        "rope_type": keys.get(f"{name}.rope.scaling.type", "none"),
        "factor": keys.get(f"{name}.rope.scaling.factor"),
        "original_max_position_embeddings": keys.get(f"{name}.rope.scaling.original_context_length"),
        "attention_factor": keys.get(f"{name}.rope.scaling.attn_factor"),
    }
    long, short = _factors(model, "rope_factors_long"), _factors(model, "rope_factors_short")
    own = _factors(model, "rope_freqs")
    if long and short:
        scaling |= {"rope_type": "longrope", "long_factor": long, "short_factor": short}
    elif own:  # frequencies are divided by these, whatever the context
        scaling = {"rope_type": "longrope", "long_factor": own, "short_factor": own, "attention_factor": 1.0}
    kept = {key: value for key, value in scaling.items() if value is not None}
    return found if kept["rope_type"] in ("none", "") else found | {"rope_scaling": kept}


def _head(values: dict[str, Any]) -> Any:
    hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
    return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads > 0 else None


def _factors(model: PackedModel, name: str) -> list[float]:
    """Return divisors of frequencies; none where the file has none, or ends before them."""
    tensor = model.found.get(f"{name}.weight")
    if tensor is None or tensor.kind != "F32" or len(tensor.shape) != 1 or tensor.shape[0] > 1 << 12:
        return []
    if tensor.offset + tensor.size_bytes > tensor.path.stat().st_size:
        return []
    return [float(value) for value in tensor.array()]


def _by_heart(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return what is not in a header."""
    experts = values.get("num_local_experts")
    if name in LARGEST:
        wide = values.get("num_hidden_layers") == LARGEST[name]
        hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
        return {
            "query_pre_attn_scalar": hidden // heads if wide and hidden and heads else values.get("head_dim")
        }
    if name == "llama4":
        wide = values.get("intermediate_size")
        return {
            "intermediate_size": values.get("moe_intermediate_size"), "intermediate_size_mlp": wide,
            "use_qk_norm": experts != MAVERICK,
        }  # fmt: skip
    if name == "gpt-oss":
        wide = values.get("moe_intermediate_size") or values.get("intermediate_size")
        scaling = values.get("rope_scaling")
        stretched = {"rope_scaling": scaling | {"truncate": False}} if scaling else {}
        return {"intermediate_size": wide} | stretched
    return {"norm_topk_prob": True} if name == "qwen3moe" else {}
