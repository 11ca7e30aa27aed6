"""Checkpoints of tiny decoders as transformers and llama.cpp store them, and changes to their headers."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator

from . import mutate, mutate_zip
from .mutate import Files

CONFIG = {
    **{"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 24, "torch_dtype": "float16"},
    **{"max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True},
}
KINDS: dict[str, dict[str, object]] = {  # what other families say beside that
    "gemma2": {
        "head_dim": 8,
        "sliding_window": 8,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 50.0,
    },
    "qwen3": {"head_dim": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA_3 = {"rope_scaling": {**ROPE, "original_max_position_embeddings": 16}}
LAYER = {
    **{"input_layernorm": (16,), "self_attn.q_proj": (16, 16), "self_attn.k_proj": (8, 16)},
    **{"self_attn.v_proj": (8, 16), "self_attn.o_proj": (16, 16), "post_attention_layernorm": (16,)},
    **{"mlp.gate_proj": (32, 16), "mlp.up_proj": (32, 16), "mlp.down_proj": (16, 32)},
}
GGUF_KEYS: dict[str, object] = {
    **{"general.architecture": "llama", "llama.block_count": 2, "llama.context_length": 64},
    **{"llama.embedding_length": 16, "llama.feed_forward_length": 32, "llama.attention.head_count": 2},
    **{"llama.attention.head_count_kv": 1, "llama.vocab_size": 24, "llama.rope.freq_base": 1e4},
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
TEXT, ARRAY, U32, F32 = 8, 9, 4, 6  # types of a value in a GGUF header
GGUF_NAMES = {
    **{"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k"},
    **{"self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate"},
    **{"post_attention_layernorm": "ffn_norm", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"},
}


def folders() -> Iterator[Files]:
    """Yield checkpoints' files: a configuration alone for some families, for one with its weights."""
    for name, more in KINDS.items():
        yield {"config.json": json.dumps(CONFIG | {"model_type": name} | more).encode()}
    config = json.dumps(CONFIG | LLAMA_3).encode()
    tensors = {f"model.layers.{i}.{name}.weight": s for i in range(2) for name, s in LAYER.items()}
    tensors |= {"model.embed_tokens.weight": (24, 16), "model.norm.weight": (16,)}
    yield {"config.json": config, "model.safetensors": _stored(tensors)}
    halves = dict(list(tensors.items())[:9]), dict(list(tensors.items())[9:])
    shards = {f"model-{i + 1}.safetensors": half for i, half in enumerate(halves)}
    places = {tensor: file for file, half in shards.items() for tensor in half}
    index = json.dumps({"metadata": {}, "weight_map": places}).encode()
    stored = {file: _stored(half) for file, half in shards.items()}
    yield {"config.json": config, "model.safetensors.index.json": index, **stored}


def _stored(tensors: dict[str, tuple[int, ...]]) -> bytes:
    """Return a safetensors file of halves."""
    header, at = {}, 0
    for name, shape in tensors.items():
        end = at + 2 * _count(shape)
        header[name], at = {"dtype": "F16", "shape": shape, "data_offsets": [at, end]}, end
    return _headed(json.dumps(header).encode()) + b"\x00\x3c" * (at // 2)


def _headed(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def gguf_file() -> bytes:
    """Return a GGUF file of a tiny Llama in 32 bits."""
    tensors = {f"blk.{i}.{GGUF_NAMES[name]}.weight": s for i in range(2) for name, s in LAYER.items()}
    tensors |= {"token_embd.weight": (24, 16), "output_norm.weight": (16,)}
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(GGUF_KEYS) + 1)]
    head += [_text(key) + _valued(value) for key, value in GGUF_KEYS.items()]
    tokens = b"".join(_text(f"t{i}") for i in range(24))
    head.append(_text("tokenizer.ggml.tokens") + struct.pack("<IIQ", ARRAY, TEXT, 24) + tokens)
    at = 0
    for name, shape in tensors.items():
        head.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], 0, at))
        at += 4 * _count(shape)
    header = b"".join(head)
    return header + bytes(-len(header) % 32) + b"\x00\x00\x80\x3f" * (at // 4)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _valued(value: object) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + _text(value)
    return struct.pack("<If", F32, value) if isinstance(value, float) else struct.pack("<II", U32, value)


def safetensors(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Change a safetensors file: what its header says, the header's length, or any bytes."""
    size = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + size], data[8 + size :]
    kind = rng.randrange(8)
    if kind == 0 or not header:
        return mutate.plain(data, rng, other)
    if kind == 1:
        return struct.pack("<Q", rng.choice(mutate.INTEGERS) % (1 << 64)) + data[8:]
    if kind == 2:
        return data[: 8 + size] + mutate.truncate(rest, rng)
    return _headed(mutate_zip.json_text(header, rng)) + rest


def gguf(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Change a GGUF file: a number of 32 or 64 bits somewhere in its header, or any bytes."""
    if rng.random() < 0.4 or len(data) < 32:
        return mutate.plain(data, rng, other)
    form: str = rng.choice(("<I", "<Q"))
    size = struct.calcsize(form)
    likely: Callable[[], int] = lambda: rng.choice(mutate.INTEGERS) % (1 << 8 * size)  # noqa: E731
    value = likely() if rng.random() < 0.7 else rng.randrange(16)
    header = data.rfind(b"output_norm.weight") + 64  # where what is said of the last tensor ends
    at = rng.randrange(4, max(5, min(header, len(data) - size)))
    return data[:at] + struct.pack(form, value) + data[at + size :]
