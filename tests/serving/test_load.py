"""Requests as they are held: what cannot be is refused, and a rate changes the rhythm's speed alone."""

from __future__ import annotations

import numpy as np
import pytest

from mtia_emu.errors import UserError

from .flat import load


@pytest.mark.parametrize(
    ("requests", "text"),
    [
        ([(1.0, 5, 5), (0.5, 5, 5)], "request 2 arrives at 0.5 s, before request 1 at 1.0 s"),
        ([(0.0, 0, 5)], "request 1 has 0 input tokens"),
        ([(0.0, 5, 0)], "request 1 has 0 output tokens"),
        ([(0.0, 5, 1 << 25)], "request 1 has 33554432 output tokens"),
        ([(float("nan"), 5, 5)], "request 1 arrives at nan s"),
        ([(-1.0, 5, 5)], "request 1 arrives at -1.0 s"),
    ],
)
def test_what_cannot_be_is_refused(requests: list[tuple[float, int, int]], text: str) -> None:
    with pytest.raises(UserError, match=text):
        load(*requests)


def test_a_closed_loop_of_nobody_is_refused() -> None:
    with pytest.raises(UserError, match="0 requests open at once"):
        load((0.0, 1, 1), concurrency=0)


def test_a_rate_changes_the_rhythms_speed_alone() -> None:
    slow = load((1.0, 5, 5), (2.0, 5, 5), (5.0, 5, 5))
    assert slow.rate_per_s == 0.5
    fast = slow.at_rate(2.0)
    assert fast.rate_per_s == pytest.approx(2.0)
    assert np.allclose(fast.arrival_s, [0, 0.25, 1.0])


def test_a_rate_of_requests_at_once_is_refused() -> None:
    with pytest.raises(UserError, match="arrive at once"):
        load((1.0, 5, 5), (1.0, 5, 5)).at_rate(2.0)
    with pytest.raises(UserError, match="right is more than 0"):
        load((1.0, 5, 5), (2.0, 5, 5)).at_rate(float("nan"))


def test_the_first_ones_keep_all_that_is_known_of_them() -> None:
    all_of_them = load((0.0, 5, 1), (1.0, 6, 2), prefixes=((1,), (2,)), known_tokens=np.array([3, 4]))
    first = all_of_them.first(1)
    assert len(first) == 1 and first.prefixes == ((1,),) and first.known_tokens.tolist() == [3]
