"""The rules by which a serving engine fills its steps: those of vLLM's first-come-first-served scheduler.

They are stated here once; `scheduler.py` carries them out.

1. A step has a budget of `token_budget` tokens: a sequence that decodes takes one, a prompt as many as its
   chunk has.
2. Sequences that run go first, in the order of admission. Each that decodes gets its token; a prompt that
   is not all computed gets a chunk of what is left of the budget.
3. A sequence needs a block for each `block_tokens` tokens of its context, from a pool of fixed size. Where
   none is free, the sequence admitted last is preempted: its blocks are freed, and it goes back to the head
   of the queue, to compute its prompt and all that it has generated again (preemption by recomputation).
4. Then, if nobody was preempted, waiting requests are admitted in the order of arrival, while budget is
   left, fewer than `max_sequences` run and the blocks of the chunk are free (of the whole prompt, with
   `reserve_full_prompt`). The first that does not fit ends it: nobody overtakes.
5. With `chunked_prefill`, the last prompt admitted is cut to what is left of the budget; without, a prompt
   waits for a step that has room for all of it.
6. With `prefix_caching`, full blocks whose tokens were seen before are not computed again, but for the last
   token of a prompt. Freed blocks keep their content until they are taken, the longest free one first and
   the end of a sequence before its beginning. So a preempted sequence may find part of its own blocks
   again.
7. With `ahead`, a step is put together while the one before it still runs: who arrives during a step runs
   in the one after the next, and blocks and places of who ends are free one step later. Between two steps
   the device waits `gap_s` for the host.
8. With `static`, none is admitted until all that run have ended; then as many as wait are, up to
   `max_sequences`.

Source: vLLM 0.19, `v1/core/sched/scheduler.py` (rules 1 to 5), `v1/core/block_pool.py` (rule 6) and
`v1/engine/core.py`, `step_with_batch_queue` with asynchronous scheduling, its default (rule 7). Left out:
priorities, adapters, and swapping to the host's memory.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import UserError

LARGEST = 1 << 24  # of a number of tokens or sequences
GAP_S = 160e-6  # between decodes of 256 sequences, measured: 150 to 170 us (vLLM pull request 11133)
NOT_AHEAD_GAP_S = 5.5e-3  # where steps are not put together ahead: 5 to 6 ms (the same)


@dataclass(frozen=True)
class EngineRules:
    """What an engine is told: sizes in tokens and sequences, times in seconds. Defaults are vLLM's."""

    token_budget: int = 2048
    max_sequences: int = 256
    block_tokens: int = 16
    chunked_prefill: bool = True
    prefix_caching: bool = True
    reserve_full_prompt: bool = False  # vLLM's `scheduler_reserve_full_isl`, on in later releases
    ahead: bool = True
    static: bool = False
    gap_s: float | None = None  # as measured, where it is not given

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and not 1 <= value <= LARGEST:
                raise UserError(f"{field.name} is {value}; right is a number from 1 to {LARGEST}")
        if not 0 <= self.idle_gap_s < 60:  # not a number, too
            raise UserError(f"gap_s is {self.gap_s}; right is a time from 0 to 60 s")
        if self.token_budget < self.max_sequences:
            raise UserError(
                f"a step has a budget of {self.token_budget} tokens but may decode {self.max_sequences} "
                "sequences, a token each; right is a budget that is no smaller"
            )

    @property
    def idle_gap_s(self) -> float:
        """Seconds for which the device waits for the host between two steps."""
        return self.gap_s if self.gap_s is not None else GAP_S if self.ahead else NOT_AHEAD_GAP_S

    @property
    def depth(self) -> int:
        """Steps that are put together or run at once."""
        return 2 if self.ahead else 1
