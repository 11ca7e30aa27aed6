"""A step of a server as one graph: prompts' chunks and decoding sequences side by side.

All tokens of the step pass products and experts together, as one sequence. Attention is done part by part,
each over its own cache. Nodes that belong to part i alone have `.part{i}.` in their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

import numpy as np

from ..errors import UserError
from .llama import LAST, LOGITS, DecoderStep, Llama
from .mixture import Mixture
from .models import MODELS
from .writer import ModelWriter

MOST_PARTS = 1 << 10


@dataclass(frozen=True)
class StepPart:
    """`batch` sequences of one length, each with `seq` new tokens after `past` in its cache."""

    batch: int
    seq: int
    past: int

    @property
    def tokens(self) -> int:
        """Return the new tokens of the part."""
        return self.batch * self.seq


def served_model(name: str) -> Llama:
    """Return the decoder of that name. Raises `UserError` where the zoo has none."""
    model = MODELS.get(name)
    if not _is_served(model):
        known = ", ".join(n for n, m in MODELS.items() if _is_served(m))
        raise UserError(f"model {name!r} has no steps to serve (right: a decoder of the zoo: {known})")
    return model


def _is_served(model: object) -> TypeGuard[Llama]:
    """Return whether a model's attention is the one that is written here: not DeepSeek's, over latents."""
    return type(model) in (Llama, Mixture)


def build_step(
    name: str, parts: Sequence[StepPart], folder: Path, *, weights_seed: int | None = None
) -> Path:
    """Write the step of a zoo's decoder as ONNX, as `zoo.build` does; one part is what that writes.

    Inputs are `input_ids` and `position_ids` [1, tokens], part after part, sequence after sequence in each;
    and `past_key_values.{layer}.key.part{i}` (or `.value`) where part i has a past. Outputs are `logits`
    [1, sequences, vocab] and `present.{layer}.key.part{i}` (or `.value`).
    """
    model = served_model(name)
    if not 0 < len(parts) <= MOST_PARTS or any(min(p.batch, p.seq, p.past + 1) < 1 for p in parts):
        raise UserError(f"{len(parts)} parts, or one of no tokens (right: 1 to {MOST_PARTS})")
    writer = ModelWriter(name)
    if len(parts) == 1:
        _step_of(model, writer, parts[0]).write()
    else:
        tokens = sum(part.tokens for part in parts)
        _PartsStep(model, writer, 1, tokens, 0, parts=tuple(parts)).write()
    folder.mkdir(parents=True, exist_ok=True)
    return writer.save(folder / f"{name}-step.onnx", weights_seed)


def _step_of(model: Llama, writer: ModelWriter, part: StepPart) -> DecoderStep:
    """Return what writes a step of one part alone."""
    return model.step(writer, {"batch": part.batch, "seq": part.seq, "past": part.past})


@dataclass(frozen=True, kw_only=True)
class _ServedStep(DecoderStep):
    """The writing of a step whose attention is of this file, and all else as the model's own step has it."""

    @cached_property
    def whole(self) -> DecoderStep:
        """Return the model's own step of all tokens."""
        return _step_of(self.model, self.writer, StepPart(self.batch, self.seq, self.past))

    @property
    def before_network(self) -> str:
        """Return the name of the norm before a feed-forward network."""
        return self.whole.before_network

    def embed(self, table: str, ids: str) -> str:
        """Return the rows of tokens, scaled where the model does so."""
        return self.whole.embed(table, ids)

    def rotations(self, positions: str) -> tuple[str, str]:
        """Return cosine and sine of each position's angles."""
        return self.whole.rotations(positions)

    def norm(self, x: str, name: str, size: int = 0) -> str:
        """Return the norm of `x` as the model has it."""
        return self.whole.norm(x, name, size)

    def head(self, h: str, table: str, result: str = LOGITS) -> None:
        """Write the logits of each token, scaled and capped where the model does so."""
        self.whole.head(h, table, result)

    def head_norm(self, x: str, name: str) -> str:
        """Return queries or keys, normed where the model does so."""
        return self.whole.head_norm(x, name)

    def feed_forward(self, x: str, h: str, layer: int) -> str:
        """Return `x` plus the layer's network, or its experts, of `h`."""
        return self.whole.feed_forward(x, h, layer)


