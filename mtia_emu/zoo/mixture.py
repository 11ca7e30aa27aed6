"""Decoders whose feed-forward networks are mixtures of experts, as exporters of PyTorch models spell them.

Each token goes to a few of a layer's experts. The weights of all experts of a layer are one tensor, of which
a product gathers those of each choice, as the `batched_mm` experts of transformers do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .llama import DecoderStep, Llama
from .writer import WEIGHT_BYTES, Fact, ModelWriter, fact


@dataclass(frozen=True, kw_only=True)
class Mixture(Llama):
    """A decoder with `experts` networks of `ffn` elements a layer, of which a token takes `each`.

    Shares are those of a softmax over all experts, made to sum to 1 over the chosen ones. With `head_norms`
    queries and keys are normed head by head.
    """

    experts: int
    each: int
    head_norms: bool = False

    def facts(self) -> dict[str, Fact]:
        """Return the parameters, each with its unit and source."""
        facts = super().facts()
        idle = self.layers * (self.experts - self.each) * 3 * self.hidden * self.ffn
        active = int(facts["parameters"]["value"]) - idle  # type: ignore[arg-type]
        return facts | {
            "experts": self._fact(self.experts, "experts a layer", "num_experts"),
            "each": self._fact(self.each, "experts a token", "num_experts_per_tok"),
            "active_parameters": fact(active, "parameters a token", "counted: all but experts not chosen"),
            "active_bytes": fact(active * WEIGHT_BYTES, "B", "active_parameters x 2 B (fp16)"),
        }

    def step(self, writer: ModelWriter, dims: dict[str, int]) -> DecoderStep:
        """Return what writes a step."""
        return _MixtureStep(self, writer, **dims)


@dataclass(frozen=True)
class ExpertLayer:
    """The writing of the experts of one layer, for rows [tokens, hidden] of a step."""

    step: DecoderStep
    name: str
    rows: str
    sizes: tuple[int, int, int]  # experts, each, elements of a network

    @property
    def tokens(self) -> int:
        """Return the rows of the step."""
        return self.step.batch * self.step.seq

    def routed(self, shares: str, places: str) -> str:
        """Return the sum of what chosen experts make of each row: fp16[tokens, hidden].

        `shares` are fp16[tokens, each], `places` int64[tokens, each].
        """
        w, hidden, name = self.step.writer, self.step.model.hidden, self.name
        _, each, ffn = self.sizes
        count = self.tokens * each
        flat = w.op("Reshape", places, w.ints(count), name=f"{name}.flat")
        x = w.op("Unsqueeze", self.rows, w.ints(1, 2), name=f"{name}.unsqueeze")
        x = w.op("Expand", x, w.ints(self.tokens, each, 1, hidden), name=f"{name}.spread")
        x = w.op("Reshape", x, w.ints(count, 1, hidden), name=f"{name}.each")
        gate, up = (self._product(x, flat, hidden, ffn, f"{name}.{part}_proj") for part in ("gate", "up"))
        made = self._product(self.step.swiglu(gate, up, name), flat, ffn, hidden, f"{name}.down_proj")
        made = w.op("Reshape", made, w.ints(self.tokens, each, hidden), name=f"{name}.made")
        column = w.op("Unsqueeze", shares, w.ints(2), name=f"{name}.shares")
        weighted = w.op("Mul", made, column, name=f"{name}.weighted")
        return w.op("ReduceSum", weighted, w.ints(1), name=f"{name}.sum", keepdims=0)

    def _product(self, x: str, flat: str, inner: int, outer: int, name: str) -> str:
        """Return rows [count, 1, inner] times the weights of their experts."""
        w = self.step.writer
        weight = w.weight(f"{name}.weight", self.sizes[0], inner, outer, std=inner**-0.5)
        return w.op("MatMul", x, w.op("Gather", weight, flat, name=f"{name}.own", axis=0), name=name)


class _MixtureStep(DecoderStep):
    """The writing of one step: mixtures in place of feed-forward networks."""

    model: Mixture

    def head_norm(self, x: str, name: str) -> str:
        """Return queries or keys, normed head by head where the model does so."""
        return self.norm(x, name, self.model.head_dim) if self.model.head_norms else x

    def feed_forward(self, x: str, h: str, layer: int) -> str:
        """Return `x` plus the chosen experts of `h`, by their shares."""
        w, m, name = self.writer, self.model, f"model.layers.{layer}.mlp"
        tokens = self.batch * self.seq
        rows = w.op("Reshape", h, w.ints(tokens, m.hidden), name=f"{name}.rows")
        scores = w.cast(
            self.linear(rows, m.hidden, m.experts, f"{name}.gate"), np.float32, name=f"{name}.wide"
        )
        scores = w.op("Softmax", scores, name=f"{name}.softmax", axis=-1)
        best, places = w.top(scores, m.each, name=f"{name}.best")
        whole = w.op("ReduceSum", best, w.ints(1), name=f"{name}.whole", keepdims=1)
        shares = w.cast(w.op("Div", best, whole, name=f"{name}.div"), np.float16, name=f"{name}.narrow")
        made = ExpertLayer(self, name, rows, (m.experts, m.each, m.ffn)).routed(shares, places)
        made = w.op("Reshape", made, w.ints(self.batch, self.seq, m.hidden), name=f"{name}.view")
        return w.op("Add", x, made, name=f"{name}.residual")
