"""Make `tests/data/transformers.npz`: what transformers computes for tiny models of each family.

Run it where transformers (5.24) and torch (2.13) are: `python tests/checkpoints/make_oracle.py`. The file
holds each model's `config.json`, names and shapes of the tensors of its checkpoint as `save_pretrained`
writes them, and logits of a prefill and of a step after it. Values are not in it: `tensor_values.py` makes
them by name.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
from tensor_values import tensor_values

OUT = Path(__file__).parents[1] / "data" / "transformers.npz"
PAST, NEW, BATCH = 11, 3, 2
BASE: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "vocab_size": 96, "max_position_embeddings": 64, "head_dim": 16,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0}
LATENTS = {
    "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 12,
    "first_k_dense_replace": 1, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 2,
    "moe_intermediate_size": 16, "num_key_value_heads": 4, "routed_scaling_factor": 2.5, "head_dim": 8,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-3.1": {
        "model_type": "llama", "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True,
        "rope_parameters": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16, "rope_theta": 10000.0,
        },
    },
    "llama-linear": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
    },
    "mistral": {"model_type": "mistral", "sliding_window": 6},
    "qwen2": {
        "model_type": "qwen2", "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "rope_parameters": YARN},
    "gemma": {"model_type": "gemma", "num_key_value_heads": 1},
    "gemma2": {
        "model_type": "gemma2", "sliding_window": 5, "query_pre_attn_scalar": 64,
        "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
    },
    "gemma3": {
        "model_type": "gemma3_text", "sliding_window": 5, "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "query_pre_attn_scalar": 256,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "phi3": {
        "model_type": "phi3", "partial_rotary_factor": 0.5, "original_max_position_embeddings": 12,
        "rope_parameters": {
            "rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.6],
            "long_factor": [1.5, 2.0, 4.0, 9.0], "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
            "original_max_position_embeddings": 12,
        },
    },
    "granite": {
        "model_type": "granite", "embedding_multiplier": 12.0, "residual_multiplier": 0.25,
        "attention_multiplier": 0.125, "logits_scaling": 8.0,
    },
    "smollm3": {"model_type": "smollm3", "no_rope_layer_interval": 2},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "model_type": "qwen2_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 32, "mlp_only_layers": [0], "num_hidden_layers": 3,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "norm_topk_prob": True,
    },
    "gpt_oss": {
        "model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 5,
        "rope_parameters": YARN | {"truncate": False, "original_max_position_embeddings": 40},
    },
    "llama4": {
        "model_type": "llama4_text", "num_hidden_layers": 4, "intermediate_size_mlp": 40,
        "num_local_experts": 4, "num_experts_per_tok": 2, "interleave_moe_layer_step": 2,
        "attention_chunk_size": 4, "floor_scale": 7, "attn_scale": 0.5, "rope_parameters": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16, "rope_theta": 10000.0,
        },
    },
    "llama4-maverick": {
        "model_type": "llama4_text", "num_hidden_layers": 2, "intermediate_size_mlp": 40,
        "num_local_experts": 4, "no_rope_layers": [1, 0], "attention_chunk_size": 64,
        "use_qk_norm": False, "attention_bias": True,
        "attn_temperature_tuning": False, "moe_layers": [0],
    },
    "ministral3": {
        "model_type": "ministral3", "rope_parameters": YARN | {
            "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3,
            "original_max_position_embeddings": 4,
        },
    },
    "phi": {"model_type": "phi", "num_key_value_heads": 4},
    "phimoe": {
        "model_type": "phimoe", "num_local_experts": 4, "attention_bias": True, "lm_head_bias": True,
        "router_jitter_noise": 0.2, "rope_parameters": {
            "rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.6, 1.7, 2.0, 2.2, 2.5],
            "long_factor": [1.5, 2.0, 4.0, 9.0, 9.0, 9.0, 9.0, 9.0], "rope_theta": 10000.0,
            "short_mscale": 1.2, "long_mscale": 1.4, "original_max_position_embeddings": 32,
        },
    },
    "deepseek_v2": {
        "model_type": "deepseek_v2", "q_lora_rank": None, "topk_method": "group_limited_greedy", "n_group": 4,
        "topk_group": 2, "norm_topk_prob": False,
    },
    "deepseek_v3": {
        "model_type": "deepseek_v3", "n_group": 4, "topk_group": 2, "norm_topk_prob": True,
        "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
    },
}  # fmt: skip


def logits(model: Any, tokens: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of the last past token, and of the last of the step after it."""
    with torch.no_grad():
        first = model(tokens[:, :PAST], use_cache=True)
        prefill = first.logits[:, -1].numpy()
        return prefill, model(tokens).logits[:, -1].numpy()


def main() -> None:
    """Write the file."""
    stored: dict[str, np.ndarray] = {}
    for name, changes in MODELS.items():
        latent = LATENTS if "deepseek" in name else {}
        values = BASE | latent | changes
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        config._attn_implementation = "eager"
        with tempfile.TemporaryDirectory() as folder:
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            file = Path(folder, "model.safetensors")
            shapes = {key: list(value.shape) for key, value in load_file(file).items()}
            filled = {key: tensor_values(key, shape) for key, shape in shapes.items()}
            save_file({k: v.astype(np.float32) for k, v in filled.items()}, file, {"format": "pt"})
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
            )
            text = Path(folder, "config.json").read_text()
        tokens = np.random.default_rng(0).integers(3, 96, (BATCH, PAST + NEW))
        prefill, step = logits(model.eval(), torch.from_numpy(tokens))
        print(name, transformers.__version__, float(np.abs(prefill).max()))
        stored |= {f"{name}/prefill": prefill, f"{name}/step": step, f"{name}/tokens": tokens}
        stored[f"{name}/about"] = np.array(json.dumps({"config": json.loads(text), "tensors": shapes}))
    np.savez_compressed(OUT, **stored)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
