"""Which decoder a `config.json` describes, family by family, by its `model_type`.

Source of each family's departures from Llama and of its defaults: its modeling_*.py and configuration_*.py in
transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, refuse_unknown
from ..zoo.decoder import GELU, GELU_TANH, SILU, Decoder
from ..zoo.deepseek import DeepSeek
from ..zoo.llama import Llama
from ..zoo.mixture import Routing
from ..zoo.rope import LinearScaling, LongRope, RopeScaling, Stretching, Yarn, growth
from .config import Config, LayerRopes, Rope, checked, read_values

ACTIVATIONS = {"silu": SILU, "swish": SILU, "gelu": GELU, "gelu_pytorch_tanh": GELU_TANH}
QKV = frozenset({"q_proj", "k_proj", "v_proj"})
SLIDING = "sliding_attention"
NO_SCALE = "default"
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
    """Return the decoder that a `config.json` describes, and its keys.

    Raises `UserError` for a `model_type` that we do not have, naming those that we have, and for keys that
    are wrong or do not fit together.
    """
    values = read_values(path)
    kind = str(values["model_type"])
    family = FAMILIES.get(kind) or FAMILIES.get(kind.removesuffix("_text"))
    if family is None:
        error = refuse_unknown("model_type", kind[:64], FAMILIES)
        raise UserError(f"{path}: {error}; export such a model as ONNX")
    config = checked(family.defaults | {k: v for k, v in values.items() if v is not None}, path)
    try:
        source = f"config.json, {kind[:64]}"
        make = family.make or (lambda c, of: decoder(c, of, **family.changes(c)))
        model = make(config, source)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return model, config


def decoder(c: Config, source: str, **changes: Any) -> Decoder:
    """Return the decoder of a config; raises `ValueError` for keys that do not fit together."""
    heads = c.num_attention_heads
    kv_heads = c.num_key_value_heads or heads
    head_dim = c.head_dim or c.hidden_size // heads
    turned = int(head_dim * _turned_share(c))
    for name, even in (("head_dim", head_dim), ("the turned part of head_dim", turned)):
        if even < 2 or even % 2:
            raise ValueError(f"{name} is {even} (right: an even number from 2)")
    if heads % kv_heads:
        raise ValueError(f"num_attention_heads is {heads}, no multiple of num_key_value_heads, {kv_heads}")
    if c.act not in ACTIVATIONS:
        raise ValueError(f"hidden_act {c.act!r} is not known (right: {', '.join(ACTIVATIONS)})")
    biased = QKV | {"o_proj"} if c.attention_bias else frozenset()
    biased |= {"gate_proj", "up_proj", "down_proj"} if c.mlp_bias else frozenset()
    fields: dict[str, Any] = {
        "biased": biased,
        "activation": ACTIVATIONS[c.act],
        "rotated": 0 if turned == head_dim else turned,
        "rope_scaling": stretching(c, turned),
    }
    return Decoder(
        source=source, layers=c.num_hidden_layers, hidden=c.hidden_size, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, ffn=c.intermediate_size, vocab=c.vocab_size, rope_theta=_theta(c),
        context=c.max_position_embeddings, tied=c.tie_word_embeddings, epsilon=c.rms_norm_eps,
        **fields | changes,
    )  # fmt: skip


def _rope(c: Config) -> Rope | None:
    ropes = c.rope_parameters
    return ropes.full_attention if isinstance(ropes, LayerRopes) else ropes or c.rope_scaling


def _theta(c: Config) -> float:
    rope = _rope(c)
    return (rope.theta if rope else None) or c.rope_theta or 10000.0


def _turned_share(c: Config) -> float:
    """Return which share of a head's elements is turned."""
    rope = _rope(c)
    return c.partial_rotary_factor or (rope.partial_rotary_factor if rope else None) or 1.0


