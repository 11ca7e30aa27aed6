"""The decoder that a `config.json` describes before its family's departures: sizes, rotations, windows.

Source: transformers, modeling_rope_utils.py and configuration_utils.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..zoo.decoder import GELU, GELU_TANH, SILU, Decoder
from ..zoo.rope import LinearScaling, LongRope, RopeScaling, Stretching, Yarn, growth
from .config import Config, LayerRopes, Rope

ACTIVATIONS = {
    "silu": SILU, "swish": SILU, "gelu": GELU, "gelu_pytorch_tanh": GELU_TANH, "gelu_new": GELU_TANH,
}  # fmt: skip
QKV = frozenset({"q_proj", "k_proj", "v_proj"})
SLIDING, CHUNKED, WHOLE = "sliding_attention", "chunked_attention", "full_attention"
NO_SCALE = "default"


def decoder(c: Config, source: str, kind: type[Decoder] = Decoder, **changes: Any) -> Decoder:
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
        "ffn": c.intermediate_size,
        "epsilon": c.rms_norm_eps,
        "biased": biased,
        "activation": ACTIVATIONS[c.act],
        "rotated": 0 if turned == head_dim else turned,
        "rope_scaling": stretching(c, turned),
    }
    return kind(
        source=source, layers=c.num_hidden_layers, hidden=c.hidden_size, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, vocab=c.vocab_size, rope_theta=theta_of(c),
        context=c.max_position_embeddings, tied=c.tie_word_embeddings, **fields | changes,
    )  # fmt: skip


def rope_of(c: Config) -> Rope | None:
    ropes = c.rope_parameters
    return ropes.full_attention if isinstance(ropes, LayerRopes) else ropes or c.rope_scaling


def theta_of(c: Config) -> float:
    rope = rope_of(c)
    return (rope.theta if rope else None) or c.rope_theta or 10000.0


def _turned_share(c: Config) -> float:
    """Return which share of a head's elements is turned."""
    rope = rope_of(c)
    return (rope.partial_rotary_factor if rope else None) or c.partial_rotary_factor or 1.0


def stretching(c: Config, turned: int) -> Stretching | None:
    """Return how rotary wavelengths are stretched, None where they are not."""
    rope = rope_of(c)
    if rope is None or rope.kind == NO_SCALE:
        return None
    kinds: dict[str, Callable[[Config, Rope], Stretching]] = {
        "linear": lambda c, r: LinearScaling(factor=needed(r.factor, "factor")),
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


def needed(value: Any, key: str) -> Any:
    if value is None:
        raise ValueError(f"{key} is missing, and its kind of model needs it")
    return value


def original_context(c: Config, rope: Rope) -> int:
    return rope.original or c.original_max_position_embeddings or c.max_position_embeddings


def _llama3(c: Config, rope: Rope) -> RopeScaling:
    if rope.high_freq_factor < rope.low_freq_factor:
        raise ValueError(f"high_freq_factor is {rope.high_freq_factor} (right: low_freq_factor or above)")
    return RopeScaling(
        factor=needed(rope.factor, "factor"),
        low_freq_factor=rope.low_freq_factor,
        high_freq_factor=rope.high_freq_factor,
        original_context=original_context(c, rope),
    )


def yarn(c: Config, rope: Rope) -> Yarn:
    """Return yarn as `_compute_yarn_parameters` has it."""
    if theta_of(c) <= 1:
        raise ValueError(f"rope_theta is {theta_of(c)} (right for yarn: above 1)")
    factor, whole = float(needed(rope.factor, "factor")), rope.mscale_all_dim
    own = growth(factor, rope.mscale) / growth(factor, whole) if rope.mscale and whole else growth(factor)
    return Yarn(
        factor=factor,
        original_context=original_context(c, rope),
        theta=theta_of(c),
        fast=rope.beta_fast or 32.0,
        slow=rope.beta_slow or 1.0,
        mscale=whole or 0.0,
        truncate=rope.truncate,
        wave_scale=rope.attention_factor or own,
    )


def _longrope(c: Config, rope: Rope) -> LongRope:
    original = original_context(c, rope)
    factor = rope.factor or c.max_position_embeddings / original
    grown = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    short, long = (tuple(needed(getattr(rope, key), key)) for key in ("short_factor", "long_factor"))
    own = rope.short_mscale or rope.attention_factor or grown  # Phi-3.5-MoE has one on each side
    return LongRope(
        short=short, long=long, original_context=original, wave_scale=own, long_wave_scale=rope.long_mscale
    )


def layer_kinds(c: Config, near: str, rule: Callable[[int], bool]) -> list[str]:
    """Return what each layer sees, `near` or all: by `layer_types` where there are, else by a rule."""
    count, kinds = c.num_hidden_layers, c.layer_types
    if kinds is None:
        return [near if rule(layer) else WHOLE for layer in range(count)]
    if len(kinds) < count:
        raise ValueError(f"layer_types has {len(kinds)} entries for {count} layers")
    for kind in kinds:
        if kind not in (near, WHOLE):
            raise ValueError(f"layer_types has {kind!r} (right: {near}, {WHOLE})")
    return kinds[:count]


def windows(c: Config, sliding: Callable[[int], bool]) -> tuple[int, ...]:
    """Return the window of each layer, 0 for none; `sliding` says where the config does not."""
    size = c.sliding_window
    return tuple(size if k == SLIDING else 0 for k in layer_kinds(c, SLIDING, sliding)) if size else ()


def turned_layers(c: Config) -> list[int]:
    """Return for each layer whether it turns queries and keys, 1 or 0."""
    layers, every = range(c.num_hidden_layers), c.no_rope_layer_interval
    turned = c.no_rope_layers or [int((layer + 1) % every != 0) for layer in layers]
    if len(turned) < c.num_hidden_layers:
        raise ValueError(f"no_rope_layers has {len(turned)} entries for {c.num_hidden_layers} layers")
    return turned[: c.num_hidden_layers]
