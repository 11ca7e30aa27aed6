"""Phi-1 to Phi-2: attention and a plain network side by side on one norm, with biases throughout.

Source: transformers, modeling_phi.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from .decoder import Decoder, DecoderWriting
from .llama import DecoderStep
from .writer import ModelWriter


@dataclass(frozen=True, kw_only=True)
class Phi(Decoder):
    """A decoder whose blocks add what attention and a network of `ffn` elements make of one normed input."""

    def step(self, writer: ModelWriter, dims: dict[str, int]) -> DecoderStep:
        """Return what writes a step."""
        return _PhiStep(self, writer, **dims)


class _PhiStep(DecoderWriting):
    """The writing of one step."""

    def block(self, x: str, waves: tuple[str, str], mask: str | None, layer: int) -> str:
        """Return what a layer makes of `x`."""
        h = self.norm(x, f"model.layers.{layer}.input_layernorm")
        mixed = self.attention(x, h, *waves, mask, layer)
        return self.feed_forward(mixed, h, layer)

    def gated(self, h: str, ffn: int, name: str) -> str:
        """Return a network of `ffn` elements of `h`, without a gate."""
        hidden = self.model.hidden
        inner = self.activated(self.linear(h, hidden, ffn, f"{name}.fc1"), name)
        return self.linear(inner, ffn, hidden, f"{name}.fc2")
