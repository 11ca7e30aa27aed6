"""Which decoder a `config.json` describes, family by family, by its `model_type`.

Source of each family's departures from Llama and of its defaults: its modeling_*.py and configuration_*.py in
transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, refuse_unknown
from ..zoo.decoder import GELU_TANH, Decoder, Temper
from ..zoo.deepseek import DeepSeek
from ..zoo.llama import Llama
from ..zoo.mixture import Routing
from ..zoo.phi import Phi
from .base import (
    CHUNKED,
    NO_SCALE,
    QKV,
    decoder,
    layer_kinds,
    needed,
    original_context,
    rope_of,
    theta_of,
    turned_layers,
    windows,
    yarn,
)  # fmt: skip
from .config import CONFIG, Config, LayerRopes, checked, read_values

Changes = Callable[[Config], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """How a model of a `model_type` departs from Llama, and what its `config.json` may leave out.

    `changes` are fields of `Decoder` from a checked config; `make` builds the model where that is another.
    """

    changes: Changes = lambda config: {}
    defaults: dict[str, Any] = field(default_factory=dict)
    make: Callable[[Config, str], Llama] | None = None


def model_of(path: Path) -> tuple[Llama, Config]:
    """Return the decoder that a `config.json` describes, and its keys; raises as `model_by` does."""
    return model_by(read_values(path), path)


def model_by(values: dict[str, Any], path: Path, kind_of_file: str = CONFIG) -> tuple[Llama, Config]:
    """Return the decoder that keys describe, checked; `path` is where they are from.

    Raises `UserError` for a `model_type` that we do not have, naming those that we have, and for keys that
    are wrong or do not fit together.
    """
    kind = str(values["model_type"])
    family = FAMILIES.get(kind) or FAMILIES.get(kind.removesuffix("_text"))
    if family is None:
        error = refuse_unknown("model_type", kind[:64], FAMILIES)
        raise UserError(f"{path}: {error}; export such a model as ONNX")
    config = checked(family.defaults | {k: v for k, v in values.items() if v is not None}, path)
    try:
        source = f"{kind_of_file}, {kind[:64]}"
        make = family.make or (lambda c, of: decoder(c, of, **family.changes(c)))
        model = make(config, source)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return model, config


# ---- families


def _mistral(c: Config) -> dict[str, Any]:
    return {"windows": windows(c, lambda layer: True)}


def _qwen_windows(c: Config) -> dict[str, Any]:
    if not c.use_sliding_window:
        return {}
    first = c.num_hidden_layers if c.max_window_layers is None else c.max_window_layers
    return {"windows": windows(c, lambda layer: layer >= first)}


def _qwen2(c: Config) -> dict[str, Any]:
    return {"biased": QKV} | _qwen_windows(c)


def _qwen3(c: Config) -> dict[str, Any]:
    return {"head_norms": True} | _qwen_windows(c)


def _gemma(c: Config) -> dict[str, Any]:
    return {"embed_scale": c.hidden_size**0.5, "activation": GELU_TANH}


def _gemma2(c: Config) -> dict[str, Any]:
    scale = c.query_pre_attn_scalar**-0.5 if c.query_pre_attn_scalar else 0.0
    return _gemma(c) | {
        "both_norms": True,
        "score_scale": scale,
        "score_cap": c.attn_logit_softcapping or 0.0,
        "logit_cap": c.final_logit_softcapping or 0.0,
        "windows": windows(c, lambda layer: layer % 2 == 0),
    }


def _gemma3(c: Config) -> dict[str, Any]:
    """Return Gemma 3's: rotations of layers with a window are by a base of their own, and not stretched."""
    pattern, ropes = c.sliding_window_pattern or 6, c.rope_parameters
    local, found = c.rope_local_base_freq or 10000.0, _gemma2(c)
    if isinstance(ropes, LayerRopes):
        local = ropes.sliding_attention.theta or local
    return found | {
        "head_norms": True,
        "windows": windows(c, lambda layer: bool((layer + 1) % pattern)),
        "local_theta": local,
    }


def _phi3(c: Config) -> dict[str, Any]:
    return {"packed": True} | _mistral(c)


def _granite(c: Config) -> dict[str, Any]:
    return {
        "embed_scale": c.embedding_multiplier,
        "block_scale": c.residual_multiplier,
        "score_scale": c.attention_multiplier or 1.0,
        "logit_scale": 1.0 / c.logits_scaling,
    }


