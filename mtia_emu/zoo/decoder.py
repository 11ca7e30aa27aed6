"""Decoders that depart from Llama's in what other families changed, node for node as exporters spell them.

Which family has what: `mtia_emu/checkpoints/families.py`. A layer with a window remembers only the tokens
that its next one may see, so its part of the cache ends to grow at the window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .llama import LOGITS, MASKED, DecoderStep, Llama
from .mixture import Routing, add_experts
from .writer import ModelWriter

SILU, GELU, GELU_TANH = "silu", "gelu", "gelu_tanh"
LOCAL = "model.rotary_emb.local"  # cosine and sine of layers with a window
LOCAL_WAVES = f"{LOCAL}.Cos.unsqueeze", f"{LOCAL}.Sin.unsqueeze"
TEMPER = "model.temper"  # what queries of tempered layers are multiplied by


@dataclass(frozen=True, kw_only=True)
class Temper:
    """Queries of `layers` grow by their position: 1 + strength ln(1 + floor((position + ahead) / every))."""

    layers: frozenset[int]
    every: float
    strength: float
    ahead: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Decoder(Llama):
    """A decoder by its sizes and by what it has of other families' inventions.

    `biased` names the projections that have a bias. `packed` ones make queries, keys and values in one
    product, gate and up in another. `head_norms` norm queries and keys head by head; `both_norms` norm what a
    block adds, too; `turned_norms` norm what is turned, without a weight; `layer_norms` take the place of RMS
    norms. `windows` are tokens that a query sees, by layer, 0 for all; layers with one turn by
    `local_theta` where that is given. `chunks` are tokens of the pieces in which a query sees keys, by layer,
    0 for all. `rotated` elements of a head are turned, 0 for all; layers in `unturned` turn none. Scores are
    scaled by `score_scale`, 0 for head_dim^-0.5, and capped at `score_cap`, logits at `logit_cap`, 0 for not;
    `head_biased` logits have a bias. `sinks` are one more score a head, of no value.
    """

    biased: frozenset[str] = frozenset()
    packed: bool = False
    activation: str = SILU
    head_norms: bool = False
    both_norms: bool = False
    turned_norms: bool = False
    layer_norms: bool = False
    head_biased: bool = False
    windows: tuple[int, ...] = ()
    chunks: tuple[int, ...] = ()
    temper: Temper | None = None
    local_theta: float = 0.0
    rotated: int = 0
    unturned: frozenset[int] = frozenset()
    embed_scale: float = 1.0
    block_scale: float = 1.0
    logit_scale: float = 1.0
    score_scale: float = 0.0
    score_cap: float = 0.0
    logit_cap: float = 0.0
    sinks: bool = False
    routing: Routing | None = None

    def step(self, writer: ModelWriter, dims: dict[str, int]) -> DecoderStep:
        """Return what writes a step."""
        return DecoderWriting(self, writer, **dims)

    def window(self, layer: int) -> int:
        """Return how many tokens a query of a layer sees, 0 for all."""
        return self.windows[layer] if self.windows else 0

    def chunk(self, layer: int) -> int:
        """Return how long the pieces are in which a layer's queries see keys, 0 for one piece."""
        return self.chunks[layer] if self.chunks else 0

    def kept(self, layer: int, past: int) -> int:
        """Return of how many past tokens a layer remembers keys and values: those the next one may see."""
        window, chunk = self.window(layer), self.chunk(layer)
        kept = past % chunk if chunk else past
        return min(kept, window - 1) if window else kept

    def frequencies(self, tokens: int = 0) -> np.ndarray:
        """Return the frequency of each pair of turned elements, in radians a token: fp32[turned / 2]."""
        turned = self.rotated or self.head_dim
        plain = self.rope_theta ** -(np.arange(0, turned, 2) / turned)
        return (self.rope_scaling(plain, tokens) if self.rope_scaling else plain).astype(np.float32)


