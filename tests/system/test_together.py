"""Groups of ranks that exchange at once: closed forms where they share a link, and laws."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.system.collectives import Collective, timed
from mtia_emu.system.listing import bisection_bytes_per_s
from mtia_emu.system.load import load_system
from mtia_emu.system.together import timed_together
from mtia_emu.system.topology import System

THIN = 2e9  # bytes a second of the link between the two islands


@cache
def islands() -> System:
    return load_system(str(Path(__file__).parent / "two_islands.toml"))


def across(kind: str, size: float, groups: int) -> list[Collective]:
    """Return groups of two ranks, one on each island."""
    return [Collective(kind, size, (i, i + 4)) for i in range(groups)]


@pytest.mark.parametrize("groups", [1, 2, 3, 4])
@pytest.mark.parametrize(("kind", "share"), [("send", 1), ("all_gather", 0.5), ("all_to_all", 0.5)])
def test_groups_share_a_thin_link(kind: str, share: float, groups: int) -> None:
    """Alone a message crosses at the link's rate, together each group has its part of it."""
    size = 1e8
    one = timed(islands(), Collective(kind, size, (0, 4)))
    found = timed_together(islands(), across(kind, size, groups))
    assert one.seconds == pytest.approx(one.fixed_s + share * size / THIN)
    assert found.seconds == pytest.approx(one.fixed_s + groups * share * size / THIN)
    assert found.bus_bytes_per_s * found.seconds == pytest.approx(one.bus_bytes_per_s * one.seconds)


def test_a_group_that_ends_leaves_its_share_to_the_other() -> None:
    groups = [Collective("send", 1e8, (0, 4)), Collective("send", 2e8, (1, 5))]
    alone = timed(islands(), groups[1])
    assert timed_together(islands(), groups).seconds == pytest.approx(alone.fixed_s + 3e8 / THIN)


def test_groups_that_meet_on_no_link_take_what_each_takes() -> None:
    left, right = (Collective("all_reduce", 1e7, tuple(range(i, i + 4))) for i in (0, 4))
    assert timed_together(islands(), [left, right]) == timed(islands(), left)


def test_all_pairs_of_a_server_are_held_by_what_lies_between_its_halves() -> None:
    server = load_system("mtia-2i-server")
    pairs, size = [Collective("send", 1e8, (i, i + 12)) for i in range(12)], 1e8
    least = 12 * size / bisection_bytes_per_s(server)
    assert timed(server, pairs[0]).seconds < least < timed_together(server, pairs).seconds < 1.3 * least


KINDS = st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])


@given(st.permutations(range(8)), st.sampled_from([2, 4]), KINDS, st.integers(0, 10**8).map(float))
def test_together_is_slower_than_alone_and_not_than_in_turn(
    ranks: list[int], each: int, kind: str, size: float
) -> None:
    groups = [Collective(kind, size, tuple(ranks[i : i + each])) for i in range(0, 8, each)]
    alone = [timed(islands(), group).seconds for group in groups]
    found = timed_together(islands(), groups).seconds
    assert max(alone) <= found <= sum(alone) * (1 + 1e-9)
    more = timed_together(islands(), [Collective(kind, 2 * size, g.ranks) for g in groups])
    assert found <= more.seconds * (1 + 1e-9)
