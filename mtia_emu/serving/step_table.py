"""What one step of a server takes, by what is in it: between what runs models and what schedules them.

A step's work comes in groups of operators, each with its own measure of size. Linear work (products, norms,
embedding) goes by the tokens of the step, whosesoever they are, so a mixed step reads each weight once. The
head goes by sequences. Attention goes by each prompt's (chunk, past) and by the context of each decoding
sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .surfaces import ERROR_S, SECONDS, Curve, Floats, MixedRatio, Surface

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ServingStep:
    """What one step of a server computes.

    `prefills` are prompts' chunks, each its tokens and how many of its prompt are in the cache already;
    `contexts` how many keys the one new token of each decoding sequence sees, its own among them.
    """

    prefills: tuple[tuple[int, int], ...] = ()
    contexts: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Return the new tokens of the step."""
        return len(self.contexts) + sum(chunk for chunk, _ in self.prefills)

    @property
    def sequences(self) -> int:
        """Return the sequences of the step; each asks for the logits of its last token."""
        return len(self.contexts) + len(self.prefills)


@dataclass(frozen=True)
class StepCost:
    """What a step takes. `joules` are NaN where the table does not know them.

    `error_share` is how far from a compiled or measured step `seconds` may be, as a share of them.
    """

    seconds: float
    joules: float
    error_share: float


@dataclass(frozen=True)
class StepCosts:
    """What steps one after another take: an array each, as `StepCost` has."""

    seconds: Floats
    joules: Floats
    error_share: Floats


@dataclass(frozen=True)
class StepLimits:
    """The largest of each that a table knows; a step beyond any of them is refused."""

    tokens: int
    sequences: int
    chunk_tokens: int
    past_tokens: int
    decodes: int
    context: int


