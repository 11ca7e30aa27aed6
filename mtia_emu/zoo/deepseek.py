"""DeepSeek-V3: attention over latents (MLA), and a shared network beside routed experts, in groups.

Keys and values of all heads are products of one latent of each token, which with one rotated key is all that
is remembered. A prefill makes keys and values of its tokens; a step behind a past does not make those of the
past: it takes queries to the latents instead, and what is mixed from there (the absorbed form, by which
serving runtimes decode). The cache comes in as `past_key_values.{layer}.latent` and `.rope`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .llama import DecoderStep, Llama
from .mixture import ExpertLayer, Routing
from .rope import Yarn
from .writer import WEIGHT_BYTES, Fact, ModelWriter, fact

HIDDEN_GROUP = np.float32(-3.0e38)  # below every score: what a group that is not chosen counts as


@dataclass(frozen=True, kw_only=True)
class DeepSeek(Llama):
    """The sizes of a decoder; `head_dim` is the rotated part of a head, `nope` the other, `value` a value's.

    The first `dense` layers have a network of `ffn` elements; in the others a token takes `each` of `experts`
    networks of `expert_ffn` elements, from the best `chosen_groups` of `groups`, beside `shared` as large.
    Scores are sigmoids, biased by what evens loads out, and a group counts by its best two; where `softmax`,
    as in DeepSeek-V2, they are one, and a group counts by its best. Shares sum to 1 where `normalised`, and
    are scaled by `share_scale`. With a `query_rank` of 0 queries are one product.
    """

    query_rank: int
    latent: int
    nope: int
    value: int
    dense: int
    experts: int
    each: int
    expert_ffn: int
    shared: int
    groups: int
    chosen_groups: int
    share_scale: float
    yarn: Yarn | None = None
    softmax: bool = False
    normalised: bool = True

    @property
    def routing(self) -> Routing:
        """Return the sizes of the routed experts."""
        return Routing(experts=self.experts, each=self.each, ffn=self.expert_ffn)

    @property
    def score_scale(self) -> float:
        """Return what scores are multiplied by."""
        return (self.nope + self.head_dim) ** -0.5 * (self.yarn.score_scale if self.yarn else 1.0)

    def facts(self) -> dict[str, Fact]:
        """Return the parameters, each with its unit and source."""
        facts = super().facts()
        mixtures = self.layers - self.dense
        idle = mixtures * (self.experts - self.each) * 3 * self.hidden * self.expert_ffn
        active = int(facts["parameters"]["value"]) - idle  # type: ignore[arg-type]
        cache = self.layers * (self.latent + self.head_dim) * WEIGHT_BYTES
        keys = {
            "head_dim": "qk_rope_head_dim", "query_rank": "q_lora_rank", "latent": "kv_lora_rank",
            "nope": "qk_nope_head_dim", "value": "v_head_dim", "dense": "first_k_dense_replace",
            "experts": "n_routed_experts", "each": "num_experts_per_tok", "shared": "n_shared_experts",
            "expert_ffn": "moe_intermediate_size", "groups": "n_group", "chosen_groups": "topk_group",
            "share_scale": "routed_scaling_factor",
        }  # fmt: skip
        own = {name: self._fact(getattr(self, name), "as its key says", key) for name, key in keys.items()}
        counted = "2 B (fp16) x layers x (latent + head_dim)"
        return facts | own | {
            "kv_bytes_per_token": fact(cache, "B", counted),
            "active_parameters": fact(active, "parameters a token", "counted: all but experts not chosen"),
            "active_bytes": fact(active * WEIGHT_BYTES, "B", "active_parameters x 2 B (fp16)"),
        }  # fmt: skip

    def frequencies(self, tokens: int = 0) -> np.ndarray:
        """Return the rotary frequency of each pair of elements, in radians a token: fp32[head_dim/2]."""
        plain = self.rope_theta ** -(np.arange(0, self.head_dim, 2) / self.head_dim)
        return (self.yarn(plain) if self.yarn else plain).astype(np.float32)

    def step(self, writer: ModelWriter, dims: dict[str, int]) -> DecoderStep:
        """Return what writes a step."""
        return _DeepSeekStep(self, writer, **dims)

    def example_inputs(self, dims: dict[str, int], seed: int) -> dict[str, np.ndarray]:
        """Return random tokens [batch, seq], behind random latents [batch, past, size] of the past."""
        values = super().example_inputs(dims | {"past": 0}, seed)
        batch, seq, past = dims["batch"], dims["seq"], dims["past"]
        values["position_ids"] = np.tile(np.arange(past, past + seq, dtype=np.int64), (batch, 1))
        rng = np.random.default_rng([seed, past])
        for layer in range(self.layers if past else 0):
            for part, size in (("latent", self.latent), ("rope", self.head_dim)):
                drawn = rng.standard_normal((batch, past, size), np.float32)
                values[f"past_key_values.{layer}.{part}"] = drawn.astype(np.float16)
        return values


class _DeepSeekStep(DecoderStep):
    """The writing of one step."""

    model: DeepSeek

    def attention(self, x: str, h: str, cos: str, sin: str, mask: str | None, layer: int) -> str:
        """Return `x` plus the attention over `h` and the past."""
        w, m, name = self.writer, self.model, f"model.layers.{layer}.self_attn"
        plain, turned = self._queries(h, cos, sin, name)
        latent, rope = self._remembered(h, cos, sin, layer, name)
        mixed = (self._absorbed if self.past else self._expanded)((plain, turned), (latent, rope), mask, name)
        mixed = w.op("Transpose", mixed, name=f"{name}.transpose", perm=[0, 2, 1, 3])
        width = m.heads * m.value
        mixed = w.op("Reshape", mixed, w.ints(self.batch, self.seq, width), name=f"{name}.view")
        return w.op("Add", x, self.linear(mixed, width, m.hidden, f"{name}.o_proj"), name=f"{name}.residual")

    def _queries(self, h: str, cos: str, sin: str, name: str) -> tuple[str, str]:
        """Return queries fp16[batch,heads,seq,..]: the part that is not rotated, and the one that is."""
        w, m = self.writer, self.model
        size = m.nope + m.head_dim
        if m.query_rank:
            low = self.linear(h, m.hidden, m.query_rank, f"{name}.q_a_proj")
            low = self.norm(low, f"{name}.q_a", m.query_rank)
            query = self.linear(low, m.query_rank, m.heads * size, f"{name}.q_b_proj")
        else:
            query = self.linear(h, m.hidden, m.heads * size, f"{name}.q_proj")
        query = w.op("Reshape", query, w.ints(self.batch, self.seq, m.heads, size), name=f"{name}.q.view")
        query = w.op("Transpose", query, name=f"{name}.q.heads", perm=[0, 2, 1, 3])
        plain = self._part(query, 0, m.nope, 3, f"{name}.q.plain")
        turned = self.rotate(self._part(query, m.nope, size, 3, f"{name}.q.rope"), cos, sin, f"{name}.q")
        return plain, turned

    def _part(self, x: str, start: int, stop: int, axis: int, name: str) -> str:
        w = self.writer
        return w.op("Slice", x, w.ints(start), w.ints(stop), w.ints(axis), w.ints(1), name=name)

    def _remembered(self, h: str, cos: str, sin: str, layer: int, name: str) -> tuple[str, str]:
        """Return latents [batch,total,latent] and rotated keys [batch,total,head_dim], past ones first."""
        w, m, new = self.writer, self.model, ".new" if self.past else ""
        both = self.linear(h, m.hidden, m.latent + m.head_dim, f"{name}.kv_a_proj")
        latent = self._part(both, 0, m.latent, 2, f"{name}.kv.latent")
        normed = self.norm(latent, f"{name}.kv_a", m.latent)
        w.op("Identity", normed, name=f"present.{layer}.latent{new}")
        rope = self._part(both, m.latent, m.latent + m.head_dim, 2, f"{name}.k.rope")
        rope = w.op("Unsqueeze", rope, w.ints(1), name=f"{name}.k.unsqueeze")
        rope = self.rotate(rope, cos, sin, f"{name}.k")
        w.op("Squeeze", rope, w.ints(1), name=f"present.{layer}.rope{new}")
        return self._cached(layer, "latent", m.latent), self._cached(layer, "rope", m.head_dim)

    def _cached(self, layer: int, part: str, size: int) -> str:
        """Declare `present` of this layer, written as past and new tokens joined if there is a past."""
        w, cached = self.writer, f"present.{layer}.{part}"
        w.output(cached, np.float16, self.batch, self.total, size)
        if self.past:
            past = w.input(f"past_key_values.{layer}.{part}", np.float16, self.batch, self.past, size)
            w.op("Concat", past, f"{cached}.new", name=cached, axis=-2)
        return cached

    def _shared_by_heads(self, x: str, size: int, name: str) -> str:
        """Return what all heads share, [batch,total,size], as [batch,heads,total,size]."""
        w = self.writer
        x = w.op("Unsqueeze", x, w.ints(1), name=f"{name}.unsqueeze")
        shape = w.ints(self.batch, self.model.heads, self.total, size)
        return w.op("Expand", x, shape, name=f"{name}.expand")

    def _mixed(self, query: str, key: str, value: str, mask: str | None, name: str) -> str:
        """Return softmax(scale query key^T) value."""
        w, m = self.writer, self.model
        key = w.op("Transpose", key, name=f"{name}.k.transpose", perm=[0, 1, 3, 2])
        scores = w.op("MatMul", query, key, name=f"{name}.scores")
        scores = w.op("Mul", scores, w.constant(np.float16(m.score_scale)), name=f"{name}.scaled")
        if mask is not None:
            scores = w.op("Add", scores, mask, name=f"{name}.masked")
        shares = w.op("Softmax", scores, name=f"{name}.softmax", axis=-1)
        return w.op("MatMul", shares, value, name=f"{name}.mixed")

    def _weights(self, part: str, name: str) -> str:
        """Return the weights that make keys (k) or values (v) of latents: fp16[heads, latent, size]."""
        w, m = self.writer, self.model
        size = m.nope if part == "k" else m.value
        return w.weight(f"{name}.{part}_b_proj.weight", m.heads, m.latent, size, std=m.latent**-0.5)

    def _expanded(self, queries: tuple[str, str], cache: tuple[str, str], mask: str | None, name: str) -> str:
        """Return what is mixed of the values of all tokens, which are made: fp16[batch,heads,seq,value]."""
        w, m = self.writer, self.model
        latent = w.op("Unsqueeze", cache[0], w.ints(1), name=f"{name}.latent")
        key = w.op("MatMul", latent, self._weights("k", name), name=f"{name}.k_b_proj")
        value = w.op("MatMul", latent, self._weights("v", name), name=f"{name}.v_b_proj")
        rope = self._shared_by_heads(cache[1], m.head_dim, f"{name}.rotated_keys")
        key = w.op("Concat", key, rope, name=f"{name}.k.whole", axis=-1)
        query = w.op("Concat", *queries, name=f"{name}.q.whole", axis=-1)
        return self._mixed(query, key, value, mask, name)

    def _absorbed(self, queries: tuple[str, str], cache: tuple[str, str], mask: str | None, name: str) -> str:
        """Return the same by queries to the latents, which heads share as keys and values."""
        w, m = self.writer, self.model
        turned = w.op("Transpose", self._weights("k", name), name=f"{name}.k_b_proj.turned", perm=[0, 2, 1])
        query = w.op("MatMul", queries[0], turned, name=f"{name}.k_b_proj")
        query = w.op("Concat", query, queries[1], name=f"{name}.q.whole", axis=-1)
        key = w.op("Concat", *cache, name=f"{name}.k.whole", axis=-1)
        key = self._shared_by_heads(key, m.latent + m.head_dim, f"{name}.keys")
        value = self._shared_by_heads(cache[0], m.latent, f"{name}.values")
        mixed = self._mixed(query, key, value, mask, name)
        return w.op("MatMul", mixed, self._weights("v", name), name=f"{name}.v_b_proj")

    def feed_forward(self, x: str, h: str, layer: int) -> str:
        """Return `x` plus the network of `h`, or the chosen experts by their shares and the shared one."""
        w, m, name = self.writer, self.model, f"model.layers.{layer}.mlp"
        if layer < m.dense:
            return super().feed_forward(x, h, layer)
        tokens = self.batch * self.seq
        rows = w.op("Reshape", h, w.ints(tokens, m.hidden), name=f"{name}.rows")
        shares, places = self._routing(rows, tokens, f"{name}.router")
        made = ExpertLayer(self, name, rows, m.routing).routed(shares, places)
        made = w.op("Reshape", made, w.ints(self.batch, self.seq, m.hidden), name=f"{name}.view")
        if m.shared:
            shared = self.gated(h, m.shared * m.expert_ffn, f"{name}.shared_experts")
            made = w.op("Add", made, shared, name=f"{name}.both_networks")
        return w.op("Add", x, made, name=f"{name}.residual")

    def _routing(self, rows: str, tokens: int, name: str) -> tuple[str, str]:
        """Return shares fp16[tokens, each] and places of experts, by scores and what evens loads out."""
        w, m = self.writer, self.model
        scores = self.linear(rows, m.hidden, m.experts, f"{name}.gate")
        scores = w.cast(scores, np.float32, name=f"{name}.wide")
        if m.softmax:
            scores = biased = w.op("Softmax", scores, name=f"{name}.softmax", axis=-1)
        else:
            scores = w.op("Sigmoid", scores, name=f"{name}.sigmoid")
            bias = w.weight(f"{name}.gate.bias", m.experts, std=0.01)
            biased = w.op("Add", scores, w.cast(bias, np.float32, name=f"{name}.bias"), name=f"{name}.biased")
        allowed = self._best_groups(biased, tokens, name) if m.chosen_groups < m.groups else biased
        _, places = w.top(allowed, m.each, name=f"{name}.best")
        shares = w.op("GatherElements", scores, places, name=f"{name}.own", axis=1)
        if m.normalised:
            whole = w.op("ReduceSum", shares, w.ints(1), name=f"{name}.whole", keepdims=1)
            shares = w.op("Div", shares, whole, name=f"{name}.div")
        shares = w.op("Mul", shares, w.constant(np.float32(m.share_scale)), name=f"{name}.scaled")
        return w.cast(shares, np.float16, name=f"{name}.narrow"), places

    def _best_groups(self, scores: str, tokens: int, name: str) -> str:
        """Return scores fp32[tokens, experts], least outside the best groups."""
        w, m = self.writer, self.model
        inside = m.experts // m.groups
        grouped = w.op("Reshape", scores, w.ints(tokens, m.groups, inside), name=f"{name}.groups")
        two, _ = w.top(grouped, 1 if m.softmax else 2, name=f"{name}.two")
        sums = w.op("ReduceSum", two, w.ints(2), name=f"{name}.sums", keepdims=0)
        least, _ = w.top(sums, m.chosen_groups, name=f"{name}.group")
        least = self._part(least, m.chosen_groups - 1, m.chosen_groups, 1, f"{name}.least")
        out = w.op("Less", sums, least, name=f"{name}.out")
        out = w.op("Unsqueeze", out, w.ints(2), name=f"{name}.hidden")
        kept = w.op("Where", out, w.constant(HIDDEN_GROUP), grouped, name=f"{name}.kept")
        return w.op("Reshape", kept, w.ints(tokens, m.experts), name=f"{name}.allowed")
