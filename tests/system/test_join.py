"""Launches and exchanges in one time, and pipelines of stages: worked out by hand."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.results.spans import Track
from mtia_emu.system.join import PICOSECONDS, ChipJob, joined, length, pipelined

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


TIMES = st.lists(st.integers(1, 9).map(Fraction), min_size=1, max_size=5)


@given(TIMES, st.integers(1, 6))
def test_a_pipeline_is_never_faster_than_its_slowest_stage(lengths: list[Fraction], batches: int) -> None:
    took = max(t.sent for t in pipelined(lengths, [NOTHING] * len(lengths), batches))
    assert took == sum(lengths) + (batches - 1) * max(lengths), "the closed form of a flow shop of equal jobs"
