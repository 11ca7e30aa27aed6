"""Make `tests/data/gguf.npz`: what the library `gguf` (0.19) and transformers (5.24) make of GGUF files.

Run it where both and torch are: `python tests/checkpoints/make_gguf.py`. The file holds random blocks of each
kind with the values that `gguf` unpacks of them; by family, its names for a checkpoint's tensors; a whole
file of a tiny Llama as its writer writes it, with the logits that transformers computes of it; and experts of
GPT-OSS as its checkpoint packs them, with what transformers unpacks of them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, quants
from transformers import AutoModelForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

sys.path.insert(0, str(Path(__file__).parent))
from stored import ORACLE, about
from tensor_values import tensor_values

OUT = Path(__file__).parents[1] / "data" / "gguf.npz"
READ = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "MXFP4")
ARCHITECTURES = {
    "llama": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe",
    "qwen2_moe": "qwen2moe", "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3", "phi3": "phi3",
    "granite": "granite", "gpt_oss": "gpt-oss", "llama4": "llama4",
}  # fmt: skip


def blocks() -> dict[str, np.ndarray]:
    """Return random blocks of each kind with scales of a useful size, and their values."""
    rng, found = np.random.default_rng(0), {}
    half = np.array([0.01, 0.5, 1, 2, 3e-3, 7], np.float16).view(np.uint8).reshape(6, 2)
    for kind in READ:
        raw = rng.integers(0, 256, (6, gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]), np.uint8)
        if kind == "MXFP4":
            raw[:, 0] = (0, 1, 120, 127, 130, 140)
        else:
            start = 208 if kind == "Q6_K" else 0
            raw[:, start : start + 2] = half
            if kind in ("Q4_1", "Q5_1", "Q4_K", "Q5_K"):
                raw[:, 2:4] = half[::-1]
        found |= {f"blocks/{kind}": raw, f"values/{kind}": quants.dequantize(raw, GGMLQuantizationType[kind])}
    return found


def names(family: str, architecture: str) -> dict[str, str]:
    """Return the name of each tensor of a family's checkpoint in a GGUF file; "" for one that has none."""
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table, found = gguf.get_tensor_name_map(kind, 4), {}
    for name in about(family)["tensors"]:
        ours = table.get_name(name, try_suffixes=(".weight", ".bias"))
        found[name] = ours or ""
    return found


def written(path: Path) -> None:
    """Write a tiny Llama, its products in blocks of 8 bits, as llama.cpp's converter does."""
    model, table = about("llama"), names("llama", "llama")
    config, writer = model["config"], gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"token {i}" for i in range(config["vocab_size"])])
    writer.add_token_scores([0.5] * config["vocab_size"])
    for name, shape in model["tensors"].items():
        value = tensor_values(name, shape).astype(np.float32)
        for part, heads in (("q_proj", 4), ("k_proj", 2)):
            if part in name:
                value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        kind = GGMLQuantizationType.Q8_0 if value.ndim > 1 and value.shape[-1] % 32 == 0 else None
        packed = quants.quantize(value, kind) if kind else value
        writer.add_tensor(table[name], packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write the file."""
    stored: dict[str, Any] = blocks()
    spelt = {family: names(family, architecture) for family, architecture in ARCHITECTURES.items()}
    stored["names"] = np.array(json.dumps(spelt))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tiny.gguf")
        written(path)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=path.name, dtype=torch.float32)
        with torch.no_grad():
            found = model.eval()(torch.from_numpy(ORACLE["llama/tokens"])).logits[:, -1].numpy()
        packed = np.random.default_rng(1).integers(0, 256, (2, 6, 3, 16), np.uint8)
        scales = np.random.default_rng(2).integers(118, 131, (2, 6, 3), np.uint8)
        values = convert_moe_packed_tensors(
            torch.from_numpy(packed), torch.from_numpy(scales), dtype=torch.float32
        )
        stored |= {"mxfp4/blocks": packed, "mxfp4/scales": scales, "mxfp4/values": values.numpy()}
        stored |= {"whole": np.frombuffer(path.read_bytes(), np.uint8), "logits": found}
    np.savez_compressed(OUT, **stored)


if __name__ == "__main__":
    main()
