"""Decoders whose feed-forward networks are mixtures of experts, as exporters of PyTorch models spell them.

Each token goes to a few of a layer's experts. The weights of all experts of a layer are one tensor, of which
a product gathers those of each choice, as the `batched_mm` experts of transformers do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .llama import DecoderStep, Llama
from .writer import WEIGHT_BYTES, Fact, ModelWriter, fact

NO_SCORE = np.float32(-3.0e38)  # below every score
STEEP = 1.702  # of GPT-OSS's gate; source: openai/gpt-oss gpt_oss/torch/model.py, swiglu


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


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How tokens find their experts: `each` of `experts` networks of `ffn` elements, by a softmax of scores.

    Shares sum to 1 over the chosen ones where `normalised`. Beside them there may be a network of `shared`
    elements that all tokens take, by a gate of its own where `gated`. With `biased` the router and all
    experts have biases. `limit` is GPT-OSS's: what is gated is cut off at it, and the gate made steeper.
    `inward` is Llama 4's: a share is the sigmoid of its own score, and multiplies what its expert is given.
    `near` is Phi-3.5-MoE's: a share is that of the best score left, in a softmax of those within it.
    Layers in `dense` have no experts, and a network of the decoder's `ffn` elements.
    """

    experts: int
    each: int
    ffn: int
    normalised: bool = True
    shared: int = 0
    gated: bool = False
    biased: bool = False
    limit: float = 0.0
    inward: bool = False
    near: float = 0.0
    dense: frozenset[int] = frozenset()


