"""Checkpoints of tiny models as GGUF files, as llama.cpp's converter lays them out.

Names of tensors are those that the library `gguf` gives (`make_gguf.py`); of experts, which are stacked
first, they are formed here by its rule.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from stored import about
from tensor_values import tensor_values

STORED = np.load(Path(__file__).parents[1] / "data" / "gguf.npz")
NAMES: dict[str, dict[str, str]] = json.loads(str(STORED["names"]))
ARCHITECTURES = {"mixtral": "llama", "qwen3_moe": "qwen3moe", "qwen2_moe": "qwen2moe", "gpt_oss": "gpt-oss"}
PERMUTED = ("llama", "mixtral", "granite")
PLUS_ONE = ("gemma", "gemma2", "gemma3")
EXPERT = re.compile(r"model\.layers\.(\d+)\..*\.experts\.(\d+)\.(\w+?)(?:_proj)?\.weight")
PARTS = {"w1": "gate", "w3": "up", "w2": "down"}


def text(value: str) -> bytes:
    """Return a text as the format has it."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value_bytes(value: Any) -> bytes:
    """Return a value behind its type's code."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)


def save_gguf(path: Path, keys: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    """Write a file of version 3 of plain tensors, fp32 or fp16, with the format's alignment."""
    head, data = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys)), b""
    head += b"".join(text(key) + value_bytes(value) for key, value in keys.items())
    for name, value in tensors.items():
        data += b"\0" * (-len(data) % 32)
        shape = tuple(reversed(value.shape))
        kind = {np.float32: 0, np.float16: 1}[value.dtype.type]
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += value.tobytes()
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return path


def header_keys(family: str) -> dict[str, Any]:
    """Return the keys that the converter writes of a model's `config.json`."""
    c, name = about(family)["config"], ARCHITECTURES.get(family, family)
    kept = {
        "block_count": c["num_hidden_layers"], "embedding_length": c["hidden_size"],
        "feed_forward_length": c["intermediate_size"], "context_length": c["max_position_embeddings"],
        "attention.head_count": c["num_attention_heads"], "attention.head_count_kv": c["num_key_value_heads"],
        "attention.key_length": c["head_dim"], "attention.layer_norm_rms_epsilon": c["rms_norm_eps"],
        "attention.sliding_window": c.get("sliding_window"),
        "expert_count": c.get("num_local_experts") or c.get("num_experts"),
        "expert_used_count": c.get("num_experts_per_tok"),
        "expert_feed_forward_length": c.get("moe_intermediate_size"),
        "expert_shared_feed_forward_length": c.get("shared_expert_intermediate_size"),
        "attn_logit_softcapping": c.get("attn_logit_softcapping"),
        "final_logit_softcapping": c.get("final_logit_softcapping"),
        "logit_scale": c.get("logits_scaling"), "residual_scale": c.get("residual_multiplier"),
        "embedding_scale": c.get("embedding_multiplier"), "attention.scale": c.get("attention_multiplier"),
        "rope.dimension_count": int(c["head_dim"] * c.get("partial_rotary_factor", 1.0)),
    }  # fmt: skip
    rope = c["rope_parameters"]
    rope = rope.get("full_attention", rope)
    kept["rope.freq_base"] = float(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        kept |= {"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": rope["factor"]}
        kept["rope.scaling.original_context_length"] = rope.get("original_max_position_embeddings")
    tokens = {"tokenizer.ggml.tokens": [f"token {i}" for i in range(c["vocab_size"])]}
    head = {f"{name}.{key}": value for key, value in kept.items() if value is not None}
    return {"general.architecture": name} | head | tokens


def header_tensors(family: str) -> dict[str, np.ndarray]:
    """Return the tensors that the converter writes of a model's checkpoint."""
    config = about(family)["config"]
    found: dict[str, np.ndarray] = {}
    stacked: dict[str, dict[int, np.ndarray]] = {}
    for name, shape in about(family)["tensors"].items():
        value = tensor_values(name, shape)
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if part in name and family in PERMUTED:
                halves = value.reshape(config[heads], 2, -1, *value.shape[1:])
                value = halves.swapaxes(1, 2).reshape(value.shape)
        if "norm" in name and family in PLUS_ONE:
            value = (value.astype(np.float32) + 1).astype(np.float16)
        if expert := EXPERT.fullmatch(name):
            part = PARTS.get(expert[3], expert[3])
            stacked.setdefault(f"blk.{expert[1]}.ffn_{part}_exps.weight", {})[int(expert[2])] = value
        elif ".experts." in name:
            found |= _gpt_oss(name, value)
        elif not NAMES[family][name]:  # a plain network in an architecture whose layers all have experts
            layer, part = name.split(".")[2], name.split(".")[-2].removesuffix("_proj")
            found[f"blk.{layer}.ffn_{part}.weight"] = value
        else:
            found[NAMES[family][name] + (".weight" if name.endswith(".sinks") else "")] = value
    return found | {name: np.stack([each[i] for i in sorted(each)]) for name, each in stacked.items()}


def _gpt_oss(name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """Return gate and up apart, which alternate in the checkpoint, and products as [outputs, inputs]."""
    layer, kind = name.split(".")[2], "bias" if name.endswith("_bias") else "weight"
    value = value if kind == "bias" else value.swapaxes(-1, -2)
    if "gate_up" not in name:
        return {f"blk.{layer}.ffn_down_exps.{kind}": value}
    rows = 1 if kind == "bias" else value.ndim - 2
    parts = (value.take(range(start, value.shape[rows], 2), rows) for start in (0, 1))
    return {
        f"blk.{layer}.ffn_{part}_exps.{kind}": half for part, half in zip(("gate", "up"), parts, strict=True)
    }
