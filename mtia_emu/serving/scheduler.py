"""Which sequences run in a step: the rules of `rules.py`, carried out.

All sequences that decode advance together, by one token a step. So the context of each is its *base* plus
the number of the step, and what a step needs of the pool follows from how many bases have which remainder:
a step costs no work for each of its sequences unless one comes or goes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .blocks import BlockPool, OwnBlocks, SharedBlocks
from .rules import EngineRules


class Sequence:
    """A request in the engine: what it still has to compute and to generate."""

    __slots__ = (
        *("request", "prompt", "output", "names", "known", "computed", "base", "place", "first_tick"),
        *("held", "sharing", "started_s", "ending", "parts"),
    )

    def __init__(
        self, request: int, prompt: int, output: int, *, names: tuple[SharedBlocks, ...] = (), known: int = 0
    ) -> None:
        self.request = request
        self.prompt = prompt  # tokens to compute before it decodes
        self.output = output  # tokens it then generates, the first with the end of its prompt
        self.names = names  # of its prompt's shared pieces
        self.known = known  # tokens of the prompt that are brought from elsewhere, not computed
        self.computed = 0  # of the prompt
        self.base = 0  # its context is this plus the number of the step
        self.place = -1  # among those that decode
        self.first_tick = -1
        self.held = 0  # shared pieces that it holds
        self.sharing = True
        self.started_s = -1.0  # when the first step that computes some of it started
        self.ending = False  # its last token is in a step already
        self.parts: list[tuple[int, int]] = []  # steps, first to last, each of which gave it a token


@dataclass(slots=True)
class ServingBatch:
    """What runs in one step: chunks of prompts as (tokens, context before), and the contexts of who decodes.

    A context counts the token that is computed too.
    """

    tick: int
    chunks: list[tuple[int, int]]
    contexts: NDArray[np.int64]
    joining: list[Sequence]  # their prompts end here: their first token comes out
    starting: list[Sequence]  # their prompts begin here
    ending: list[Sequence]  # their last token comes out
    composition: int  # the same in two steps in which the same sequences decode
    used_blocks: int = 0
    running: int = 0
    waiting: int = 0

    @property
    def tokens_out(self) -> int:
        """Tokens that the step generates."""
        return len(self.contexts) + len(self.joining)

    @property
    def tokens_in(self) -> int:
        """Tokens of prompts that the step computes."""
        return sum(tokens for tokens, _ in self.chunks)


@dataclass
class Tally:
    """What happened so far, in tokens but for the preemptions."""

    cached_tokens: int = 0
    recomputed_tokens: int = 0
    preemptions: dict[int, int] = field(default_factory=dict)


class Scheduler:
    """Waiting and running sequences of one engine, and the blocks that they hold.

    `piece_tokens` is how many tokens a shared piece of a prompt has.
    """

    def __init__(self, rules: EngineRules, blocks: int, piece_tokens: int = 512) -> None:
        self.rules = rules
        self.pool = BlockPool(blocks)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in the order of admission
        self.tally = Tally()
        self.tick = 0
        self._piece_blocks = max(1, piece_tokens // rules.block_tokens)
        self._partial: Sequence | None = None  # whose prompt is partly computed: the last that runs
        self._decoding: list[Sequence] = []
        self._bases = np.zeros(rules.max_sequences, np.int64)
        self._block_due = [0] * rules.block_tokens  # who needs a block at steps of this remainder
        self._ends: dict[int, list[Sequence]] = {}
        self.composition = 0  # changes whenever who decodes does
        self._open = 0  # places that a static batch still has
        self._ended: list[Sequence] = []  # that still hold their places and blocks

    def schedule(self) -> ServingBatch | None:
        """Return what the next step computes; None if there is nothing that can run."""
        tick = self.tick
        if self.rules.static and len(self._ended) == len(self.running):
            self._free_ended()
        preempted = self._blocks_for_decoding(tick)
        decoding = len(self._decoding)
        budget = self.rules.token_budget - decoding
        chunks: list[tuple[int, int]] = []
        joining: list[Sequence] = []
        before = len(self.running)
        if self._partial is not None:
            budget -= self._go_on(self._partial, budget, chunks, joining)
        if self.waiting and not preempted:
            self._admit(budget, chunks, joining)
        if not decoding and not chunks:
            return self.schedule() if preempted else None
        starting = self.running[before:]
        batch = ServingBatch(
            tick, chunks, self._bases[:decoding] + (tick + 1), joining, starting, [], self.composition
        )
        self.tick += 1
        for sequence in self._ends.pop(tick, ()):
            self._leave(sequence)
            self._end(sequence, tick, batch)
        for sequence in joining:
            self._join(sequence, tick, batch)
        batch.used_blocks, batch.running = self.pool.used, len(self.running)
        batch.waiting = len(self.waiting)
        return batch

    def finish(self, batch: ServingBatch) -> None:
        """Free what the sequences held that ended with this step."""
        self._ended += batch.ending
        if not self.rules.static:
            self._free_ended()

    def _free_ended(self) -> None:
        for sequence in self._ended:
            self.running.remove(sequence)
            self._release(sequence, sequence.prompt + sequence.output - 1)
        self._ended.clear()

    def pieces_found(self, names: tuple[SharedBlocks, ...]) -> int:
        """Return how many shared pieces at a prompt's beginning are in the pool."""
        pool = self.pool
        for count, name in enumerate(names):
            if not pool.in_use(name) and not pool.found(name):
                return count
        return len(names)

    @property
    def steps_alike(self) -> int:
        """Return in how many steps from the next on, at least, the same sequences decode if nobody comes."""
        return min(self._ends, default=self.tick) - self.tick + 1

    def _blocks_for_decoding(self, tick: int) -> bool:
        """Give each sequence the block for its next token; return whether any was preempted for that."""
        due = self._block_due[tick % self.rules.block_tokens]
        if due <= self.pool.free:
            self.pool.take(due)
            return False
        for sequence in tuple(self.running):
            if sequence.place < 0 or (sequence.base + tick) % self.rules.block_tokens:
                continue
            while not self.pool.free and sequence.place >= 0:
                self._preempt_last(tick)
            if sequence.place >= 0:
                self.pool.take(1)
        return True

    def _preempt_last(self, tick: int) -> None:
        victim = next(s for s in reversed(self.running) if not s.ending)
        self.running.remove(victim)
        self.waiting.appendleft(victim)
        computed = victim.computed
        if victim is self._partial:
            self._partial = None
        else:
            computed = victim.base + tick
            self._ends[victim.first_tick + victim.output - 1].remove(victim)
            self._leave(victim)
            victim.parts.append((victim.first_tick, tick - 1))
            generated = tick - victim.first_tick
            victim.prompt, victim.output = victim.prompt + generated, victim.output - generated
        self._release(victim, computed, keep=self.rules.prefix_caching)
        victim.computed, victim.known = 0, 0
        self.tally.preemptions[victim.request] = self.tally.preemptions.get(victim.request, 0) + 1
        self.tally.recomputed_tokens += computed

    def _go_on(
        self, sequence: Sequence, budget: int, chunks: list[tuple[int, int]], joining: list[Sequence]
    ) -> int:
        """Compute more of a prompt; return the tokens taken, 0 where no block is free for them."""
        block = self.rules.block_tokens
        chunk = min(sequence.prompt - sequence.computed, budget)
        needed = -(-(sequence.computed + chunk) // block) + -sequence.computed // block
        if needed > self.pool.free:
            self._preempt_last(self.tick)
            return 0
        self.pool.take(needed)
        self._compute(sequence, chunk, chunks, joining)
        return chunk

    def _admit(self, budget: int, chunks: list[tuple[int, int]], joining: list[Sequence]) -> None:
        rules, waiting, running = self.rules, self.waiting, self.running
        if rules.static and not running:
            self._open = min(len(waiting), rules.max_sequences)
        while waiting and budget > 0 and len(running) < rules.max_sequences:
            if rules.static and not self._open:
                return
            chunk = self._start(waiting[0], budget)
            if not chunk:
                return
            budget -= chunk
            self._open -= 1
            sequence = waiting.popleft()
            running.append(sequence)
            self._compute(sequence, chunk, chunks, joining)

    def _start(self, sequence: Sequence, budget: int) -> int:
        """Take the blocks for the first chunk of a prompt; return its tokens, 0 where it does not fit."""
        rules, pool, block = self.rules, self.pool, self.rules.block_tokens
        names, own = self._hits(sequence)
        reused = len(names) * self._piece_blocks + own
        past = max(reused * block, min(sequence.known, sequence.prompt - 1))
        chunk = min(sequence.prompt - past, budget)
        if past + chunk < sequence.prompt and not rules.chunked_prefill and chunk < rules.token_budget:
            return 0
        idle = own + sum(pool.found(name) for name in names)
        needed = -(-(past + chunk) // block) - reused
        whole = -(-sequence.prompt // block) - reused
        if (whole if rules.reserve_full_prompt else needed) > pool.free - idle:
            return 0
        for name in names:
            pool.share(name)
        pool.reclaim(OwnBlocks(sequence.request), own)
        pool.take(needed)
        sequence.held, sequence.sharing = len(names), True
        sequence.computed = past
        self.tally.cached_tokens += past
        return chunk

    def _hits(self, sequence: Sequence) -> tuple[tuple[SharedBlocks, ...], int]:
        """Return the shared pieces and how many own blocks at a prompt's beginning need no computing."""
        if not self.rules.prefix_caching:
            return (), 0
        most = (sequence.prompt - 1) // self.rules.block_tokens
        names = sequence.names[: most // self._piece_blocks]
        count = self.pieces_found(names)
        own = self.pool.found(OwnBlocks(sequence.request)) if count == len(sequence.names) else 0
        return names[:count], min(own, most - count * self._piece_blocks)

    def _compute(
        self, sequence: Sequence, chunk: int, chunks: list[tuple[int, int]], joining: list[Sequence]
    ) -> None:
        """Put a chunk of a prompt into the step."""
        chunks.append((chunk, sequence.computed))
        sequence.computed += chunk
        if sequence.names and self.rules.prefix_caching:
            self._publish(sequence)
        if sequence.computed == sequence.prompt:
            joining.append(sequence)
            self._partial = None
        else:
            self._partial = sequence

    def _publish(self, sequence: Sequence) -> None:
        """Let others find the shared pieces that are computed, unless they can find them already."""
        whole = sequence.computed // (self._piece_blocks * self.rules.block_tokens)
        while sequence.sharing and sequence.held < min(whole, len(sequence.names)):
            name = sequence.names[sequence.held]
            if self.pool.in_use(name) or self.pool.found(name):
                sequence.sharing = False  # its own copy, that nobody needs
                return
            self.pool.share(name)
            sequence.held += 1

    def _join(self, sequence: Sequence, tick: int, batch: ServingBatch) -> None:
        """Let a sequence decode from the next step on, if it has more to generate than its first token."""
        sequence.first_tick = tick
        last = tick + sequence.output - 1
        if last == tick:
            self._end(sequence, tick, batch)
            return
        sequence.base = sequence.prompt - tick - 1
        self.composition += 1
        sequence.place = len(self._decoding)
        self._decoding.append(sequence)
        self._bases[sequence.place] = sequence.base
        self._block_due[-sequence.base % self.rules.block_tokens] += 1
        self._ends.setdefault(last, []).append(sequence)

    def _leave(self, sequence: Sequence) -> None:
        """Take a sequence out of those that decode; the last of them gets its place."""
        self.composition += 1
        place, last = sequence.place, self._decoding.pop()
        if last is not sequence:
            self._decoding[place] = last
            self._bases[place] = last.base
            last.place = place
        sequence.place = -1
        self._block_due[-sequence.base % self.rules.block_tokens] -= 1

    def _end(self, sequence: Sequence, tick: int, batch: ServingBatch) -> None:
        sequence.ending = True
        sequence.parts.append((sequence.first_tick, tick))
        batch.ending.append(sequence)

    def _release(self, sequence: Sequence, computed: int, *, keep: bool = False) -> None:
        """Free the blocks of so many tokens, the end first; with `keep`, it may find the full ones again."""
        block, shared = self.rules.block_tokens, sequence.held * self._piece_blocks
        private = -(-computed // block) - shared
        full = computed // block - shared if keep else 0
        self.pool.give(private - full)
        self.pool.give(full, OwnBlocks(sequence.request))
        for name in reversed(sequence.names[: sequence.held]):
            self.pool.unshare(name, self._piece_blocks)
        sequence.held = 0
