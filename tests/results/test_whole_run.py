"""Goodput under failures: the closed form against runs that are simulated, limits, and the best interval."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.results.whole_run import Stops, WholeRun, best_interval

SHARES = st.floats(1e-5, 2.0)


def simulated(stops: Stops, segments: int, seed: int) -> dict[str, float]:
    """Return how the seconds of a run of so many segments are spent, failures drawn one by one."""
    rng, spent = np.random.default_rng(seed), dict.fromkeys(("good", "checkpoints", "restarts", "again"), 0.0)
    left = rng.exponential(stops.mtbf_s)
    for _ in range(segments):
        while left < stops.every_s + stops.checkpoint_s:
            spent["again"] += left
            left = rng.exponential(stops.mtbf_s)
            while left < stops.restart_s:
                spent["restarts"] += left
                left = rng.exponential(stops.mtbf_s)
            spent["restarts"] += stops.restart_s
            left -= stops.restart_s
        left -= stops.every_s + stops.checkpoint_s
        spent["good"] += stops.every_s
        spent["checkpoints"] += stops.checkpoint_s
    return spent


@pytest.mark.parametrize(
    "stops",
    [Stops(100, 2, 5, 20), Stops(100, 30, 80, 60), Stops(1000, 1, 300, 40), Stops(50, 5, 1, 150)],
    ids=str,
)
def test_time_is_spent_as_in_a_simulated_run(stops: Stops) -> None:
    spent = simulated(stops, 40_000, 5)
    whole = sum(spent.values())
    shares = {"good": stops.goodput, "checkpoints": stops.checkpoints}
    shares |= {"restarts": stops.restarts, "again": stops.again}
    assert {k: v / whole for k, v in spent.items()} == pytest.approx(shares, abs=0.006)
    assert sum(shares.values()) == pytest.approx(1)


@given(SHARES, SHARES, SHARES)
def test_a_stop_never_helps(checkpoint: float, restart: float, every: float) -> None:
    stops = Stops(1.0, checkpoint, restart, every)
    assert stops.slowdown > 1 + checkpoint / every
    assert replace(stops, mtbf_s=2.0).slowdown < stops.slowdown
    assert replace(stops, restart_s=2 * restart).slowdown > stops.slowdown
    rare = replace(stops, mtbf_s=1e9)
    assert rare.slowdown == pytest.approx(1 + checkpoint / every, rel=1e-6)


@given(SHARES, st.floats(1.0, 1e7))
def test_no_other_interval_is_better(share: float, mtbf: float) -> None:
    best = best_interval(share * mtbf, mtbf)
    here = Stops(mtbf, share * mtbf, 0.0, best).slowdown
    assert 0 < best < mtbf
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert Stops(mtbf, share * mtbf, 0.0, factor * best).slowdown > here


def test_for_rare_failures_it_is_youngs() -> None:
    assert best_interval(1.0, 1e9) == pytest.approx(math.sqrt(2e9), rel=1e-4)


def test_a_run_takes_its_steps_and_what_failures_add() -> None:
    stops = Stops(100, 2, 5, 20)
    run = WholeRun(1000, 0.5, 8, stops)
    assert WholeRun(1000, 0.5, 8).seconds == 500 and WholeRun(1000, 0.5, 8).failures == 0
    assert run.seconds == pytest.approx(500 / stops.goodput) and run.failures == run.seconds / 100


def test_a_job_that_never_comes_through_has_no_goodput() -> None:
    assert Stops(1.0, 1e5, 1.0, 1.0).goodput < 1e-300