class DecoderWriting(DecoderStep):
    """The writing of one step."""

    model: Decoder

    @property
    def before_network(self) -> str:
        """Return the name of the norm before a feed-forward network."""
        return "pre_feedforward_layernorm" if self.model.both_norms else "post_attention_layernorm"

    def embed(self, table: str, ids: str) -> str:
        """Return the rows of tokens, scaled where the model does so."""
        return self._times(super().embed(table, ids), self.model.embed_scale, "model.embed_tokens.scaled")

    def _times(self, x: str, factor: float, name: str) -> str:
        """Return `x` times a number, itself where that is 1."""
        w = self.writer
        return x if factor == 1.0 else w.op("Mul", x, w.constant(np.float16(factor)), name=name)

    def rotations(self, positions: str) -> tuple[str, str]:
        """Return cosine and sine of layers that see all; those with a window may have their own."""
        m = self.model
        if m.local_theta:
            plain = m.local_theta ** -(np.arange(0, m.head_dim, 2) / m.head_dim)
            self.waves(positions, plain.astype(np.float32), name=LOCAL)
        if m.temper:
            self._tempers(positions, m.temper)
        return super().rotations(positions)

    def _tempers(self, positions: str, temper: Temper) -> None:
        """Write what queries of each position are multiplied by: fp16[batch,1,seq,1], computed in fp32."""
        w = self.writer
        x = w.op("Unsqueeze", positions, w.ints(1, 3), name=f"{TEMPER}.positions")
        x = w.cast(x, np.float32, name=f"{TEMPER}.wide")
        x = w.op("Add", x, w.constant(np.float32(temper.ahead)), name=f"{TEMPER}.ahead")
        x = w.op("Div", x, w.constant(np.float32(temper.every)), name=f"{TEMPER}.pieces")
        x = w.op("Floor", x, name=f"{TEMPER}.whole")
        x = w.op("Log", w.op("Add", x, w.constant(np.float32(1)), name=f"{TEMPER}.from_one"),
                 name=f"{TEMPER}.log")  # fmt: skip
        x = w.op("Mul", x, w.constant(np.float32(temper.strength)), name=f"{TEMPER}.strength")
        x = w.op("Add", x, w.constant(np.float32(1)), name=f"{TEMPER}.grown")
        w.cast(x, np.float16, name=TEMPER)

    def mask(self, name: str = "model.mask") -> str:
        """Write a mask for each window and each chunk, named after it, and the one of layers that see all."""
        m = self.model
        for sizes, kind in ((m.windows, "window"), (m.chunks, "chunk")):
            for size in sorted(set(sizes) - {0}):
                inner = replace(self, past=m.kept(sizes.index(size), self.past))
                if inner.total > size:
                    inner._near_mask(size, kind, f"{name}.{kind}.{size}")
        return super().mask(name)

    def _near_mask(self, size: int, kind: str, name: str) -> None:
        """Write what is added to scores of fp16[1,1,seq,total]: 0 where a query sees a key.

        The first key of a chunked layer is always a chunk's first, so places count in chunks as positions do.
        """
        w = self.writer
        one, last = w.constant(np.int64(1)), w.constant(np.int64(self.total))
        queries = w.op("Range", w.constant(np.int64(self.past)), last, one, name=f"{name}.queries")
        queries = w.op("Unsqueeze", queries, w.ints(0, 1, 3), name=f"{name}.rows")
        keys = w.op("Range", w.constant(np.int64(0)), last, one, name=f"{name}.keys")
        keys = w.op("Unsqueeze", keys, w.ints(0, 1, 2), name=f"{name}.columns")
        seen = w.op("LessOrEqual", keys, queries, name=f"{name}.seen")
        width = w.constant(np.int64(size))
        if kind == "window":
            first = w.op("Sub", queries, width, name=f"{name}.first")
            near = w.op("Greater", keys, first, name=f"{name}.near")
        else:
            own = w.op("Div", queries, width, name=f"{name}.queries.chunk")
            theirs = w.op("Div", keys, width, name=f"{name}.keys.chunk")
            near = w.op("Equal", own, theirs, name=f"{name}.near")
        seen = w.op("And", seen, near, name=f"{name}.both")
        w.op("Where", seen, w.constant(np.float16(0)), w.constant(MASKED), name=name)

    def linear(self, x: str, inner: int, outer: int, name: str) -> str:
        """Return `x` times a weight, plus a bias where the projection has one."""
        w = self.writer
        product = super().linear(x, inner, outer, name)
        if name.rpartition(".")[2] not in self.model.biased:
            return product
        return w.op("Add", product, w.weight(f"{name}.bias", outer, std=0.02), name=f"{name}.biased")

    def norm(self, x: str, name: str, size: int = 0) -> str:
        """Return the norm of `x` over its last axis: an RMS norm, or one that takes off the mean, too."""
        if not self.model.layer_norms:
            return super().norm(x, name, size)
        w, size = self.writer, size or self.model.hidden
        weight = w.weight(f"{name}.weight", size, std=0.1, mean=1.0)
        bias, epsilon = w.weight(f"{name}.bias", size, std=0.02), float(self.model.epsilon)
        return w.op("LayerNormalization", x, weight, bias, name=name, axis=-1, epsilon=epsilon)

    def head_norm(self, x: str, name: str) -> str:
        """Return queries or keys, normed head by head where the model does so."""
        return self.norm(x, name, self.model.head_dim) if self.model.head_norms else x

    def turn(self, x: str, layer: int, waves: tuple[str, str], name: str, result: str | None = None) -> str:
        """Return queries or keys of a layer turned by their position, as far as the layer turns them."""
        w, m = self.writer, self.model
        if layer in m.unturned:
            return w.op("Identity", x, name=result) if result else x
        if m.turned_norms:
            wide = self.by_its_size(self.rotate(x, *waves, name), f"{name}.l2")
            return w.cast(wide, np.float16, name=result or f"{name}.l2")
        if m.rotated in (0, m.head_dim):
            return self.rotate(x, *waves, name, result)
        axes, step = w.ints(3), w.ints(1)
        first = w.op("Slice", x, w.ints(0), w.ints(m.rotated), axes, step, name=f"{name}.turning")
        rest = w.op("Slice", x, w.ints(m.rotated), w.ints(2**63 - 1), axes, step, name=f"{name}.resting")
        first = self.rotate(first, *waves, name, size=m.rotated)
        return w.op("Concat", first, rest, name=result or f"{name}.turned", axis=-1)

    def attention(self, x: str, h: str, cos: str, sin: str, mask: str | None, layer: int) -> str:
        """Return `x` plus the attention over `h` and what the layer keeps of the past."""
        m, name = self.model, f"model.layers.{layer}.self_attn"
        inner = replace(self, past=m.kept(layer, self.past))
        new = ".new" if inner.past else ""
        waves = LOCAL_WAVES if m.window(layer) and m.local_theta else (cos, sin)
        value = f"present.{layer}.value{new}"
        query, key = self._packed(h, name, value) if m.packed else self._apart(h, name, value)
        query = self._tempered(self.turn(query, layer, waves, f"{name}.q"), layer, f"{name}.q.tempered")
        self.turn(key, layer, waves, f"{name}.k", f"present.{layer}.key{new}")
        keys, values = inner.remember(layer, "key"), inner.remember(layer, "value")
        mixed = inner.attend(query, keys, values, inner.own_mask(mask, layer), name)
        projected = self.linear(mixed, m.heads * m.head_dim, m.hidden, f"{name}.o_proj")
        return self._added(x, projected, name, f"model.layers.{layer}.post_attention_layernorm")

    def own_mask(self, mask: str | None, layer: int) -> str | None:
        """Return the name of the mask of a layer: its window's or chunk's where not all keys are in one."""
        for size, kind in ((self.model.window(layer), "window"), (self.model.chunk(layer), "chunk")):
            if mask and size and self.total > size:
                return f"{mask}.{kind}.{size}"
        return mask

    def _tempered(self, query: str, layer: int, name: str) -> str:
        """Return queries, grown by their position where the layer's do so."""
        temper = self.model.temper
        if temper is None or layer not in temper.layers:
            return query
        return self.writer.op("Mul", query, TEMPER, name=name)

    def _added(self, x: str, block: str, name: str, norm: str) -> str:
        """Return `x` plus what a block makes, normed and scaled where the model does so."""
        if self.model.both_norms:
            block = self.norm(block, norm)
        block = self._times(block, self.model.block_scale, f"{name}.scaled_block")
        return self.writer.op("Add", x, block, name=f"{name}.residual")

    def _apart(self, h: str, name: str, value: str) -> tuple[str, str]:
        """Return queries and keys, a product each; values are written under their name."""
        m = self.model
        query = self.head_norm(self.split_heads(h, m.heads, f"{name}.q_proj"), f"{name}.q_norm")
        key = self.head_norm(self.split_heads(h, m.kv_heads, f"{name}.k_proj"), f"{name}.k_norm")
        self.split_heads(h, m.kv_heads, f"{name}.v_proj", result=value)
        return query, key

    def _packed(self, h: str, name: str, value: str) -> tuple[str, str]:
        """Return queries and keys of the one product that makes values too."""
        w, m = self.writer, self.model
        sizes = [heads * m.head_dim for heads in (m.heads, m.kv_heads, m.kv_heads)]
        whole, start, parts = self.linear(h, m.hidden, sum(sizes), f"{name}.qkv_proj"), 0, []
        for part, size in zip("qkv", sizes, strict=True):
            ends = w.ints(start), w.ints(start + size)
            x = w.op("Slice", whole, *ends, w.ints(2), w.ints(1), name=f"{name}.{part}")
            shape = w.ints(self.batch, self.seq, size // m.head_dim, m.head_dim)
            x = w.op("Reshape", x, shape, name=f"{name}.{part}.view")
            result = value if part == "v" else f"{name}.{part}.heads"
            parts.append(w.op("Transpose", x, name=result, perm=[0, 2, 1, 3]))
            start += size
        return parts[0], parts[1]

    def attend(self, query: str, key: str, value: str, mask: str | None, name: str) -> str:
        """Return the attention of fp16[batch,heads,seq,head_dim] over the cache: fp16[batch,seq,width]."""
        w, m = self.writer, self.model
        key, value = self.repeat(key, f"{name}.k"), self.repeat(value, f"{name}.v")
        key = w.op("Transpose", key, name=f"{name}.k.transpose", perm=[0, 1, 3, 2])
        scores = w.op("MatMul", query, key, name=f"{name}.scores")
        scores = self._times(scores, m.score_scale or m.head_dim**-0.5, f"{name}.scaled")
        scores = self._capped(scores, m.score_cap, f"{name}.capped")
        if mask is not None:
            scores = w.op("Add", scores, mask, name=f"{name}.masked")
        shares = self._shares(scores, name)
        mixed = w.op("MatMul", shares, value, name=f"{name}.mixed")
        mixed = w.op("Transpose", mixed, name=f"{name}.transpose", perm=[0, 2, 1, 3])
        shape = w.ints(self.batch, self.seq, m.heads * m.head_dim)
        return w.op("Reshape", mixed, shape, name=f"{name}.view")

    def _shares(self, scores: str, name: str) -> str:
        """Return the softmax of scores, each head's sink among them where the model has sinks."""
        w, m = self.writer, self.model
        if not m.sinks:
            return w.op("Softmax", scores, name=f"{name}.softmax", axis=-1)
        sink = w.op("Reshape", w.weight(f"{name}.sinks", m.heads, std=1.0), w.ints(1, m.heads, 1, 1),
                    name=f"{name}.sinks.view")  # fmt: skip
        sink = w.op("Expand", sink, w.ints(self.batch, m.heads, self.seq, 1), name=f"{name}.sinks.column")
        all_of_them = w.op("Concat", scores, sink, name=f"{name}.with_sinks", axis=-1)
        shares = w.op("Softmax", all_of_them, name=f"{name}.softmax", axis=-1)
        ends = w.ints(0), w.ints(self.total)
        return w.op("Slice", shares, *ends, w.ints(3), w.ints(1), name=f"{name}.shares")

    def _capped(self, x: str, cap: float, name: str, result: str | None = None) -> str:
        """Return cap tanh(x / cap); `x` itself where the cap is 0."""
        if not cap:
            return x
        w = self.writer
        x = w.op("Div", x, w.constant(np.float16(cap)), name=f"{name}.div")
        x = w.op("Tanh", x, name=f"{name}.tanh")
        return w.op("Mul", x, w.constant(np.float16(cap)), name=result or name)

    def feed_forward(self, x: str, h: str, layer: int) -> str:
        """Return `x` plus the network of `h`, or its chosen experts by their shares."""
        m, name = self.model, f"model.layers.{layer}.mlp"
        routed = m.routing if m.routing is not None and layer not in m.routing.dense else None
        made = add_experts(self, h, routed, name) if routed else self.gated(h, m.ffn, name)
        return self._added(x, made, name, f"model.layers.{layer}.post_feedforward_layernorm")

    def gated(self, h: str, ffn: int, name: str) -> str:
        """Return a gated network of `ffn` elements of `h`."""
        w, m = self.writer, self.model
        if not m.packed:
            return super().gated(h, ffn, name)
        both = self.linear(h, m.hidden, 2 * ffn, f"{name}.gate_up_proj")
        axes, step = w.ints(2), w.ints(1)
        gate = w.op("Slice", both, w.ints(0), w.ints(ffn), axes, step, name=f"{name}.gate")
        up = w.op("Slice", both, w.ints(ffn), w.ints(2 * ffn), axes, step, name=f"{name}.up")
        return self.linear(self.swiglu(gate, up, name), ffn, m.hidden, f"{name}.down_proj")

    def swiglu(self, gate: str, up: str, name: str) -> str:
        """Return activation(gate) * up."""
        if self.model.activation == SILU:
            return super().swiglu(gate, up, name)
        return self.writer.op("Mul", self.activated(gate, name), up, name=f"{name}.both")

    def activated(self, x: str, name: str) -> str:
        """Return the activation of `x`."""
        w, activation = self.writer, self.model.activation
        if activation == SILU:
            return w.op("Mul", x, w.op("Sigmoid", x, name=f"{name}.sigmoid"), name=f"{name}.silu")
        kind = {"approximate": "tanh"} if activation == GELU_TANH else {}
        return w.op("Gelu", x, name=f"{name}.gelu", **kind)

    def head(self, h: str, table: str, result: str = LOGITS) -> None:
        """Write the logits of each token of `h`, scaled and capped where the model does so."""
        cap = self.model.logit_cap
        h = self._times(h, self.model.logit_scale, "lm_head.scaled")
        biased = self.model.head_biased
        super().head(h, table, "lm_head.product" if cap or biased else result)
        if biased:
            w, bias = self.writer, self.writer.weight("lm_head.bias", self.model.vocab, std=0.02)
            w.op("Add", "lm_head.product", bias, name="lm_head.biased" if cap else result)
        self._capped("lm_head.biased" if biased else "lm_head.product", cap, "lm_head.capped", result)
