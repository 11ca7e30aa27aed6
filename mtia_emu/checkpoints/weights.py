"""The values of a decoder's weights, from the tensors of a checkpoint.

Our weights have transformers' names but lie as ONNX multiplies them: a product's weight is [inputs, outputs],
theirs [outputs, inputs]. All experts of a layer are one of ours, and one tensor each of theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..zoo.deepseek import DeepSeek
from ..zoo.llama import Llama
from ..zoo.writer import Weight
from .config import Config
from .safetensors import CheckpointTensors

Array = np.ndarray
EXPERTS = re.compile(r"(.*\.mlp)\.(gate|up|down)_proj\.(weight|bias)")
QUERIES_KEYS = re.compile(r".*\.self_attn\.[qk]_proj\.(weight|bias)")
LATENT = re.compile(r"(.*\.self_attn)\.([kv])_b_proj\.weight")
PLUS_ONE = ("gemma", "gemma2", "gemma3")  # norms multiply by one more than what is stored
RENAMED = {
    "mixtral": ((".mlp.", ".block_sparse_moe."),),
    "gpt_oss": ((".mlp.gate.", ".mlp.router."),),
    "llama4": ((".mlp.gate.", ".mlp.router."), (".mlp.", ".feed_forward.")),
    "phi": ((".o_proj.", ".dense."), ("model.norm.", "model.final_layernorm.")),
    "phimoe": ((".mlp.", ".block_sparse_moe."),),
    "deepseek": (
        (".mlp.router.gate.weight", ".mlp.gate.weight"),
        (".mlp.router.gate.bias", ".mlp.gate.e_score_correction_bias"),
        (".q_a.weight", ".q_a_layernorm.weight"),
        (".kv_a.weight", ".kv_a_layernorm.weight"),
        (".kv_a_proj.", ".kv_a_proj_with_mqa."),
    ),
}
"""Parts of our names, and what checkpoints of a family have in their place."""
MIXTRAL = {"gate": "w1", "up": "w3", "down": "w2"}
W123 = ("mixtral", "phimoe")  # whose experts' parts are numbered


@dataclass(frozen=True)
class CheckpointValues:
    """The values of weights of a model: those of a checkpoint's tensors."""

    tensors: CheckpointTensors
    model: Llama
    config: Config

    @property
    def place(self) -> str:
        """Return where the tensors are."""
        return str(self.tensors.folder)

    @property
    def adds_one(self) -> bool:
        """Return whether norms multiply by one more than what is stored."""
        return self.family in PLUS_ONE

    @property
    def family(self) -> str:
        """Return the family, by whose rules tensors are named."""
        if isinstance(self.model, DeepSeek):
            return "deepseek"
        return self.config.model_type.removesuffix("_text")

    def __call__(self, weight: Weight) -> Array:
        """Return a weight's values: fp16 of its shape. Raises `UserError` where the tensors have none."""
        try:
            value = self._stored(weight)
        except (ValueError, IndexError) as error:  # a tensor of fewer dimensions, or that does not divide
            raise UserError(f"{self.place}: weight {weight.name} cannot be made: {error}") from None
        if value.shape != weight.shape:
            raise UserError(
                f"{self.place}: weight {weight.name} comes to {list(value.shape)}, by its config it is "
                f"{list(weight.shape)}"
            )
        if "norm" in weight.name and self.adds_one:
            value = value.astype(np.float32) + 1.0
        with np.errstate(over="ignore"):
            narrow = np.ascontiguousarray(value).astype(np.float16)
        if not np.isfinite(narrow).all():
            raise UserError(f"{self.place}: weight {weight.name} has values that fp16 does not hold")
        return narrow

    def _stored(self, weight: Weight) -> Array:
        """Return a weight's values as stored, in our layout."""
        experts, latent = EXPERTS.fullmatch(weight.name), LATENT.fullmatch(weight.name)
        if experts and len(weight.shape) > 1 + (experts[3] == "weight"):
            return self._experts(experts[1], experts[2], experts[3], weight.shape)
        if latent:
            return self._latent(latent[1], latent[2])
        value = self._own(weight.name)
        if self.family == "llama4" and QUERIES_KEYS.fullmatch(weight.name):
            heads = value.reshape(-1, self.model.head_dim, *value.shape[1:])
            value = in_halves(heads, 0).reshape(value.shape)
        is_product = value.ndim > 1 and "embed_tokens" not in weight.name
        return self._product(weight, value) if is_product else value

    def _own(self, name: str) -> Array:
        """Return the tensor of the same name, as the family spells it."""
        return self.tensors[self._spelt(name)]

    def _spelt(self, name: str) -> str:
        """Return the name of a tensor as the family spells it, and as its checkpoint has it."""
        for ours, theirs in RENAMED.get(self.family, ()):
            name = name.replace(ours, theirs)
        return self._placed(name)

    def _placed(self, name: str) -> str:
        """Return the name under which a checkpoint keeps a tensor: those of several parts have a prefix."""
        inner = name.removeprefix("model.")
        spelt = (name, f"model.language_model.{inner}", f"language_model.{name}", inner)
        return next((s for s in spelt if s in self.tensors.found), name)

    def _product(self, weight: Weight, value: Array) -> Array:
        """Return a product's weight: [inputs, outputs], what DeepSeek turns in pairs put in halves."""
        model, name, fits = self.model, weight.name, value.T.shape == weight.shape
        if isinstance(model, DeepSeek) and self.config.rope_interleave and fits:
            if re.search(r"\.q(_b)?_proj\.", name):
                heads = value.reshape(model.heads, model.nope + model.head_dim, -1)
                return in_halves(heads, model.nope).reshape(value.shape).T
            if ".kv_a_proj." in name:
                return in_halves(value[None], model.latent)[0].T
        return value.T

    def _experts(self, layer: str, part: str, kind: str, shape: tuple[int, ...]) -> Array:
        """Return what all experts of a layer have of a part: [experts, inputs, outputs], or biases."""
        if self.family == "gpt_oss":
            suffix = "" if kind == "weight" else "_bias"
            if part == "down":
                return self._own(f"{layer}.experts.down_proj{suffix}")
            return self._own(f"{layer}.experts.gate_up_proj{suffix}")[..., part == "up" :: 2]
        whole = f"{layer}.experts.{'down' if part == 'down' else 'gate_up'}_proj"
        if self._spelt(whole) in self.tensors.found:
            both = self._own(whole)
            both = both if self.family == "llama4" else both.transpose(0, 2, 1)
            half = both.shape[2] // 2
            return both if part == "down" else both[..., half:] if part == "up" else both[..., :half]
        name = MIXTRAL[part] if self.family in W123 else f"{part}_proj"
        each = [self._own(f"{layer}.experts.{e}.{name}.weight").T for e in range(shape[0])]
        return np.stack(each) if each[0].shape == shape[1:] else each[0]

    def _latent(self, attention: str, part: str) -> Array:
        """Return what makes keys or values of latents: [heads, latent, size]."""
        assert isinstance(self.model, DeepSeek)
        both = self._own(f"{attention}.kv_b_proj.weight")
        nope, size = self.model.nope, self.model.nope + self.model.value
        if both.shape != (self.model.heads * size, self.model.latent):
            return both
        heads = both.reshape(self.model.heads, size, -1).transpose(0, 2, 1)
        return heads[..., :nope] if part == "k" else heads[..., nope:]


def in_halves(value: Array, first: int) -> Array:
    """Return [heads, rows, ..] with rows from `first` on regrouped: even ones, then odd ones."""
    turned = value[:, first:]
    return np.concatenate([value[:, :first], turned[:, 0::2], turned[:, 1::2]], axis=1)


def write_values(path: Path, weights: list[Weight], values: Callable[[Weight], Array]) -> None:
    """Write weights one after another, as an ONNX file of ours places them; one is in memory at a time."""
    with open(path, "wb") as file:
        for weight in weights:
            values(weight).tofile(file)