def _smollm3(c: Config) -> dict[str, Any]:
    unturned = frozenset(layer for layer, turns in enumerate(turned_layers(c)) if not turns)
    near = windows(c, lambda layer: layer in unturned) if c.use_sliding_window else ()
    return {"unturned": unturned, "windows": near}


def _routing(c: Config, ffn: int, **changes: Any) -> Routing:
    experts, each = needed(c.num_experts, "num_experts"), c.num_experts_per_tok or 2
    if each > experts:
        raise ValueError(f"num_experts_per_tok is {each} of {experts} experts")
    return Routing(experts=experts, each=each, ffn=ffn, **changes)


def _mixtral(c: Config) -> dict[str, Any]:
    return _mistral(c) | {"routing": _routing(c, c.intermediate_size)}


def _qwen_experts(c: Config, normalised: bool, shared: int) -> Routing:
    plain = set(c.mlp_only_layers or ())
    dense = {i for i in range(c.num_hidden_layers) if i in plain or (i + 1) % c.decoder_sparse_step}
    ffn = int(needed(c.moe_intermediate_size, "moe_intermediate_size"))
    own = normalised if c.norm_topk_prob is None else c.norm_topk_prob
    return _routing(c, ffn, normalised=own, shared=shared, gated=bool(shared), dense=frozenset(dense))


def _qwen2_moe(c: Config) -> dict[str, Any]:
    return _qwen2(c) | {"routing": _qwen_experts(c, False, c.shared_expert_intermediate_size)}


def _qwen3_moe(c: Config) -> dict[str, Any]:
    return _qwen3(c) | {"routing": _qwen_experts(c, False, 0)}


def _gpt_oss(c: Config) -> dict[str, Any]:
    return {
        "windows": windows(c, lambda layer: layer % 2 == 0),
        "sinks": True,
        "routing": _routing(c, c.intermediate_size, biased=True, limit=c.swiglu_limit),
    }


def _llama4(c: Config) -> dict[str, Any]:
    """Return Llama 4's: layers that turn see their chunk, others all, with queries that grow."""
    layers, chunk = range(c.num_hidden_layers), c.attention_chunk_size or 0
    turns, every = turned_layers(c), c.interleave_moe_layer_step
    kinds = layer_kinds(c, CHUNKED, lambda layer: bool(turns[layer] and chunk))
    sparse = set(range(every - 1, len(layers), every) if c.moe_layers is None else c.moe_layers)
    unturned = frozenset(layer for layer in layers if not turns[layer])
    temper = Temper(layers=unturned, every=c.floor_scale, strength=c.attn_scale, ahead=1.0)
    routing = _routing(
        c, c.intermediate_size, inward=True, shared=c.intermediate_size, dense=frozenset(layers) - sparse
    )
    return {
        "ffn": needed(c.intermediate_size_mlp, "intermediate_size_mlp"),
        "unturned": unturned,
        "chunks": tuple(chunk if kind == CHUNKED else 0 for kind in kinds),
        "temper": temper if c.attn_temperature_tuning and unturned else None,
        "turned_norms": c.use_qk_norm,
        "routing": routing,
    }


def _ministral3(c: Config) -> dict[str, Any]:
    rope = rope_of(c)
    beta = rope.llama_4_scaling_beta if rope else None
    if rope is None or not beta:
        return _mistral(c)
    layers = frozenset(range(c.num_hidden_layers))
    return _mistral(c) | {
        "temper": Temper(layers=layers, every=float(original_context(c, rope)), strength=beta)
    }


def _phi(c: Config, source: str) -> Decoder:
    if c.qk_layernorm:
        raise ValueError("qk_layernorm is not known here (right: false, as Phi-1 to Phi-2 have it)")
    biased = QKV | {"o_proj", "fc1", "fc2"}
    return decoder(
        c, source, Phi, biased=biased, layer_norms=True, head_biased=True, epsilon=c.layer_norm_eps
    )


def _phimoe(c: Config) -> dict[str, Any]:
    return _mistral(c) | {
        "layer_norms": True,
        "head_biased": c.lm_head_bias,
        "routing": _routing(c, c.intermediate_size, near=2 * c.router_jitter_noise),
    }


