"""An engine in time: when steps are put together, start and end."""

from __future__ import annotations

from dataclasses import replace

from mtia_emu.serving.replica import NEVER, Replica
from mtia_emu.serving.rules import EngineRules
from mtia_emu.serving.scheduler import Scheduler, Sequence

from .flat import SYNCHRONOUS, FlatTable


def replica(rules: EngineRules) -> Replica:
    return Replica(Scheduler(rules, 1000), FlatTable())  # type: ignore[arg-type]


def ends(rules: EngineRules, *arrivals: float) -> list[tuple[float, float, list[int]]]:
    """Return start, end and who joined of each step, where requests of one token arrive."""
    made, found = replica(rules), []
    waiting = [(when, Sequence(n, 1, 1)) for n, when in enumerate(arrivals)]
    while waiting or made.next_s < NEVER:
        if waiting and waiting[0][0] <= made.next_s:
            when, sequence = waiting.pop(0)
            made.submit(sequence, when)
        elif (ended := made.turn()) is not None:
            found.append((ended.start_s, ended.end_s, [s.request for s in ended.batch.joining]))
    return found


def test_one_step_at_a_time() -> None:
    assert ends(SYNCHRONOUS, 0.0, 0.5, 2.5) == [(0, 1, [0]), (1, 2, [1]), (2.5, 3.5, [2])]


def test_the_device_waits_for_the_host_between_steps() -> None:
    assert ends(replace(SYNCHRONOUS, gap_s=0.25), 0.0, 0.5) == [(0.25, 1.25, [0]), (1.5, 2.5, [1])]


def test_ahead_who_arrives_in_a_step_runs_in_the_one_after_the_next() -> None:
    rules = replace(SYNCHRONOUS, ahead=True)
    made = replica(rules)
    made.submit(Sequence(0, 1, 4), 0.0)
    made.turn()  # at 0: two steps are put together
    made.submit(Sequence(1, 1, 1), 0.5)
    first, second = made.turn(), made.turn()
    assert first and second and (first.end_s, second.end_s) == (1.0, 2.0)
    assert not second.batch.joining
    third = made.turn()
    assert third and [s.request for s in third.batch.joining] == [1] and third.end_s == 3.0


def test_open_requests_wait_or_run() -> None:
    made = replica(replace(SYNCHRONOUS, max_sequences=1))
    made.submit(Sequence(0, 1, 2), 0.0)
    made.submit(Sequence(1, 1, 2), 0.0)
    made.turn()
    assert made.open_requests == 2


def test_steps_priced_together_cost_what_each_costs() -> None:
    table = FlatTable(0.1, 0.01, 0.001)
    made = Replica(Scheduler(SYNCHRONOUS, 1000), table)  # type: ignore[arg-type]
    made.submit(Sequence(0, 3, 50), 0.0)
    made.submit(Sequence(1, 5, 20), 0.0)
    while made.next_s < NEVER:
        made.turn()
    steps = made.record.steps()
    lasts = steps.end_s - steps.start_s
    assert lasts[0] == 0.1 + 0.01 * 8
    assert abs(lasts[10] - (0.1 + 0.02 + 0.001 * (3 + 10 + 5 + 10))) < 1e-9
    assert abs(lasts[40] - (0.1 + 0.01 + 0.001 * (3 + 40))) < 1e-9
