"""The rules of a step, each in an example small enough to work out by hand."""

from __future__ import annotations

from dataclasses import replace

from mtia_emu.serving.blocks import SharedBlocks
from mtia_emu.serving.rules import EngineRules
from mtia_emu.serving.scheduler import Scheduler, Sequence, ServingBatch

RULES = EngineRules(token_budget=8, max_sequences=4, block_tokens=2, ahead=False)


def scheduler(*sequences: Sequence, blocks: int = 100, rules: EngineRules = RULES) -> Scheduler:
    made = Scheduler(rules, blocks, piece_tokens=4)
    made.waiting.extend(sequences)
    return made


def step(made: Scheduler) -> ServingBatch:
    batch = made.schedule()
    assert batch is not None
    made.finish(batch)
    return batch


def test_prompts_share_the_budget_and_the_last_one_is_cut() -> None:
    made = scheduler(Sequence(0, 5, 3), Sequence(1, 6, 1), Sequence(2, 1, 1))
    first = step(made)
    assert first.chunks == [(5, 0), (3, 0)] and [s.request for s in first.joining] == [0]
    second = step(made)  # 0 decodes; 1 goes on before 2 is admitted
    assert second.contexts.tolist() == [6] and second.chunks == [(3, 3), (1, 0)]
    assert second.tokens_out == 3 and second.tokens_in == 4


def test_without_chunks_a_prompt_waits_for_room() -> None:
    made = scheduler(Sequence(0, 5, 3), Sequence(1, 6, 1), rules=replace(RULES, chunked_prefill=False))
    assert step(made).chunks == [(5, 0)]
    assert step(made).chunks == [(6, 0)]


def test_no_more_run_than_may() -> None:
    made = scheduler(*(Sequence(n, 1, 2) for n in range(6)))
    assert len(step(made).chunks) == 4
    assert step(made).waiting == 2
    assert step(made).chunks == [(1, 0), (1, 0)]  # the others have ended


def test_nobody_overtakes_who_does_not_fit() -> None:
    made = scheduler(Sequence(0, 4, 2), Sequence(1, 8, 1), Sequence(2, 1, 1), blocks=5)
    assert step(made).chunks == [(4, 0), (4, 0)]
    made = scheduler(Sequence(0, 4, 2), Sequence(1, 8, 1), Sequence(2, 1, 1), blocks=5,
                     rules=replace(RULES, reserve_full_prompt=True))  # fmt: skip
    assert step(made).chunks == [(4, 0)]


def test_the_last_admitted_is_preempted_and_computes_all_again() -> None:
    made = scheduler(
        Sequence(0, 3, 9), Sequence(1, 3, 9), blocks=5, rules=replace(RULES, prefix_caching=False)
    )
    assert step(made).used_blocks == 4
    assert step(made).used_blocks == 4  # the second place of their second blocks
    third = step(made)  # both need a third block, and one is free
    assert third.contexts.tolist() == [5] and third.waiting == 1 and third.used_blocks == 3
    victim = made.waiting[0]
    assert (victim.request, victim.prompt, victim.output) == (1, 5, 7)
    assert made.tally.preemptions == {1: 1} and made.tally.recomputed_tokens == 4
    assert victim.parts == [(0, 1)]


def test_a_preempted_sequence_finds_its_own_blocks_again() -> None:
    made = scheduler(Sequence(0, 3, 3), Sequence(1, 3, 9), blocks=5)
    step(made), step(made)
    third = step(made)  # 1 is preempted, 0 takes a free block and ends
    assert third.waiting == 1 and [s.request for s in third.ending] == [0]
    fourth = step(made)
    assert fourth.chunks == [(1, 4)] and made.tally.cached_tokens == 4


def test_shared_pieces_are_computed_once() -> None:
    names = (SharedBlocks(1), SharedBlocks(2))
    made = scheduler(Sequence(0, 8, 3, names=names), Sequence(1, 8, 2, names=names))
    assert step(made).chunks == [(8, 0)]
    second = step(made)
    assert second.chunks == [(4, 4)]  # of two pieces found one is used: the last token must be computed
    assert second.used_blocks == 4 + 1 + 2 and made.tally.cached_tokens == 4
    step(made)
    assert made.pool.used == 0 and made.pieces_found(names) == 2
    made.waiting.append(Sequence(2, 9, 1, names=names))
    assert step(made).chunks == [(1, 8)]


def test_tokens_brought_from_elsewhere_are_not_computed() -> None:
    made = scheduler(Sequence(0, 8, 1, known=5), Sequence(1, 3, 1, known=9))
    batch = step(made)
    assert batch.chunks == [(3, 5), (1, 2)] and batch.used_blocks == 6


def test_a_static_batch_takes_nobody_in_until_all_have_ended() -> None:
    rules = replace(RULES, static=True, max_sequences=2)
    made = scheduler(Sequence(0, 2, 1), Sequence(1, 2, 3), Sequence(2, 2, 1), rules=rules)
    assert step(made).chunks == [(2, 0), (2, 0)]
    assert step(made).chunks == [] and len(made.running) == 2  # 0 has ended and keeps its place
    step(made)
    assert step(made).chunks == [(2, 0)] and [s.request for s in made.running] == [2]


def test_steps_alike_end_with_the_first_who_ends() -> None:
    made = scheduler(Sequence(0, 2, 5), Sequence(1, 2, 3))
    step(made)
    assert made.steps_alike == 2
    composition = made.composition
    step(made)
    assert made.composition == composition
    step(made)
    assert made.composition != composition


def test_nothing_to_run_is_no_step() -> None:
    assert scheduler().schedule() is None