def _deepseek(c: Config, source: str) -> DeepSeek:
    """Return DeepSeek-V2's or V3's; V2 scores by a softmax and does not make shares sum to 1."""
    second = c.model_type.startswith("deepseek_v2")
    if c.moe_layer_freq != 1 or c.attention_bias:
        raise ValueError("moe_layer_freq other than 1, and attention_bias, are not known here")
    rope = rope_of(c)
    if rope is not None and rope.kind not in (NO_SCALE, "yarn"):
        raise ValueError(f"rope_type {rope.kind!r} is not known here (right: {NO_SCALE}, yarn)")
    stretched = yarn(c, rope) if rope is not None and rope.kind == "yarn" else None
    if stretched is not None and abs(stretched.wave_scale - 1.0) > 1e-6:
        raise ValueError("mscale differs from mscale_all_dim: cosines would be scaled (right: equal ones)")
    every, limited = c.num_experts or 0, c.topk_method != "greedy"
    groups = (c.n_group or 1) if limited else 1
    chosen = (c.topk_group or groups) if limited else 1
    routing = _routing(c, int(needed(c.moe_intermediate_size, "moe_intermediate_size")))
    if every % groups or chosen > groups or (not second and every // groups < 2 <= groups):
        raise ValueError(f"{every} experts in {groups} groups, {chosen} of them chosen")
    sizes: dict[str, Any] = {
        name: int(needed(getattr(c, key), key))
        for name, key in (("latent", "kv_lora_rank"), ("nope", "qk_nope_head_dim"),
                          ("head_dim", "qk_rope_head_dim"), ("value", "v_head_dim"))
    }  # fmt: skip
    if sizes["head_dim"] % 2:
        raise ValueError(f"qk_rope_head_dim is {sizes['head_dim']} (right: an even number)")
    return DeepSeek(
        source=source, layers=c.num_hidden_layers, hidden=c.hidden_size, heads=c.num_attention_heads,
        kv_heads=c.num_attention_heads, ffn=c.intermediate_size, vocab=c.vocab_size, rope_theta=theta_of(c),
        context=c.max_position_embeddings, tied=c.tie_word_embeddings, epsilon=c.rms_norm_eps,
        query_rank=c.q_lora_rank or 0, dense=min(c.first_k_dense_replace, c.num_hidden_layers),
        experts=routing.experts, each=routing.each, expert_ffn=routing.ffn, shared=c.n_shared_experts or 0,
        groups=groups, chosen_groups=chosen, share_scale=c.routed_scaling_factor, yarn=stretched,
        softmax=second, normalised=not second and c.norm_topk_prob is not False, **sizes,
    )  # fmt: skip


_TIED = {"tie_word_embeddings": True}
_GEMMA3 = _TIED | {
    "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rope_theta": 1000000.0,
    "query_pre_attn_scalar": 256, "sliding_window": 4096, "max_position_embeddings": 131072,
}  # fmt: skip
_LLAMA4 = {
    "vocab_size": 202048, "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
    "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "num_experts_per_tok": 1, "num_local_experts": 16, "attention_chunk_size": 8192,
}  # fmt: skip
_MINISTRAL3_ROPE = {
    "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "original_max_position_embeddings": 16384,
    "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
}  # fmt: skip
FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(_mistral),
    "ministral": Family(_mistral),
    "mistral3": Family(_mistral),
    "ministral3": Family(_ministral3, {"rope_parameters": _MINISTRAL3_ROPE}),
    "llama4": Family(_llama4, _LLAMA4),
    "phi": Family(make=_phi, defaults={"hidden_act": "gelu_new", "partial_rotary_factor": 0.5}),
    "phimoe": Family(_phimoe, {"num_local_experts": 16, "rope_theta": 1000000.0, "rms_norm_eps": 1e-5}),
    "qwen2": Family(_qwen2),
    "qwen3": Family(_qwen3),
    "gemma": Family(_gemma, _TIED | {"head_dim": 256}),
    "gemma2": Family(_gemma2, _TIED | {
        "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    }),
    "gemma3": Family(_gemma3, _GEMMA3),
    "phi3": Family(_phi3),
    "granite": Family(_granite),
    "smollm3": Family(_smollm3, _TIED | {"rope_theta": 2000000.0}),
    "mixtral": Family(_mixtral, {"num_local_experts": 8}),
    "qwen2_moe": Family(_qwen2_moe, {"shared_expert_intermediate_size": 5632}),
    "qwen3_moe": Family(_qwen3_moe),
    "gpt_oss": Family(_gpt_oss, {"rope_theta": 150000.0, "attention_bias": True, "num_experts_per_tok": 4}),
    "deepseek_v2": Family(make=_deepseek, defaults={"topk_method": "greedy"}),
    "deepseek_v3": Family(make=_deepseek),
    "kimi_k2": Family(make=_deepseek),
}  # fmt: skip
"""The families that we have, by `model_type`."""