class StepTable(Protocol):
    """What says how long a step takes and what it costs: made of a chip, a GPU, a system or a file."""

    @property
    def machine(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def idle_w(self) -> float:
        """Watts between steps; NaN where that is not known."""

    @property
    def memory_bytes(self) -> int:
        """All the machine's memory that weights, cache and activations share."""

    @property
    def weight_bytes(self) -> int: ...

    @property
    def activation_bytes(self) -> int:
        """The most memory that a step's activations were placed in; 0 where it is not known."""

    @property
    def kv_bytes_per_token(self) -> int: ...

    @property
    def limits(self) -> StepLimits: ...

    def step(self, step: ServingStep, /) -> StepCost:
        """Return the cost of a step. Raises `UserError` for one beyond the limits, or without tokens."""

    def decodes(self, contexts: Ints, steps: int, /) -> StepCosts:
        """Return the costs of so many steps in which the same sequences decode, each context a key longer.

        Much faster than as many calls of `step`. Raises `UserError` as `step` does.
        """


@dataclass(frozen=True)
class TableFacts:
    """What a step table says of its machine and its model; `source` is where its costs come from.

    Where the machine's model was held to measurements, these may lie as many times the table's values as the
    bands say, lowest and highest; (1, 1) where nothing is known of that.
    """

    machine: str
    model: str
    dtype: str
    source: str
    memory_bytes: int
    weight_bytes: int
    kv_bytes_per_token: int
    activation_bytes: int = 0
    idle_w: float = float("nan")
    seconds_band: tuple[float, float] = (1.0, 1.0)
    joules_band: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class GroupedSteps:
    """A step table made of groups of operators: curves and surfaces between anchors.

    A step takes `linear` of its tokens, `head` of its sequences, `prefill` of each prompt's (chunk, past).
    For n decoding sequences it takes the mean of `decode` (n, context) over their contexts, since that is a
    surface of n sequences of one context. Where `mixed` is given, attention of prompts and decodes together
    takes that times the sum of both: a kernel for both has a speed of its own, and ends with its longest
    sequence. Below the least anchor the least anchor holds; beyond the last one a step is refused.
    """

    facts: TableFacts
    linear: Curve
    head: Curve
    prefill: Surface
    decode: Surface
    mixed: MixedRatio | None = None

    @property
    def machine(self) -> str:
        """Return the machine's name."""
        return self.facts.machine

    @property
    def model(self) -> str:
        """Return the model's name."""
        return self.facts.model

    @property
    def idle_w(self) -> float:
        """Return the watts between steps."""
        return self.facts.idle_w

    @property
    def memory_bytes(self) -> int:
        """Return all the memory of the machine."""
        return self.facts.memory_bytes

    @property
    def weight_bytes(self) -> int:
        """Return what of it the weights take."""
        return self.facts.weight_bytes

    @property
    def activation_bytes(self) -> int:
        """Return the most of it that a step's activations take."""
        return self.facts.activation_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """Return what keys and values of one token take."""
        return self.facts.kv_bytes_per_token

    @cached_property
    def error_shares(self) -> tuple[float, float]:
        """Return the median and the largest `error_share` of steps of one kind at its anchors."""
        shares = []
        for surface, one in ((self.prefill, True), (self.decode, False)):
            for x, row in zip(surface.x, surface.values, strict=True):
                if x > min(self.linear.last, self.linear.last if one else self.head.last):
                    continue
                cost = row + self.linear.at(x) + self.head.at(1 if one else x)
                shares.append(cost[:, ERROR_S] / cost[:, SECONDS])
        each = np.concatenate(shares)
        return float(np.median(each)), float(each.max())

    @cached_property
    def limits(self) -> StepLimits:
        """Return the ends of the anchors."""
        return StepLimits(
            *(self.linear.last, self.head.last), *(self.prefill.last_x, self.prefill.last_y),
            *(self.decode.last_x, self.decode.last_y),
        )  # fmt: skip

    def step(self, step: ServingStep, /) -> StepCost:
        """Return the cost of a step."""
        self._check(step)
        contexts = np.asarray(step.contexts, np.int64)
        cost = self.linear.at(step.tokens) + self.head.at(step.sequences)
        if step.prefills:
            cost = cost + self._attention(step.prefills, contexts)
        elif step.contexts:
            cost = cost + self.decode.mean(len(contexts), contexts)
        seconds, joules, error = cost.tolist()
        return StepCost(seconds, joules, error / seconds if seconds else 0.0)

    def _attention(self, prefills: Sequence[tuple[int, int]], contexts: Ints) -> Floats:
        chunks, pasts = np.asarray(prefills, np.int64).T
        cost: Floats = self.prefill.each(chunks, pasts).sum(0)
        if not len(contexts):
            return cost
        cost = cost + self.decode.mean(len(contexts), contexts)
        if self.mixed is None:
            return cost
        tokens = int(chunks.sum())
        past, context = float(chunks @ pasts) / tokens, float(contexts.mean())
        ratio = self.mixed.at((tokens, past, len(contexts), context))
        prompt = int((chunks + pasts).max())
        longest, usual = (max(prompt, keys) for keys in (int(contexts.max()), context))
        return np.asarray(cost * ratio + self._alone(longest) - self._alone(usual))

    def _alone(self, keys: float) -> Floats:
        """Return what attention to so many keys takes by itself, of the fewest rows that are known.

        A kernel for prompts and decodes does not split the keys of a sequence, and takes one head after
        another: the longest sequence of the last head ends it. Anchors have sequences of one length, so what
        a longer one takes beyond them comes on top.
        """
        rows = self.prefill.x[:1]
        return np.asarray(self.prefill.each(rows, np.maximum(keys - rows, 0))[0])

    def decodes(self, contexts: Ints, steps: int, /) -> StepCosts:
        """Return the costs of so many steps in which the same sequences decode."""
        count = len(contexts)
        if not count or steps < 1:
            raise UserError(f"{steps} steps of {count} decoding sequences (right: 1 or more of each)")
        last = np.asarray(contexts, np.int64) + (steps - 1)
        self._check_decodes(count, last)
        cost = self.decode.means(count, np.asarray(contexts, np.int64), steps)
        cost = cost + (self.linear.at(count) + self.head.at(count))
        return StepCosts(cost[:, 0], cost[:, 1], cost[:, 2] / cost[:, 0])

    def _check(self, step: ServingStep) -> None:
        most = self.limits
        if not step.tokens or min((c for c, _ in step.prefills), default=1) < 1:
            raise UserError(f"{self._name}: a step of no tokens, or a chunk of none (right: 1 or more)")
        if min((past for _, past in step.prefills), default=0) < 0:
            raise UserError(f"{self._name}: a chunk after fewer than 0 tokens (right: 0 or more)")
        if step.tokens > most.tokens:
            self._refuse("tokens", step.tokens, most.tokens)
        if step.sequences > most.sequences:
            self._refuse("sequences", step.sequences, most.sequences)
        for chunk, past in step.prefills:
            if chunk > most.chunk_tokens:
                self._refuse("tokens of one chunk", chunk, most.chunk_tokens)
            if past > most.past_tokens:
                self._refuse("tokens before a chunk", past, most.past_tokens)
        if step.contexts:
            self._check_decodes(len(step.contexts), np.asarray(step.contexts, np.int64))

    def _check_decodes(self, count: int, contexts: Ints) -> None:
        most = self.limits
        if count > min(most.decodes, most.sequences, most.tokens):
            self._refuse("decoding sequences", count, min(most.decodes, most.sequences, most.tokens))
        if contexts.max() > most.context:
            self._refuse("keys of one context", int(contexts.max()), most.context)
        if contexts.min() < 1:
            raise UserError(f"{self._name}: a context of {contexts.min()} keys (right: 1 or more)")

    @property
    def _name(self) -> str:
        return f"step table of {self.model} on {self.machine}"

    def _refuse(self, what: str, seen: int, most: int) -> NoReturn:
        raise UserError(f"{self._name}: {seen} {what}, beyond its last anchor (right: at most {most})")
