"""Llama-style decoders, node for node as exporters of PyTorch models spell them, in fp16.

One file holds one step of serving: `seq` new tokens for each of `batch` sequences of one length, after `past`
tokens whose keys and values come in as `past_key_values.{layer}.key` and `.value`. With `past` of 0 it is a
prefill, with `seq` of 1 a decode step. Results are the logits of each sequence's last token and the keys and
values of all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .rope import Stretching, wave_scale_of
from .writer import WEIGHT_BYTES, Fact, ModelWriter, fact

LOGITS, LAST = "logits", "model.last"  # the nodes that go by sequences, not by tokens
SCORED = "scored"  # a dimension: tokens of each sequence, the last ones, whose logits are given
MASKED = np.float16(np.finfo(np.float16).min)  # transformers masks with the least number of the type


@dataclass(frozen=True, kw_only=True)
class Llama:
    """The sizes of a decoder; `source` says whose they are, `seq` is the default number of new tokens."""

    source: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rope_theta: float
    context: int
    tied: bool = False
    rope_scaling: Stretching | None = None
    epsilon: float = 1e-5
    seq: int = 128

    def facts(self) -> dict[str, Fact]:
        """Return the parameters, each with its unit and source."""
        parameters = self.graph("", self.default_dims()).parameters
        kv_bytes = 2 * self.layers * self.kv_heads * self.head_dim * WEIGHT_BYTES
        return {
            "layers": self._fact(self.layers, "decoder layers", "num_hidden_layers"),
            "hidden": self._fact(self.hidden, "elements", "hidden_size"),
            "heads": self._fact(self.heads, "query heads", "num_attention_heads"),
            "kv_heads": self._fact(self.kv_heads, "key and value heads", "num_key_value_heads"),
            "head_dim": self._fact(self.head_dim, "elements", "hidden_size / num_attention_heads"),
            "ffn": self._fact(self.ffn, "elements", "intermediate_size"),
            "vocab": self._fact(self.vocab, "tokens", "vocab_size"),
            "context": self._fact(self.context, "tokens", "max_position_embeddings"),
            "rope_theta": self._fact(self.rope_theta, "base", "rope_theta"),
            "embeddings": self._fact("tied" if self.tied else "separate", "-", "tie_word_embeddings"),
            "parameters": fact(parameters, "parameters", "counted from the weights of the graph"),
            "weight_bytes": fact(parameters * WEIGHT_BYTES, "B", "parameters x 2 B (fp16)"),
            "kv_bytes_per_token": fact(kv_bytes, "B", "2 x layers x kv_heads x head_dim x 2 B (fp16)"),
        }

    def _fact(self, value: int | float | str, unit: str, key: str) -> Fact:
        return fact(value, unit, f"{self.source}: {key}" if "config.json" in self.source else self.source)

    def default_dims(self) -> dict[str, int]:
        """Return a prefill of one sequence."""
        return {"batch": 1, "seq": self.seq, "past": 0}

    def least_dims(self) -> dict[str, int]:
        """Return that there may be nothing in the past."""
        return {"past": 0}

    def further_dims(self) -> dict[str, int]:
        """Return what may be bound besides: of how many last tokens of a sequence there are logits."""
        return {SCORED: 1}

    def graph(self, name: str, dims: dict[str, int]) -> ModelWriter:
        """Return the graph of one step."""
        scored, seq = dims.get(SCORED, 1), dims["seq"]
        if scored > seq:
            raise UserError(
                f"{name}: dimension '{SCORED}' is {scored}: there are {seq} tokens (right: 1 to {seq})"
            )
        writer = ModelWriter(name)
        self.step(writer, dims).write()
        return writer

    def step(self, writer: ModelWriter, dims: dict[str, int]) -> DecoderStep:
        """Return what writes a step."""
        return DecoderStep(self, writer, **dims)

    def example_inputs(self, dims: dict[str, int], seed: int) -> dict[str, np.ndarray]:
        """Return random tokens [batch, seq], behind a random past [batch, heads, past, dim]."""
        rng = np.random.default_rng(seed)
        batch, seq, past = dims["batch"], dims["seq"], dims["past"]
        positions = np.arange(past, past + seq, dtype=np.int64)
        values: dict[str, np.ndarray] = {
            "input_ids": rng.integers(0, self.vocab, (batch, seq), np.int64),
            "position_ids": np.tile(positions, (batch, 1)),
        }
        for layer in range(self.layers if past else 0):
            cached = (batch, self.kv_heads, self.kept(layer, past), self.head_dim)
            for part in ("key", "value") if cached[2] else ():
                drawn = rng.standard_normal(cached, np.float32).astype(np.float16)
                values[f"past_key_values.{layer}.{part}"] = drawn
        return values

    def kept(self, layer: int, past: int) -> int:
        """Return of how many past tokens a layer remembers keys and values."""
        return past

    def frequencies(self, tokens: int = 0) -> np.ndarray:
        """Return the frequency of each pair of elements, in radians a token, with so many in sight: fp32."""
        exponents = np.arange(0, self.head_dim, 2) / self.head_dim
        plain = self.rope_theta**-exponents
        return (self.rope_scaling(plain, tokens) if self.rope_scaling else plain).astype(np.float32)


@dataclass(frozen=True)
class DecoderStep:
    """The writing of one step of a model."""

    model: Llama
    writer: ModelWriter
    batch: int
    seq: int
    past: int
    scored: int = 1

    @property
    def total(self) -> int:
        """Return the number of keys that a query may see at most."""
        return self.past + self.seq

    @property
    def before_network(self) -> str:
        """Return the name of the norm before a feed-forward network."""
        return "post_attention_layernorm"

    @property
    def asked(self) -> tuple[int, int]:
        """Return the shape of the tokens whose logits are asked for."""
        return self.batch, self.scored

    def write(self) -> None:
        """Write the whole step: embedding, layers, norm, logits."""
        w, m = self.writer, self.model
        w.output(LOGITS, np.float16, *self.asked, m.vocab)
        ids = w.input("input_ids", np.int64, self.batch, self.seq)
        positions = w.input("position_ids", np.int64, self.batch, self.seq)
        spread = m.hidden**-0.5 if m.tied else 1.0
        table = w.weight("model.embed_tokens.weight", m.vocab, m.hidden, std=spread)
        x = self.embed(table, ids)
        cos, sin = self.rotations(positions)
        mask = self.mask() if self.seq > 1 else None
        for layer in range(m.layers):
            x = self.block(x, (cos, sin), mask, layer)
        self.logits(self.norm(x, "model.norm"), table)

    def block(self, x: str, waves: tuple[str, str], mask: str | None, layer: int) -> str:
        """Return what a layer makes of `x`: fp16[batch,seq,hidden]; `waves` are cosine and sine."""
        name = f"model.layers.{layer}"
        h = self.norm(x, f"{name}.input_layernorm")
        x = self.attention(x, h, *waves, mask, layer)
        h = self.norm(x, f"{name}.{self.before_network}")
        return self.feed_forward(x, h, layer)

    def embed(self, table: str, ids: str) -> str:
        """Return the rows of tokens: fp16[batch,seq,hidden]."""
        return self.writer.op("Gather", table, ids, name="model.embed_tokens", axis=0)

    def rotations(self, positions: str) -> tuple[str, str]:
        """Return cosine and sine of each position's angles: fp16[batch,1,seq,head_dim], computed in fp32."""
        scale = wave_scale_of(self.model.rope_scaling, self.total)
        return self.waves(positions, self.model.frequencies(self.total), scale)

    def waves(
        self, positions: str, frequencies: np.ndarray, scale: float = 1.0, name: str = "model.rotary_emb"
    ) -> tuple[str, str]:
        """Return cosine and sine, times `scale`, of positions times frequencies, each twice in a row."""
        w = self.writer
        column = w.op("Unsqueeze", positions, w.ints(2), name=f"{name}.positions")
        column = w.cast(column, np.float32, name=f"{name}.cast")
        half = w.op("Mul", column, w.constant(frequencies), name=f"{name}.half")
        angles = w.op("Concat", half, half, name=f"{name}.angles", axis=-1)
        results = []
        for op_type in ("Cos", "Sin"):
            wave = w.op(op_type, angles, name=f"{name}.{op_type}")
            if scale != 1.0:
                wave = w.op("Mul", wave, w.constant(np.float32(scale)), name=f"{name}.{op_type}.scaled")
            wave = w.cast(wave, np.float16, name=f"{name}.{op_type}.cast")
            results.append(w.op("Unsqueeze", wave, w.ints(1), name=f"{name}.{op_type}.unsqueeze"))
        return results[0], results[1]

    def mask(self, name: str = "model.mask") -> str:
        """Return what is added to the scores: fp16[1,1,seq,total], 0 where a query sees a key."""
        w = self.writer
        one = w.constant(np.int64(1))
        first, last = w.constant(np.int64(self.past)), w.constant(np.int64(self.total))
        queries = w.op("Range", first, last, one, name=f"{name}.queries")
        queries = w.op("Unsqueeze", queries, w.ints(0, 1, 3), name=f"{name}.rows")
        keys = w.op("Range", w.constant(np.int64(0)), last, one, name=f"{name}.keys")
        keys = w.op("Unsqueeze", keys, w.ints(0, 1, 2), name=f"{name}.columns")
        seen = w.op("LessOrEqual", keys, queries, name=f"{name}.seen")
        return w.op("Where", seen, w.constant(np.float16(0)), w.constant(MASKED), name=name)

    def norm(self, x: str, name: str, size: int = 0) -> str:
        """Return the RMS norm of `x` over its last axis, of `hidden` elements or `size`, computed in fp32."""
        w = self.writer
        narrow = w.cast(self.by_its_size(x, name), np.float16, name=f"{name}.narrow")
        weight = w.weight(f"{name}.weight", size or self.model.hidden, std=0.1, mean=1.0)
        return w.op("Mul", weight, narrow, name=name)

    def by_its_size(self, x: str, name: str) -> str:
        """Return `x` divided by its root mean square over the last axis: fp32."""
        w = self.writer
        wide = w.cast(x, np.float32, name=f"{name}.wide")
        square = w.op("Pow", wide, w.constant(np.float32(2)), name=f"{name}.pow")
        mean = w.op("ReduceMean", square, w.ints(-1), name=f"{name}.mean", keepdims=1)
        mean = w.op("Add", mean, w.constant(np.float32(self.model.epsilon)), name=f"{name}.add")
        root = w.op("Sqrt", mean, name=f"{name}.sqrt")
        inverse = w.op("Reciprocal", root, name=f"{name}.rsqrt")
        return w.op("Mul", wide, inverse, name=f"{name}.scaled")

    def linear(self, x: str, inner: int, outer: int, name: str) -> str:
        """Return `x` times a weight, which lies transposed, as exporters fold it."""
        w = self.writer
        return w.op("MatMul", x, w.weight(f"{name}.weight", inner, outer, std=inner**-0.5), name=name)

    def split_heads(self, x: str, heads: int, name: str, result: str | None = None) -> str:
        """Return `x` with a head axis: fp16[batch,heads,seq,head_dim]."""
        w = self.writer
        x = self.linear(x, self.model.hidden, heads * self.model.head_dim, name)
        x = w.op("Reshape", x, w.ints(self.batch, self.seq, heads, self.model.head_dim), name=f"{name}.view")
        return w.op("Transpose", x, name=result or f"{name}.heads", perm=[0, 2, 1, 3])

    def rotate(self, x: str, cos: str, sin: str, name: str, result: str | None = None, size: int = 0) -> str:
        """Return `x` turned by its position: `x * cos + concat(-second half, first half) * sin`.

        Its last axis has `head_dim` elements, or `size`.
        """
        w, half = self.writer, (size or self.model.head_dim) // 2
        axes, step = w.ints(3), w.ints(1)
        turned = w.op("Mul", x, cos, name=f"{name}.cos")
        first = w.op("Slice", x, w.ints(0), w.ints(half), axes, step, name=f"{name}.first")
        second = w.op("Slice", x, w.ints(half), w.ints(2**63 - 1), axes, step, name=f"{name}.second")
        second = w.op("Neg", second, name=f"{name}.neg")
        crossed = w.op("Concat", second, first, name=f"{name}.crossed", axis=-1)
        crossed = w.op("Mul", crossed, sin, name=f"{name}.sin")
        return w.op("Add", turned, crossed, name=result or f"{name}.rotated")

    def remember(self, layer: int, part: str) -> str:
        """Declare `present` of this layer, written as past and new tokens joined if there is a past."""
        w, cached, shape = self.writer, f"present.{layer}.{part}", (self.batch, self.model.kv_heads)
        w.output(cached, np.float16, *shape, self.total, self.model.head_dim)
        if self.past:
            past = f"past_key_values.{layer}.{part}"
            w.input(past, np.float16, *shape, self.past, self.model.head_dim)
            w.op("Concat", past, f"{cached}.new", name=cached, axis=-2)
        return cached

    def repeat(self, x: str, name: str) -> str:
        """Return keys or values with each head repeated for the query heads that share it."""
        w, m = self.writer, self.model
        if m.heads == m.kv_heads:
            return x
        group = m.heads // m.kv_heads
        x = w.op("Unsqueeze", x, w.ints(2), name=f"{name}.unsqueeze")
        shape = w.ints(self.batch, m.kv_heads, group, self.total, m.head_dim)
        x = w.op("Expand", x, shape, name=f"{name}.expand")
        return w.op("Reshape", x, w.ints(self.batch, m.heads, self.total, m.head_dim), name=f"{name}.repeat")

    def head_norm(self, x: str, name: str) -> str:
        """Return queries or keys as they are: models that norm each head do so here."""
        return x

    def attention(self, x: str, h: str, cos: str, sin: str, mask: str | None, layer: int) -> str:
        """Return `x` plus the attention over `h` and the past."""
        w, m, name = self.writer, self.model, f"model.layers.{layer}.self_attn"
        new = ".new" if self.past else ""
        query = self.head_norm(self.split_heads(h, m.heads, f"{name}.q_proj"), f"{name}.q_norm")
        key = self.head_norm(self.split_heads(h, m.kv_heads, f"{name}.k_proj"), f"{name}.k_norm")
        self.split_heads(h, m.kv_heads, f"{name}.v_proj", result=f"present.{layer}.value{new}")
        query = self.rotate(query, cos, sin, f"{name}.q")
        self.rotate(key, cos, sin, f"{name}.k", result=f"present.{layer}.key{new}")
        key, value = self.remember(layer, "key"), self.remember(layer, "value")
        mixed = self.attend(query, key, value, mask, name)
        projected = self.linear(mixed, m.heads * m.head_dim, m.hidden, f"{name}.o_proj")
        return w.op("Add", x, projected, name=f"{name}.residual")

    def attend(self, query: str, key: str, value: str, mask: str | None, name: str) -> str:
        """Return the attention of fp16[batch,heads,seq,head_dim] over the cache: fp16[batch,seq,width]."""
        w, m = self.writer, self.model
        key, value = self.repeat(key, f"{name}.k"), self.repeat(value, f"{name}.v")
        key = w.op("Transpose", key, name=f"{name}.k.transpose", perm=[0, 1, 3, 2])
        scores = w.op("MatMul", query, key, name=f"{name}.scores")
        scale = w.constant(np.float16(m.head_dim**-0.5))
        scores = w.op("Mul", scores, scale, name=f"{name}.scaled")
        if mask is not None:
            scores = w.op("Add", scores, mask, name=f"{name}.masked")
        shares = w.op("Softmax", scores, name=f"{name}.softmax", axis=-1)
        mixed = w.op("MatMul", shares, value, name=f"{name}.mixed")
        mixed = w.op("Transpose", mixed, name=f"{name}.transpose", perm=[0, 2, 1, 3])
        shape = w.ints(self.batch, self.seq, m.heads * m.head_dim)
        return w.op("Reshape", mixed, shape, name=f"{name}.view")

    def feed_forward(self, x: str, h: str, layer: int) -> str:
        """Return `x` plus the SwiGLU feed-forward network of `h`."""
        name = f"model.layers.{layer}.mlp"
        down = self.gated(h, self.model.ffn, name)
        return self.writer.op("Add", x, down, name=f"{name}.residual")

    def gated(self, h: str, ffn: int, name: str) -> str:
        """Return a SwiGLU network of `ffn` elements of `h`."""
        hidden = self.model.hidden
        gate = self.linear(h, hidden, ffn, f"{name}.gate_proj")
        up = self.linear(h, hidden, ffn, f"{name}.up_proj")
        return self.linear(self.swiglu(gate, up, name), ffn, hidden, f"{name}.down_proj")

    def swiglu(self, gate: str, up: str, name: str) -> str:
        """Return silu(gate) * up."""
        w = self.writer
        silu = w.op("Sigmoid", gate, name=f"{name}.sigmoid")
        silu = w.op("Mul", gate, silu, name=f"{name}.silu")
        return w.op("Mul", silu, up, name=f"{name}.both")

    def logits(self, h: str, table: str) -> None:
        """Write the logits of each sequence's last tokens."""
        w = self.writer
        if self.seq > self.scored:
            ends = w.ints(-self.scored), w.ints(2**63 - 1)
            h = w.op("Slice", h, *ends, w.ints(1), w.ints(1), name=LAST)
        self.head(h, table)

    def head(self, h: str, table: str, result: str = LOGITS) -> None:
        """Write the logits of each token of `h`; a tied head is the embedding table, transposed."""
        w, m = self.writer, self.model
        if m.tied:
            head = w.op("Transpose", table, name="lm_head.transpose", perm=[1, 0])
        else:
            head = w.weight("lm_head.weight", m.hidden, m.vocab, std=m.hidden**-0.5)
        w.op("MatMul", h, head, name=result)