def stretching(c: Config, turned: int) -> Stretching | None:
    """Return how rotary wavelengths are stretched, None where they are not."""
    rope = _rope(c)
    if rope is None or rope.kind == NO_SCALE:
        return None
    kinds: dict[str, Callable[[Config, Rope], Stretching]] = {
        "linear": lambda c, r: LinearScaling(factor=_needed(r.factor, "factor")),
        "llama3": _llama3,
        "yarn": yarn,
        "longrope": _longrope,
        "su": _longrope,
    }
    if rope.kind not in kinds:
        raise ValueError(f"rope_type {rope.kind!r} is not known (right: {', '.join((NO_SCALE, *kinds))})")
    found = kinds[rope.kind](c, rope)
    if isinstance(found, LongRope) and {len(found.short), len(found.long)} != {turned // 2}:
        raise ValueError(f"short_factor and long_factor have other lengths than {turned // 2}")
    return found


def _needed(value: Any, key: str) -> Any:
    if value is None:
        raise ValueError(f"{key} is missing, and its kind of model needs it")
    return value


def _original(c: Config, rope: Rope) -> int:
    return rope.original or c.original_max_position_embeddings or c.max_position_embeddings


def _llama3(c: Config, rope: Rope) -> RopeScaling:
    if rope.high_freq_factor <= rope.low_freq_factor:
        raise ValueError(f"high_freq_factor is {rope.high_freq_factor} (right: above low_freq_factor)")
    return RopeScaling(
        factor=_needed(rope.factor, "factor"),
        low_freq_factor=rope.low_freq_factor,
        high_freq_factor=rope.high_freq_factor,
        original_context=_original(c, rope),
    )


def yarn(c: Config, rope: Rope) -> Yarn:
    """Return yarn as `_compute_yarn_parameters` has it."""
    if _theta(c) <= 1:
        raise ValueError(f"rope_theta is {_theta(c)} (right for yarn: above 1)")
    factor, whole = float(_needed(rope.factor, "factor")), rope.mscale_all_dim
    own = growth(factor, rope.mscale) / growth(factor, whole) if rope.mscale and whole else growth(factor)
    return Yarn(
        factor=factor,
        original_context=_original(c, rope),
        theta=_theta(c),
        fast=rope.beta_fast or 32.0,
        slow=rope.beta_slow or 1.0,
        mscale=whole or 0.0,
        truncate=rope.truncate,
        wave_scale=rope.attention_factor or own,
    )


def _longrope(c: Config, rope: Rope) -> LongRope:
    original = _original(c, rope)
    factor = rope.factor or c.max_position_embeddings / original
    grown = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    short, long = (tuple(_needed(getattr(rope, key), key)) for key in ("short_factor", "long_factor"))
    return LongRope(
        short=short, long=long, original_context=original, wave_scale=rope.attention_factor or grown
    )


# ---- families


def _windows(c: Config, sliding: Callable[[int], bool]) -> tuple[int, ...]:
    """Return the window of each layer, by `layer_types` where the config has them, else by a rule."""
    if not c.sliding_window:
        return ()
    kinds = c.layer_types
    if kinds is None:
        kinds = [SLIDING if sliding(i) else "full_attention" for i in range(c.num_hidden_layers)]
    if len(kinds) < c.num_hidden_layers:
        raise ValueError(f"layer_types has {len(kinds)} entries for {c.num_hidden_layers} layers")
    known = (SLIDING, "full_attention")
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"layer_types has {kind!r} (right: {', '.join(known)})")
    return tuple(c.sliding_window if k == SLIDING else 0 for k in kinds[: c.num_hidden_layers])


def _mistral(c: Config) -> dict[str, Any]:
    return {"windows": _windows(c, lambda layer: True)}


def _qwen_windows(c: Config) -> dict[str, Any]:
    if not c.use_sliding_window:
        return {}
    first = c.num_hidden_layers if c.max_window_layers is None else c.max_window_layers
    return {"windows": _windows(c, lambda layer: layer >= first)}


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
        "windows": _windows(c, lambda layer: layer % 2 == 0),
    }


