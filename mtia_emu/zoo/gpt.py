"""GPT decoders: learned positions, layer norms, biases, a network of GELU, the head tied to the embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .llama import LOGITS, DecoderStep, Llama
from .writer import Fact, ModelWriter


@dataclass(frozen=True, kw_only=True)
class Gpt(Llama):
    """The sizes of a GPT; `context` is how many positions it has learned. Nothing is rotated.

    `packed` makes queries, keys and values in one product, else in three: heads of three divide among chips.
    """

    packed: bool = True
    rope_theta: float = 0.0
    tied: bool = True

    def facts(self) -> dict[str, Fact]:
        """Return the parameters, each with its unit and source."""
        return {name: value for name, value in super().facts().items() if name != "rope_theta"}

    def step(self, writer: ModelWriter, dims: dict[str, int]) -> DecoderStep:
        """Return what writes a step."""
        return _Step(self, writer, **dims)


class _Step(DecoderStep):
    """The writing of one step."""

    model: Gpt

    def write(self) -> None:
        """Write the whole step: embeddings of tokens and positions, layers, norm, logits."""
        w, m = self.writer, self.model
        w.output(LOGITS, np.float16, *self.asked, m.vocab)
        ids = w.input("input_ids", np.int64, self.batch, self.seq)
        positions = w.input("position_ids", np.int64, self.batch, self.seq)
        table = w.weight("model.embed_tokens.weight", m.vocab, m.hidden, std=m.hidden**-0.5)
        places = w.weight("model.embed_positions.weight", m.context, m.hidden, std=0.02)
        at = w.op("Gather", places, positions, name="model.embed_positions", axis=0)
        x = w.op("Add", self.embed(table, ids), at, name="model.embedded")
        mask = self.mask() if self.seq > 1 else None
        for layer in range(m.layers):
            name = f"model.layers.{layer}"
            x = self.mixed(x, self.norm(x, f"{name}.input_layernorm"), mask, layer)
            x = self.feed_forward(x, self.norm(x, f"{name}.{self.before_network}"), layer)
        self.logits(self.norm(x, "model.norm"), table)

    def norm(self, x: str, name: str, size: int = 0) -> str:
        """Return the layer norm of `x` over its last axis."""
        w, width = self.writer, size or self.model.hidden
        weight = w.weight(f"{name}.weight", width, std=0.1, mean=1.0)
        bias = w.weight(f"{name}.bias", width, std=0.02)
        return w.op("LayerNormalization", x, weight, bias, name=name, axis=-1)

    def linear(self, x: str, inner: int, outer: int, name: str) -> str:
        """Return `x` times a weight plus a bias."""
        w = self.writer
        product = super().linear(x, inner, outer, name)
        return w.op("Add", product, w.weight(f"{name}.bias", outer, std=0.02), name=f"{name}.biased")

    def mixed(self, x: str, h: str, mask: str | None, layer: int) -> str:
        """Return `x` plus the attention over `h` and the past."""
        w, m, name = self.writer, self.model, f"model.layers.{layer}.self_attn"
        width, new = m.heads * m.head_dim, ".new" if self.past else ""
        parts = (f"{name}.query", f"present.{layer}.key{new}", f"present.{layer}.value{new}")
        shape = w.ints(self.batch, self.seq, m.heads, m.head_dim)
        for part, own in zip(parts, self.projected(h, width, name), strict=True):
            own = w.op("Reshape", own, shape, name=f"{part}.view")
            w.op("Transpose", own, name=part, perm=[0, 2, 1, 3])
        keys, values = self.remember(layer, "key"), self.remember(layer, "value")
        done = self.attend(parts[0], keys, values, mask, name)
        return w.op("Add", x, self.linear(done, width, m.hidden, f"{name}.o_proj"), name=f"{name}.residual")

    def projected(self, h: str, width: int, name: str) -> list[str]:
        """Return queries, keys and values of `h`: fp16[batch,seq,width] each."""
        w, m = self.writer, self.model
        if not m.packed:
            return [self.linear(h, m.hidden, width, f"{name}.{part}_proj") for part in "qkv"]
        packed = self.linear(h, m.hidden, 3 * width, f"{name}.qkv_proj")
        ends = ((w.ints(i * width), w.ints((i + 1) * width)) for i in range(3))
        return [
            w.op("Slice", packed, *each, w.ints(2), w.ints(1), name=f"{name}.{part}_proj")
            for part, each in zip("qkv", ends, strict=True)
        ]

    def feed_forward(self, x: str, h: str, layer: int) -> str:
        """Return `x` plus the layer's network of `h`."""
        w, m, name = self.writer, self.model, f"model.layers.{layer}.mlp"
        up = w.op("Gelu", self.linear(h, m.hidden, m.ffn, f"{name}.up_proj"), name=f"{name}.gelu")
        return w.op("Add", x, self.linear(up, m.ffn, m.hidden, f"{name}.down_proj"), name=f"{name}.residual")
