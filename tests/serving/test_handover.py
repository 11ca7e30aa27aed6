"""Caches on their way: over links of their own, and over links that they share."""

from __future__ import annotations

import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.handover import CachePath, Handover
from mtia_emu.serving.simulate import Service, simulate

from .flat import SYNCHRONOUS, FlatTable, load

SHARED, FIRST, SECOND = 7, 0, 1


def served(handover: Handover, engines: int = 1) -> list[float]:
    """Return how long the caches of two prompts of 4 tokens of 16 bytes take, sent at the same time."""
    service = Service(FlatTable(), SYNCHRONOUS, engines=engines, blocks=100, handover=handover)  # type: ignore[arg-type]
    log = simulate(service, load((0.0, 4, 3), (0.0, 4, 3)))
    assert log.first_token_s.tolist() == [1.0, 1.0] and log.transfer_s is not None
    return sorted(log.transfer_s.tolist())


def test_paths_that_share_a_link_carry_one_cache_after_another() -> None:
    apart = Handover.over(((CachePath(1.0, 64.0, (FIRST,)),), (CachePath(1.0, 64.0, (SECOND,)),)))
    shared = Handover.over(
        ((CachePath(1.0, 64.0, (FIRST, SHARED)),), (CachePath(1.0, 64.0, (SECOND, SHARED)),))
    )
    assert served(apart) == [2.0, 2.0] and served(shared) == [2.0, 4.0]


def test_the_path_is_that_to_the_engine_it_goes_to() -> None:
    """The second cache goes to the other engine, the first one being on its way; its path is the slower."""
    one = Handover.over(((CachePath(0.0, 64.0, (FIRST,)), CachePath(0.0, 16.0, (SECOND,))),))
    assert served(one, engines=2) == [1.0, 4.0]
    assert (one.bytes_per_s, one.latency_s) == (16.0, 0.0)


def test_without_paths_an_engine_has_a_link_of_its_own() -> None:
    assert served(Handover(2, 64.0, 1.0)) == [2.0, 2.0] and served(Handover(1, 64.0, 1.0)) == [2.0, 4.0]


def test_paths_to_other_engines_are_refused() -> None:
    with pytest.raises(UserError, match="paths lead to 1 engines; right is to all 2"):
        served(Handover.over(((CachePath(0.0, 64.0, (FIRST,)),),)), engines=2)