def _gemma3(c: Config) -> dict[str, Any]:
    """Return Gemma 3's: rotations of layers with a window are by a base of their own, and not stretched."""
    pattern, ropes = c.sliding_window_pattern or 6, c.rope_parameters
    local, found = c.rope_local_base_freq or 10000.0, _gemma2(c)
    if isinstance(ropes, LayerRopes):
        local = ropes.sliding_attention.theta or local
    return found | {
        "head_norms": True,
        "windows": _windows(c, lambda layer: bool((layer + 1) % pattern)),
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
    layers, every = range(c.num_hidden_layers), c.no_rope_layer_interval
    turned = c.no_rope_layers or [int((layer + 1) % every != 0) for layer in layers]
    if len(turned) < c.num_hidden_layers:
        raise ValueError(f"no_rope_layers has {len(turned)} entries for {c.num_hidden_layers} layers")
    unturned = frozenset(layer for layer in layers if not turned[layer])
    windows = _windows(c, lambda layer: layer in unturned) if c.use_sliding_window else ()
    return {"unturned": unturned, "windows": windows}


def _routing(c: Config, ffn: int, **changes: Any) -> Routing:
    experts, each = _needed(c.num_experts, "num_experts"), c.num_experts_per_tok or 2
    if each > experts:
        raise ValueError(f"num_experts_per_tok is {each} of {experts} experts")
    return Routing(experts=experts, each=each, ffn=ffn, **changes)


def _mixtral(c: Config) -> dict[str, Any]:
    return _mistral(c) | {"routing": _routing(c, c.intermediate_size)}


def _qwen_experts(c: Config, normalised: bool, shared: int) -> Routing:
    plain = set(c.mlp_only_layers or ())
    dense = {i for i in range(c.num_hidden_layers) if i in plain or (i + 1) % c.decoder_sparse_step}
    ffn = int(_needed(c.moe_intermediate_size, "moe_intermediate_size"))
    own = normalised if c.norm_topk_prob is None else c.norm_topk_prob
    return _routing(c, ffn, normalised=own, shared=shared, gated=bool(shared), dense=frozenset(dense))


def _qwen2_moe(c: Config) -> dict[str, Any]:
    return _qwen2(c) | {"routing": _qwen_experts(c, False, c.shared_expert_intermediate_size)}


def _qwen3_moe(c: Config) -> dict[str, Any]:
    return _qwen3(c) | {"routing": _qwen_experts(c, False, 0)}


def _gpt_oss(c: Config) -> dict[str, Any]:
    return {
        "windows": _windows(c, lambda layer: layer % 2 == 0),
        "sinks": True,
        "routing": _routing(c, c.intermediate_size, biased=True, limit=c.swiglu_limit),
    }


def _deepseek(c: Config, source: str) -> DeepSeek:
    """Return DeepSeek-V2's or V3's; V2 scores by a softmax and does not make shares sum to 1."""
    second = c.model_type.startswith("deepseek_v2")
    if c.moe_layer_freq != 1 or c.attention_bias:
        raise ValueError("moe_layer_freq other than 1, and attention_bias, are not known here")
    rope = _rope(c)
    if rope is not None and rope.kind not in (NO_SCALE, "yarn"):
        raise ValueError(f"rope_type {rope.kind!r} is not known here (right: {NO_SCALE}, yarn)")
    stretched = yarn(c, rope) if rope is not None and rope.kind == "yarn" else None
    if stretched is not None and abs(stretched.wave_scale - 1.0) > 1e-6:
        raise ValueError("mscale differs from mscale_all_dim: cosines would be scaled (right: equal ones)")
    every, limited = c.num_experts or 0, c.topk_method != "greedy"
    groups = (c.n_group or 1) if limited else 1
    chosen = (c.topk_group or groups) if limited else 1
    routing = _routing(c, int(_needed(c.moe_intermediate_size, "moe_intermediate_size")))
    if every % groups or chosen > groups or (not second and every // groups < 2 <= groups):
        raise ValueError(f"{every} experts in {groups} groups, {chosen} of them chosen")
    sizes: dict[str, Any] = {
        name: int(_needed(getattr(c, key), key))
        for name, key in (("latent", "kv_lora_rank"), ("nope", "qk_nope_head_dim"),
                          ("head_dim", "qk_rope_head_dim"), ("value", "v_head_dim"))
    }  # fmt: skip
    if sizes["head_dim"] % 2:
        raise ValueError(f"qk_rope_head_dim is {sizes['head_dim']} (right: an even number)")
    return DeepSeek(
        source=source, layers=c.num_hidden_layers, hidden=c.hidden_size, heads=c.num_attention_heads,
        kv_heads=c.num_attention_heads, ffn=c.intermediate_size, vocab=c.vocab_size, rope_theta=_theta(c),
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
FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(_mistral),
    "ministral": Family(_mistral),
    "mistral3": Family(_mistral),
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
