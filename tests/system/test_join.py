"""Launches and exchanges in one time, and pipelines of stages: worked out by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.results.spans import Track
from mtia_emu.system.join import PICOSECONDS, ChipJob, joined, length, pipelined, waiting

CHIP, LINKS = Track("chip", 1e9), Track("links", PICOSECONDS)
NOTHING = Fraction(0)


def test_an_exchange_runs_beside_what_does_not_wait_for_it() -> None:
    jobs = [
        ChipJob(100, setup=10),
        ChipJob(seconds=50e-9, after=(0,)),
        ChipJob(30, setup=10),
        ChipJob(20, after=(1,)),
    ]
    first, exchange, beside, last = joined(jobs, CHIP, LINKS)
    assert (first.start, first.begin, first.end) == (0, 10, 110)
    assert (exchange.start_s, exchange.end_s) == (110e-9, 160e-9)
    assert (beside.start, beside.end) == (110, 150), "40 of the 50 ns are hidden"
    assert (last.start, last.end) == (160, 180), "and 10 are exposed"
    assert length([first, exchange, beside, last]) == Fraction(180, 10**9)


def test_exchanges_wait_for_one_another() -> None:
    spans = joined([ChipJob(seconds=1e-9), ChipJob(seconds=2e-9)], CHIP, LINKS)
    assert [x.end for x in spans] == [1000, 3000]


def test_the_bubble_of_a_pipeline_falls_out() -> None:
    lengths, sends = [Fraction(1)] * 4, [NOTHING] * 4
    took = max(t.sent for t in pipelined(lengths, sends, 8))
    assert took == 8 + 3, "(m + p - 1) turns of p even stages"


def test_what_is_sent_delays_the_next_stage_alone() -> None:
    turns = pipelined([Fraction(2), Fraction(3)], [Fraction(1), NOTHING], 2)
    when = [(t.stage, t.batch, t.start, t.end, t.sent) for t in turns]
    assert when == [(0, 0, 0, 2, 3), (1, 0, 3, 6, 6), (0, 1, 2, 4, 5), (1, 1, 6, 9, 9)]


@pytest.mark.parametrize("chunks", [1, 2, 4])
@pytest.mark.parametrize(("chips", "groups"), [(2, 1), (4, 2), (8, 3)])
def test_the_bubble_of_interleaved_stages_is_the_published_one(chips: int, chunks: int, groups: int) -> None:
    """(p - 1)/(m v) of the work of a chip: Narayanan et al., SC 2021, section 2.2.2."""
    batches, each = chips * groups, Fraction(1, chunks)
    stages = chips * chunks
    turns = pipelined([each] * stages, [NOTHING] * stages, batches, chunks)
    work = batches * chunks * each
    assert max(t.sent for t in turns) - work == work * Fraction(chips - 1, batches * chunks)


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 7),
    st.lists(st.integers(1, 5).map(Fraction), min_size=9, max_size=9),
)
def test_interleaved_stages_wait_for_what_they_need(
    chips: int, chunks: int, batches: int, some: list[Fraction]
) -> None:
    """A chip does one thing at a time, a micro-batch passes the stages in order, and all are done."""
    stages = chips * chunks
    turns = pipelined(some[:stages], [Fraction(1, 2)] * stages, batches, chunks)
    assert len({(t.stage, t.batch) for t in turns}) == len(turns) == stages * batches
    done = {(t.stage, t.batch): t.sent for t in turns}
    assert all(t.start >= done.get((t.stage - 1, t.batch), 0) for t in turns)
    for chip in range(chips):
        own = sorted((t.start, t.end) for t in turns if t.stage % chips == chip)
        assert all(a[1] <= b[0] for a, b in pairwise(own))


def test_micro_batches_wait_where_a_stage_is_slow() -> None:
    turns = pipelined([Fraction(1), Fraction(3)], [NOTHING] * 2, 4)
    assert [waiting(turns, s) for s in (0, 1)] == [1, 3], "of four, one is done when the last arrives"
    turns = pipelined([Fraction(1)] * 4, [NOTHING] * 4, 4, 2)
    assert waiting(turns, 2) == 1, "even stages take each as it comes"


TIMES = st.lists(st.integers(1, 9).map(Fraction), min_size=1, max_size=5)


@given(TIMES, st.integers(1, 6))
def test_a_pipeline_is_never_faster_than_its_slowest_stage(lengths: list[Fraction], batches: int) -> None:
    took = max(t.sent for t in pipelined(lengths, [NOTHING] * len(lengths), batches))
    assert took == sum(lengths) + (batches - 1) * max(lengths), "the closed form of a flow shop of equal jobs"


def test_a_chip_sends_one_micro_batch_at_a_time() -> None:
    turns = pipelined([Fraction(1), Fraction(1)], [Fraction(5), Fraction(0)], 2)
    assert [t.sent for t in turns if t.stage == 0] == [6, 11], "the second waits on the line, not on the chip"
    assert [t.start for t in turns if t.stage == 1] == [6, 11]
