"""The bank-level controller: every gap at its edge, and every command of random traffic against the rules."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtia_emu.machine.drams import load_dram
from mtia_emu.machine.units.dram_controller import (
    ACTIVATE,
    BANK,
    CHANNEL,
    GROUP,
    PRECHARGE,
    READ,
    WRITE,
    Served,
    TimingRules,
    serve,
)

QUIET = load_dram("lpddr5-6400", refresh="none").rules()
DUE = 400  # cycles from refresh to refresh in the tests that have one


def ask(rules: TimingRules, *requests: tuple[int, int, int], **more: Any) -> Served:
    """Serve requests (bank, row, write)."""
    bank, row, write = np.array(requests).T
    return serve(rules, bank, row, write.astype(bool), **more)


def with_gap(scope: int, before: int, after: int, cycles: int, rules: TimingRules = QUIET) -> TimingRules:
    """Return rules with one gap changed."""
    gap = rules.gap.copy()
    gap[scope, before, after] = cycles
    return replace(rules, gap=gap)


# banks 0 to 3 are of group 0, 4 to 7 of group 1; a case names the request whose time the gap decides
EDGES = [
    (BANK, ACTIVATE, READ, [(0, 1, 0)], 0),
    (BANK, ACTIVATE, WRITE, [(0, 1, 1)], 0),
    (BANK, ACTIVATE, PRECHARGE, [(0, 1, 0), (0, 2, 0)], 1),
    (BANK, ACTIVATE, ACTIVATE, [(0, 1, 0), (0, 2, 0)], 1),
    (BANK, PRECHARGE, ACTIVATE, [(0, 1, 0), (0, 2, 0)], 1),
    (BANK, READ, PRECHARGE, [(0, 1, 0), (0, 2, 0)], 1),
    (BANK, WRITE, PRECHARGE, [(0, 1, 1), (0, 2, 0)], 1),
    (GROUP, ACTIVATE, ACTIVATE, [(0, 1, 0), (1, 1, 0)], 1),
    (GROUP, READ, READ, [(0, 1, 0), (0, 1, 0)], 1),
    (GROUP, WRITE, WRITE, [(0, 1, 1), (0, 1, 1)], 1),
    (GROUP, WRITE, READ, [(0, 1, 1), (0, 1, 0)], 1),
    (CHANNEL, ACTIVATE, ACTIVATE, [(0, 1, 0), (4, 1, 0)], 1),
    (CHANNEL, READ, READ, [(0, 1, 0), (4, 1, 0)], 1),
    (CHANNEL, WRITE, WRITE, [(0, 1, 1), (4, 1, 1)], 1),
    (CHANNEL, WRITE, READ, [(0, 1, 1), (4, 1, 0)], 1),
    (CHANNEL, READ, WRITE, [(0, 1, 0), (0, 1, 1)], 1),
]


@pytest.mark.parametrize(("scope", "before", "after", "requests", "late"), EDGES)
def test_a_command_waits_for_its_gap_and_no_longer(
    scope: int, before: int, after: int, requests: list[tuple[int, int, int]], late: int
) -> None:
    """The gap is so long that it decides: nothing a cycle before it has passed, the command when it has."""
    long = with_gap(scope, before, after, 500)
    at = int(ask(long, *requests).issue[late])
    assert at >= 500
    assert ask(with_gap(scope, before, after, 501), *requests).issue[late] == at + 1
    assert ask(long, *requests, horizon=at).issue[late] == -1
    assert ask(long, *requests, horizon=at + 1).issue[late] == at


def test_a_fifth_activate_waits_for_the_window_of_four() -> None:
    requests = [(bank, 1, 0) for bank in (0, 4, 8, 12, 1)]
    for window in (300, 301):
        log = ask(replace(QUIET, four_activates=window), *requests, logged=99).log
        times = log[log[:, 2] == ACTIVATE, 0]
        assert times[4] - times[0] == window and times[3] < window


def test_a_lone_read_takes_what_the_data_sheet_says() -> None:
    assert list(ask(QUIET, (0, 1, 0)).issue) == [15]  # nRCD
    assert list(ask(QUIET, (0, 1, 0), arrival=[100]).issue) == [115]


def test_hits_misses_and_conflicts_are_told_apart() -> None:
    served = ask(QUIET, (0, 1, 0), (0, 1, 0), (0, 2, 0), (4, 1, 1))
    assert list(served.outcome) == [1, 0, 2, 1]
    assert (served.hits, served.misses, served.conflicts, served.activates) == (1, 2, 1, 3)


def test_a_row_stays_open_while_a_request_hits_it() -> None:
    served = ask(QUIET, (0, 1, 0), (0, 2, 0), (0, 1, 0))
    assert served.issue[2] < served.issue[1] and served.activates == 2


def test_a_request_beyond_the_queue_is_not_seen() -> None:
    served = ask(replace(QUIET, queue=2), (0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 2, 0))
    assert list(np.argsort(served.issue)) == [0, 1, 3, 2]  # seen once two are served: it hits the row
    alone = ask(replace(QUIET, queue=1), (0, 1, 0), (0, 2, 0), (0, 1, 0))
    assert list(np.argsort(alone.issue)) == [0, 1, 2] and alone.activates == 3


def test_a_refresh_closes_its_banks_for_its_time() -> None:
    for sets, bank, waits in ((1, 0, True), (8, 0, True), (8, 8, True), (8, 1, False)):
        rules = replace(QUIET, refresh_every=DUE, refresh=100, refresh_sets=sets)
        served = ask(rules, (bank, 1, 0), (bank, 1, 0), arrival=[0, DUE])
        after = 100 + QUIET.gap[BANK, PRECHARGE, ACTIVATE] + QUIET.gap[BANK, ACTIVATE, READ]
        assert served.refreshes == 1
        assert served.issue[1] == (DUE + after if waits else DUE)


def broken(rules: TimingRules, log: np.ndarray) -> list[str]:
    """Return every rule that a log of commands breaks, by comparing every pair: slow and plain."""
    faults = []
    for i, (then, bank, command) in enumerate(log):
        for now, other, later in log[i + 1 :]:
            same = (other == bank, rules.group[other] == rules.group[bank], True)
            for scope, applies in enumerate(same):
                if applies and now - then < rules.gap[scope, command, later]:
                    faults.append(f"{(then, bank, command)} {(now, other, later)} scope {scope}")
    activates = log[log[:, 2] == ACTIVATE, 0]
    faults += [
        f"five activates from {t}"
        for t in activates[(activates[4:] - activates[:-4] < rules.four_activates).nonzero()]
    ]
    return faults


def served_from_open_rows(log: np.ndarray) -> bool:
    """Return whether each bank was activated before data moved, and closed before it was activated again."""
    for bank in np.unique(log[:, 1]):
        commands = list(log[log[:, 1] == bank, 2])
        if commands[0] != ACTIVATE:
            return False
        for before, after in pairwise(commands):
            if (after == ACTIVATE) != (before == PRECHARGE):
                return False
    return True


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["lpddr5-6400", "hbm3-6400", "ddr5-4800"]))
def test_no_traffic_makes_it_break_a_rule(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    base = load_dram(name, refresh="none").rules()
    gap = np.where(base.gap > 0, rng.integers(1, 60, base.gap.shape), base.gap)
    rules = replace(base, gap=gap, four_activates=int(rng.integers(1, 80)), queue=int(rng.integers(1, 32)))
    n = 60
    bank, row = rng.integers(0, rng.integers(1, 17), n), rng.integers(0, 3, n)
    arrival = np.sort(rng.integers(0, int(rng.integers(1, 2000)), n))
    served = serve(rules, bank, row, rng.random(n) < rng.random(), arrival, logged=10 * n)
    assert (served.issue >= arrival).all()
    assert served.hits + served.misses + served.conflicts == n
    assert len(np.unique(served.issue)) == n
    assert broken(rules, served.log) == []
    assert served_from_open_rows(served.log)
    assert served.activates == (served.log[:, 2] == ACTIVATE).sum() == served.misses + served.conflicts