@dataclass(frozen=True)
class ExpertLayer:
    """The writing of the experts of one layer, for rows [tokens, hidden] of a step."""

    step: DecoderStep
    name: str
    rows: str
    routing: Routing

    @property
    def tokens(self) -> int:
        """Return the rows of the step."""
        return self.step.batch * self.step.seq

    def whole(self) -> str:
        """Return what routed and shared experts make of each row together: fp16[tokens, hidden]."""
        w, r, name, step = self.step.writer, self.routing, self.name, self.step
        made = self.routed(*self.chosen())
        if not r.shared:
            return made
        shared = step.gated(self.rows, r.shared, f"{name}.shared_expert")
        if r.gated:
            gate = step.linear(self.rows, step.model.hidden, 1, f"{name}.shared_expert_gate")
            gate = w.op("Sigmoid", gate, name=f"{name}.shared_expert_gate.sigmoid")
            shared = w.op("Mul", gate, shared, name=f"{name}.shared_expert.share")
        return w.op("Add", made, shared, name=f"{name}.both_networks")

    def chosen(self) -> tuple[str, str]:
        """Return shares fp16[tokens, each] and places int64[tokens, each] of experts, by their scores."""
        w, r, name, hidden = self.step.writer, self.routing, self.name, self.step.model.hidden
        scores = self.step.linear(self.rows, hidden, r.experts, f"{name}.gate")
        if r.biased:
            bias = w.weight(f"{name}.gate.bias", r.experts, std=0.02)
            scores = w.op("Add", scores, bias, name=f"{name}.gate.biased")
        if r.inward:
            best, places = w.top(scores, r.each, name=f"{name}.best")
            return w.op("Sigmoid", best, name=f"{name}.share"), places
        scores = w.cast(scores, np.float32, name=f"{name}.wide")
        if r.near:
            return self._near(scores)
        scores = w.op("Softmax", scores, name=f"{name}.softmax", axis=-1)
        best, places = w.top(scores, r.each, name=f"{name}.best")
        if r.normalised:
            whole = w.op("ReduceSum", best, w.ints(1), name=f"{name}.whole", keepdims=1)
            best = w.op("Div", best, whole, name=f"{name}.div")
        return w.cast(best, np.float16, name=f"{name}.narrow"), places

    def _near(self, scores: str) -> tuple[str, str]:
        """Return shares and places by the sparse mixer: of scores fp32[tokens, experts], one after another.

        A score counts beside the best, m, where (m - score) / max(|score|, m) is at most `near`; the next
        choice leaves out those before it. Source: arxiv.org/abs/2409.12136, and transformers' phimoe.
        """
        w, r, name = self.step.writer, self.routing, self.name
        least = w.constant(NO_SCORE)
        size = w.op("Abs", scores, name=f"{name}.size")
        left = scores
        shares: list[str] = []
        places: list[str] = []
        for i in range(r.each):
            best, place = w.top(left, 1, name=f"{name}.best{i}")
            behind = w.op("Sub", best, scores, name=f"{name}.behind{i}")
            larger = w.op("Max", size, best, name=f"{name}.larger{i}")
            behind = w.op("Div", behind, larger, name=f"{name}.part{i}")
            far = w.op("Greater", behind, w.constant(np.float32(r.near)), name=f"{name}.far{i}")
            near = w.op("Where", far, least, left, name=f"{name}.near{i}")
            near = w.op("Softmax", near, name=f"{name}.softmax{i}", axis=-1)
            shares.append(w.op("GatherElements", near, place, name=f"{name}.share{i}", axis=1))
            places.append(place)
            if i + 1 < r.each:
                row = w.constant(np.arange(r.experts, dtype=np.int64))
                taken = w.op("Equal", place, row, name=f"{name}.taken{i}")
                left = w.op("Where", taken, least, left, name=f"{name}.left{i}")
        share = w.op("Concat", *shares, name=f"{name}.shares.both", axis=1)
        place = w.op("Concat", *places, name=f"{name}.places", axis=1)
        return w.cast(share, np.float16, name=f"{name}.narrow"), place

    def routed(self, shares: str, places: str) -> str:
        """Return the sum of what chosen experts make of each row: fp16[tokens, hidden].

        `shares` are fp16[tokens, each], `places` int64[tokens, each].
        """
        w, hidden, name = self.step.writer, self.step.model.hidden, self.name
        each, ffn = self.routing.each, self.routing.ffn
        count = self.tokens * each
        flat = w.op("Reshape", places, w.ints(count), name=f"{name}.flat")
        x = w.op("Unsqueeze", self.rows, w.ints(1, 2), name=f"{name}.unsqueeze")
        x = w.op("Expand", x, w.ints(self.tokens, each, 1, hidden), name=f"{name}.spread")
        if self.routing.inward:
            column = w.op("Unsqueeze", shares, w.ints(2, 3), name=f"{name}.shares")
            x = w.op("Mul", x, column, name=f"{name}.scaled")
        x = w.op("Reshape", x, w.ints(count, 1, hidden), name=f"{name}.each")
        gate, up = (self._product(x, flat, hidden, ffn, f"{name}.{part}_proj") for part in ("gate", "up"))
        inner = self._cut_off(gate, up) if self.routing.limit else self.step.swiglu(gate, up, name)
        made = self._product(inner, flat, ffn, hidden, f"{name}.down_proj")
        made = w.op("Reshape", made, w.ints(self.tokens, each, hidden), name=f"{name}.made")
        if not self.routing.inward:
            column = w.op("Unsqueeze", shares, w.ints(2), name=f"{name}.shares")
            made = w.op("Mul", made, column, name=f"{name}.weighted")
        return w.op("ReduceSum", made, w.ints(1), name=f"{name}.sum", keepdims=0)

    def _product(self, x: str, flat: str, inner: int, outer: int, name: str) -> str:
        """Return rows [count, 1, inner] times the weights of their experts, plus their biases."""
        w, experts = self.step.writer, self.routing.experts
        weight = w.weight(f"{name}.weight", experts, inner, outer, std=inner**-0.5)
        product = w.op("MatMul", x, w.op("Gather", weight, flat, name=f"{name}.own", axis=0), name=name)
        if not self.routing.biased:
            return product
        bias = w.weight(f"{name}.bias", experts, outer, std=0.02)
        own = w.op("Gather", bias, flat, name=f"{name}.bias.own", axis=0)
        own = w.op("Unsqueeze", own, w.ints(1), name=f"{name}.bias.row")
        return w.op("Add", product, own, name=f"{name}.biased")

    def _cut_off(self, gate: str, up: str) -> str:
        """Return (up + 1) gate sigmoid(STEEP gate), gate at most the limit, up within it."""
        w, name, limit = self.step.writer, self.name, np.float16(self.routing.limit)
        gate = w.op("Min", gate, w.constant(limit), name=f"{name}.gate.cut")
        up = w.op("Clip", up, w.constant(-limit), w.constant(limit), name=f"{name}.up.cut")
        steep = w.op("Mul", gate, w.constant(np.float16(STEEP)), name=f"{name}.steep")
        glu = w.op("Mul", gate, w.op("Sigmoid", steep, name=f"{name}.sigmoid"), name=f"{name}.glu")
        up = w.op("Add", up, w.constant(np.float16(1)), name=f"{name}.up.one")
        return w.op("Mul", up, glu, name=f"{name}.both")


def add_experts(step: DecoderStep, h: str, routing: Routing, name: str) -> str:
    """Return what the experts of a layer make of fp16[batch, seq, hidden], in its shape."""
    w, hidden = step.writer, step.model.hidden
    rows = w.op("Reshape", h, w.ints(step.batch * step.seq, hidden), name=f"{name}.rows")
    made = ExpertLayer(step, name, rows, routing).whole()
    return w.op("Reshape", made, w.ints(step.batch, step.seq, hidden), name=f"{name}.view")


class _MixtureStep(DecoderStep):
    """The writing of one step: mixtures in place of feed-forward networks."""

    model: Mixture

    def head_norm(self, x: str, name: str) -> str:
        """Return queries or keys, normed head by head where the model does so."""
        return self.norm(x, name, self.model.head_dim) if self.model.head_norms else x

    def feed_forward(self, x: str, h: str, layer: int) -> str:
        """Return `x` plus the chosen experts of `h`, by their shares."""
        m, name = self.model, f"model.layers.{layer}.mlp"
        made = add_experts(self, h, Routing(experts=m.experts, each=m.each, ffn=m.ffn), name)
        return self.writer.op("Add", x, made, name=f"{name}.residual")
