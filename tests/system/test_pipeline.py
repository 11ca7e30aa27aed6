"""Orders of a pipeline's passes, when they run, and how much they hold, held to closed forms."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.system.pipeline import (
    GPIPE,
    ONE_F_ONE_B,
    SCHEDULES,
    PassTurn,
    PipelinePass,
    alive,
    passes,
    timed_passes,
)

Sizes = tuple[int, int, int]


def run(
    schedule: str,
    chips: int,
    batches: int,
    chunks: int = 1,
    *,
    forward: int = 3,
    back: int = 6,
    sent: int = 0,
) -> tuple[PassTurn, ...]:
    """Return the turns of even stages."""
    orders = [passes(schedule, chip, chips, batches, chunks) for chip in range(chips)]
    return timed_passes(orders, lambda x: Fraction(back if x.back else forward), lambda x: Fraction(sent))


def sizes() -> st.SearchStrategy[Sizes]:
    """Return (chips, micro-batches, chunks): those of several chunks come in groups of chips."""
    return st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3)).map(
        lambda x: (x[0], x[0] * x[1], x[2] if x[0] > 1 else 1)
    )


@given(sizes(), st.sampled_from(SCHEDULES))
def test_every_micro_batch_passes_every_stage_once_in_either_direction(of: Sizes, schedule: str) -> None:
    chips, batches, chunks = of
    orders = [passes(schedule, chip, chips, batches, chunks) for chip in range(chips)]
    found = [x for order in orders for x in order]
    every = {
        PipelinePass(s, b, k) for s in range(chips * chunks) for b in range(batches) for k in (False, True)
    }
    assert set(found) == every and len(found) == len(every)
    for chip, order in enumerate(orders):
        for stage in range(chip, chips * chunks, chips):
            for back in (False, True):
                assert [x.batch for x in order if (x.stage, x.back) == (stage, back)] == list(range(batches))


@given(sizes(), st.sampled_from(SCHEDULES), st.integers(1, 9), st.integers(1, 9))
def test_even_stages_idle_for_the_published_share(of: Sizes, schedule: str, forward: int, back: int) -> None:
    """(p - 1) / (m v) of the work, of all schedules: Narayanan et al., 2021, sections 2.2.1 and 2.2.2."""
    chips, batches, chunks = of
    turns = run(schedule, chips, batches, chunks, forward=forward, back=back)
    work = batches * chunks * (forward + back)
    took = max(t.end for t in turns)
    assert (took - work) / work == Fraction(chips - 1, batches * chunks)


@pytest.mark.parametrize("batches", [1, 2, 4, 7])
def test_what_stages_hold_follows_from_the_schedule(batches: int) -> None:
    chips = 4
    every, few = run(GPIPE, chips, batches), run(ONE_F_ONE_B, chips, batches)
    for chip in range(chips):
        assert alive(every, [chip]) == batches
        assert alive(few, [chip]) == min(chips - chip, batches)


@pytest.mark.parametrize("chunks", [2, 3])
def test_the_first_chip_of_interleaved_stages_holds_the_published_number(chunks: int) -> None:
    """1 + (p - 1) / (p v) times as much as without: Korthikanti et al., 2022, section 4.2.3."""
    chips = 4
    turns = run(ONE_F_ONE_B, chips, 16, chunks)
    held = alive(turns, range(0, chips * chunks, chips))
    assert Fraction(held, chunks) == chips * (1 + Fraction(chips - 1, chips * chunks))


@given(sizes(), st.sampled_from(SCHEDULES), st.integers(0, 4))
def test_no_pass_runs_before_what_it_needs_is_there(of: Sizes, schedule: str, sent: int) -> None:
    chips, batches, chunks = of
    turns = run(schedule, chips, batches, chunks, sent=sent)
    at = {t.of: t for t in turns}
    last = chips * chunks - 1
    for t in turns:
        one = t.of
        if not one.back and one.stage:
            assert t.start >= at[PipelinePass(one.stage - 1, one.batch, False)].end + sent
        if one.back:
            assert t.start >= at[PipelinePass(one.stage, one.batch, False)].end
            assert one.stage == last or t.start >= at[PipelinePass(one.stage + 1, one.batch, True)].end + sent
    for chip in range(chips):
        mine = [t for t in turns if t.of.stage % chips == chip]
        assert all(a.end <= b.start for a, b in pairwise(mine)), "one at a time"


def test_a_line_carries_one_message_at_a_time() -> None:
    turns = run(GPIPE, 2, 3, forward=1, back=1, sent=5)
    there = [t.sent for t in turns if t.of.stage == 0 and not t.of.back]
    assert there == [6, 11, 16]


def test_orders_that_wait_for_one_another_are_refused() -> None:
    backwards = (PipelinePass(1, 0, True), PipelinePass(1, 0, False))
    with pytest.raises(ValueError, match="wait for one another"):
        timed_passes([passes(GPIPE, 0, 2, 1), backwards], lambda x: Fraction(1), lambda x: Fraction(0))
