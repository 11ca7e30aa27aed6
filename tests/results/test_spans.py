"""Launches in time: hand-worked chains and graphs over several tracks; time divided where spans overlap."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.results.spans import Span, Task, Track, chain, laid_out, own_ticks

CHIP, OTHER = Track("chip 0", 1e9), Track("chip 1", 1e9)
LINK = Track("link", 0.25e9)  # four ticks of a chip are one of its own


def times(spans: tuple[Span, ...]) -> list[tuple[int, int, int]]:
    return [(x.start, x.begin, x.end) for x in spans]


def test_a_chain_runs_one_after_another() -> None:
    assert chain(3) == [(), (0,), (1,)] and chain(0) == []
    tasks = [
        Task(CHIP, i, 5, ticks, after)
        for i, (ticks, after) in enumerate(zip((7, 0, 2), chain(3), strict=True))
    ]
    assert times(laid_out(tasks)) == [(0, 5, 12), (12, 17, 17), (17, 22, 24)]


def test_tracks_run_at_the_same_time_but_wait_for_each_other() -> None:
    tasks = [
        Task(CHIP, 0, 1, 9),
        Task(OTHER, 0, 1, 4),  # beside it
        Task(OTHER, 1, 1, 2),  # its track is free at 5
        Task(LINK, 0, 0, 3, (0, 1)),  # from 10 ns on: its third tick begins at 12 ns, it ends at 24 ns
        Task(OTHER, 2, 1, 1, (3,)),
    ]
    spans = laid_out(tasks)
    assert times(spans) == [(0, 1, 10), (0, 1, 5), (5, 6, 8), (3, 3, 6), (24, 25, 26)]
    assert spans[3].start_s == pytest.approx(12e-9) and spans[3].end_s == pytest.approx(24e-9)
    assert spans[4].after == (3,)


def test_clocks_that_do_not_divide_each_other_are_compared_exactly() -> None:
    third = Track("third", 3e9)
    _, after = laid_out([Task(third, 0, 0, 3 * 10**15 + 1), Task(CHIP, 0, 0, 1, (0,))])
    assert after.start == 10**15 + 1  # a float would have rounded the third of a tick away


@pytest.mark.parametrize("after", [(1,), (2,), (-1,)])
def test_a_task_waits_for_those_before_it_alone(after: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"task 1 waits for .* \(right: numbers from 0 below 1\)"):
        laid_out([Task(CHIP, 0, 0, 1), Task(CHIP, 1, 0, 1, after)])


@st.composite
def task_graphs(draw: st.DrawFn) -> list[Task]:
    tasks = []
    for number in range(draw(st.integers(0, 12))):
        after = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        track = draw(st.sampled_from((CHIP, OTHER, LINK)))
        tasks.append(Task(track, number, *draw(st.tuples(*[st.integers(0, 50)] * 2)), tuple(sorted(after))))
    return tasks


@given(task_graphs())
def test_nothing_starts_early_nothing_overlaps_and_nothing_is_late(tasks: list[Task]) -> None:
    spans = laid_out(tasks)
    for number, span in enumerate(spans):
        seconds = span.track.exact_seconds
        waited = [spans[i].track.exact_seconds(spans[i].end) for i in span.after]
        before = [x.end for x in spans[:number] if x.track == span.track]
        assert all(seconds(span.start) >= end for end in waited) and span.start >= max(before, default=0)
        if span.start > max(before, default=0):
            assert seconds(span.start - 1) < max(waited)
    for track in (CHIP, OTHER, LINK):
        mine = [x for x in spans if x.track == track]
        assert all(a.end <= b.start for a, b in pairwise(mine))


@pytest.mark.parametrize(
    ("intervals", "own"),
    [
        ([], []),
        ([(0, 10)], [10]),
        ([(0, 10), (10, 15)], [10, 5]),
        ([(0, 10), (4, 8)], [8, 2]),
        ([(0, 10), (0, 10), (0, 10)], [10 / 3] * 3),
        ([(5, 5), (0, 10)], [0, 10]),
        ([(8, 12), (0, 10)], [3, 9]),
        ([(4, 2)], [0]),
    ],
)
def test_time_is_divided_among_those_that_overlap(intervals: list[tuple[int, int]], own: list[float]) -> None:
    assert own_ticks([a for a, _ in intervals], [b for _, b in intervals]) == pytest.approx(own)