@dataclass(frozen=True, kw_only=True)
class _PartsStep(_ServedStep):
    """The writing of a step of several parts: a batch of one sequence, all tokens in it."""

    parts: tuple[StepPart, ...]

    @property
    def asked(self) -> tuple[int, int]:
        """Return the shape of the tokens whose logits are asked for."""
        return 1, len(self._ends)

    @property
    def _ends(self) -> list[int]:
        """Return where each sequence's last token stands."""
        ends: list[int] = []
        at = 0
        for part in self.parts:
            ends += range(at + part.seq - 1, at + part.tokens, part.seq)
            at += part.tokens
        return ends

    def mask(self, name: str = "model.mask") -> str:
        """Write the mask of each part, which has its own name behind this one."""
        for i, part in enumerate(self.parts):
            if part.seq > 1:
                self._inner(i).mask(f"{name}.part{i}")
        return name

    def attention(self, x: str, h: str, cos: str, sin: str, mask: str | None, layer: int) -> str:
        """Return `x` plus the attention of each part over its own tokens and past."""
        w, m, name = self.writer, self.model, f"model.layers.{layer}.self_attn"
        query = self.head_norm(self.split_heads(h, m.heads, f"{name}.q_proj"), f"{name}.q_norm")
        key = self.head_norm(self.split_heads(h, m.kv_heads, f"{name}.k_proj"), f"{name}.k_norm")
        value = self.split_heads(h, m.kv_heads, f"{name}.v_proj")
        query = self.rotate(query, cos, sin, f"{name}.q")
        key = self.rotate(key, cos, sin, f"{name}.k")
        mixed, first = [], 0
        for i in range(len(self.parts)):
            inner = self._inner(i)
            q, k, v = (self._rows(x, i, first, f"{name}.part{i}.{kind}") for x, kind in
                       ((query, "query"), (key, "key"), (value, "value")))  # fmt: skip
            k, v = self._kept(k, "key", layer, i), self._kept(v, "value", layer, i)
            own = f"model.mask.part{i}" if inner.seq > 1 else None
            done = inner.attend(q, k, v, own, f"{name}.part{i}")
            shape = w.ints(1, self.parts[i].tokens, m.heads * m.head_dim)
            mixed.append(w.op("Reshape", done, shape, name=f"{name}.part{i}.flat"))
            first += self.parts[i].tokens
        together = w.op("Concat", *mixed, name=f"{name}.together", axis=1)
        projected = self.linear(together, m.heads * m.head_dim, m.hidden, f"{name}.o_proj")
        return w.op("Add", x, projected, name=f"{name}.residual")

    def _inner(self, i: int) -> DecoderStep:
        return _step_of(self.model, self.writer, self.parts[i])

    def _rows(self, x: str, i: int, first: int, name: str) -> str:
        """Return part i's tokens of fp16[1,heads,tokens,head_dim]: fp16[batch,heads,seq,head_dim]."""
        w, part = self.writer, self.parts[i]
        ends = w.ints(first), w.ints(first + part.tokens)
        x = w.op("Slice", x, *ends, w.ints(2), w.ints(1), name=f"{name}.rows")
        if part.batch == 1:
            return x
        x = w.op("Reshape", x, w.ints(-1, part.batch, part.seq, self.model.head_dim), name=f"{name}.split")
        return w.op("Transpose", x, name=f"{name}.heads", perm=[1, 0, 2, 3])

    def _kept(self, new: str, kind: str, layer: int, i: int) -> str:
        """Declare what part i has cached of this layer, its past and new tokens joined."""
        w, m, part = self.writer, self.model, self.parts[i]
        name, shape = f"present.{layer}.{kind}.part{i}", (part.batch, m.kv_heads)
        w.output(name, np.float16, *shape, part.past + part.seq, m.head_dim)
        if not part.past:
            return w.op("Identity", new, name=name)
        past = w.input(f"past_key_values.{layer}.{kind}.part{i}", np.float16, *shape, part.past, m.head_dim)
        return w.op("Concat", past, new, name=name, axis=-2)

    def logits(self, h: str, table: str) -> None:
        """Write the logits of the last token of each sequence."""
        if len(self._ends) < self.seq:
            h = self.writer.op("Gather", h, self.writer.ints(*self._ends), name=LAST, axis=1)
        self.head(h, table)


def build_layers(name: str, model: Llama, part: StepPart, pasts: Sequence[int], folder: Path) -> Path:
    """Write a step of one part of a decoder whose layers have pasts of their own; without weights.

    Layers take `pasts` over and over.

    No server computes such a step. It costs what steps of each past cost, layer by layer, in one compilation.
    """
    if not pasts or min(part.batch, part.seq, min(pasts) + 1) < 1:
        raise UserError(f"a step of {part} after {list(pasts)} tokens (right: 1 or more, after 0 or more)")
    writer = ModelWriter(name)
    _LayersStep(model, writer, part.batch, part.seq, part.past, pasts=tuple(pasts)).write()
    folder.mkdir(parents=True, exist_ok=True)
    return writer.save(folder / f"{name}-layers.onnx", None)


@dataclass(frozen=True, kw_only=True)
class _LayersStep(_ServedStep):
    """The writing of a step whose layers have pasts of their own."""

    pasts: tuple[int, ...]

    def mask(self, name: str = "model.mask") -> str:
        """Write a mask for each past."""
        for past in dict.fromkeys(self.pasts):
            self._of(past).mask(f"{name}.{past}")
        return name

    def attention(self, x: str, h: str, cos: str, sin: str, mask: str | None, layer: int) -> str:
        """Return `x` plus the attention over `h` and the layer's own past."""
        past = self.pasts[layer % len(self.pasts)]
        own = mask if mask is None else f"{mask}.{past}"
        return self._of(past).attention(x, h, cos, sin, own, layer)

    def _of(self, past: int) -> DecoderStep:
        return _step_of(self.model, self.writer, StepPart(self.batch, self.seq, past))
