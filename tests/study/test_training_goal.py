"""A whole training: how many steps, how often its machine fails, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import mtia_emu
from mtia_emu.errors import UserError
from mtia_emu.results.training import Training
from mtia_emu.results.whole_run import best_interval
from mtia_emu.study.training_goal import Failures, Goal, failures


def trained(**more: Any) -> Training:
    return mtia_emu.train("zoo:dlrm-small", "tiny", loss="bce", dims={"batch": 4}, gpu=None, **more)


@pytest.fixture(scope="module")
def step() -> Training:
    return trained()


def test_what_was_not_asked_is_not_answered(step: Training) -> None:
    assert step.whole is None


def test_steps_are_whole(step: Training) -> None:
    whole = Goal(until=4 * 10 + 1).of(step)
    assert whole is not None and whole.steps == 11 and whole.stops is None
    assert whole.seconds == pytest.approx(11 * step.report.seconds)


def test_what_is_not_said_of_failures_follows_from_the_run(step: Training) -> None:
    whole = Goal(failures="chips=64,mtbf_h=1000").of(step)
    assert whole is not None and whole.stops is not None and whole.steps == 0 and whole.chips == 64
    stops, held = whole.stops, step.memory.weights + step.memory.optimizer
    assert stops.mtbf_s == pytest.approx(1000 * 3600 / 64)
    assert stops.checkpoint_s == pytest.approx(held / (2e12 / 16384))
    assert stops.every_s == best_interval(stops.checkpoint_s, stops.mtbf_s) and stops.restart_s == 600


def test_the_default_is_what_was_published() -> None:
    job_h = failures("default").mtbf_h / 16384
    assert job_h * 419 == pytest.approx(54 * 24), "419 interruptions in 54 days"


def test_chips_of_a_system_fail_together() -> None:
    spread = {"system": "tiny-board", "parallel": "dp=2"}
    whole = trained(**spread, failures="restart_s=5,checkpoint_s=2,every_s=7").whole
    assert whole is not None and whole.chips == 2 and whole.stops is not None
    found = whole.stops
    assert (found.restart_s, found.checkpoint_s, found.every_s) == (5, 2, 7)
    assert found.mtbf_s == Failures().mtbf_h * 3600 / 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"failures": "mtbf=3"}, "did you mean 'mtbf_h'"),
        ({"failures": ""}, "unknown option of --failures ''"),
        ({"failures": "every_s=0"}, "every_s='0' .right: a number above 0"),
        ({"failures": "restart_s=-1"}, "restart_s='-1' .right: a number above 0"),
        ({"failures": "mtbf_h=inf"}, "mtbf_h='inf'"),
        ({"failures": "chips=1.5"}, "a whole number above 0"),
        ({"failures": "chips=2,chips=3"}, "gives chips twice"),
        ({"until": -1.0}, "--until -1.0"),
        ({"until": 0.0}, "--until 0.0"),
        ({"until": 1e300}, "--until 1e.300"),
        ({"until": float("nan")}, "--until nan"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_built(words: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        Goal(**words)


def test_nothing_is_lost_to_a_start_that_takes_no_time(step: Training) -> None:
    whole = Goal(failures="chips=64,restart_s=0").of(step)
    assert whole is not None and whole.stops is not None and whole.stops.restarts == 0


@pytest.mark.parametrize(
    "failing", ["chips=1e12", "chips=16384,every_s=1e12", "checkpoint_s=1e-3,every_s=1e-12"]
)
def test_a_training_that_does_not_end_is_refused(step: Training, failing: str) -> None:
    with pytest.raises(UserError, match=r"such a training does not end \(right: fewer chips"):
        Goal(1e12, failing).of(step)
