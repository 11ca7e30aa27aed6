"""The values of a decoder's weights, from the tensors of a GGUF file.

Its products lie as transformers' do, [outputs, inputs]; all experts of a layer are one tensor, as ours are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..zoo.writer import Weight
from .gguf import PackedModel
from .weights import QUERIES_KEYS, CheckpointValues, in_halves

Array = np.ndarray
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # fmt: skip
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+?)(\.weight|\.bias)?")
PARTS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate": "ffn_gate_inp",
    "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv", "self_attn.sinks": "attn_sinks",
    "mlp.gate_up_proj": "ffn_up", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}  # fmt: skip
FOUR_NORMS = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
NORMS = {"gemma2": FOUR_NORMS, "gemma3": FOUR_NORMS,
         "gpt_oss": {"post_attention_layernorm": "post_attention_norm"}}  # fmt: skip
PAIRED = ("llama", "mixtral", "granite", "llama4")  # families whose queries and keys lie in pairs to turn


@dataclass(frozen=True)
class PackedValues(CheckpointValues):
    """The values of weights of a model: those of a GGUF file's tensors."""

    tensors: PackedModel  # type: ignore[assignment]

    @property
    def adds_one(self) -> bool:
        """Return whether norms multiply by one more than what is stored: here it has been added."""
        return False

    @property
    def place(self) -> str:
        """Return where the tensors are."""
        return str(self.tensors.path)

    def _stored(self, weight: Weight) -> Array:
        """Return a weight's values as stored, in our layout."""
        value = self.tensors[self.spelt(weight)]
        if self.family in PAIRED and QUERIES_KEYS.fullmatch(weight.name):
            heads = value.reshape(-1, self.model.head_dim, *value.shape[1:])
            value = in_halves(heads, 0).reshape(value.shape)
        if value.ndim == 1 or (weight.name in WHOLE and weight.name != "lm_head.weight"):
            return value
        return value.swapaxes(-1, -2) if weight.name.endswith(".weight") else value

    def spelt(self, weight: Weight) -> str:
        """Return the name of a weight's tensor."""
        found = LAYER.fullmatch(weight.name)
        if found is None:
            return WHOLE.get(weight.name, weight.name)
        part, kind = found[2], found[3] or ".weight"
        names = PARTS | NORMS.get(self.family, {})
        experts = "_exps" if part.startswith("mlp.") and len(weight.shape) > 1 + (kind == ".weight") else ""
        short = re.sub(r"^self_attn\.([qkv])_(proj|norm)$", _attention, part)
        short = re.sub(r"^mlp\.(gate|up|down)_proj$", rf"ffn_\1{experts}", short)
        short = re.sub(r"^mlp\.shared_expert\.(gate|up|down)_proj$", r"ffn_\1_shexp", short)
        return f"blk.{found[1]}.{names.get(part, short)}{kind}"


def _attention(found: re.Match[str]) -> str:
    return f"attn_{found[1]}" + ("_norm" if found[2] == "norm" else "")
