"""Which engine a request goes to."""

from __future__ import annotations

import pytest

from mtia_emu.errors import UserError
from mtia_emu.serving.blocks import SharedBlocks
from mtia_emu.serving.replica import Replica
from mtia_emu.serving.routers import MOST_APART, least_loaded, prefix_aware, round_robin, router
from mtia_emu.serving.scheduler import Scheduler, Sequence

from .flat import SYNCHRONOUS, FlatTable

NAMES = (SharedBlocks(1), SharedBlocks(2))


def engines(*loads: int) -> list[Replica]:
    made = [Replica(Scheduler(SYNCHRONOUS, 1000), FlatTable()) for _ in loads]  # type: ignore[arg-type]
    for engine, count in zip(made, loads, strict=True):
        engine.scheduler.waiting.extend(Sequence(n, 1, 1) for n in range(count))
    return made


def test_one_after_another() -> None:
    assert [round_robin(engines(0, 0, 0), (), n) for n in range(5)] == [0, 1, 2, 0, 1]


def test_the_fewest_open_requests() -> None:
    assert least_loaded(engines(3, 1, 1), (), 0) == 1


def test_the_longest_prefix_unless_loads_are_far_apart() -> None:
    made = engines(3, 0, 3)
    made[2].scheduler.pool.take(32)
    made[2].scheduler.pool.share(NAMES[0])
    assert prefix_aware(made, NAMES, 0) == 2
    assert prefix_aware(made, (), 0) == 1
    made[2].scheduler.waiting.extend(Sequence(n, 1, 1) for n in range(MOST_APART))
    assert prefix_aware(made, NAMES, 0) == 1


def test_an_unknown_router_is_refused() -> None:
    with pytest.raises(UserError, match="unknown router 'least'; did you mean 'least-loaded'"):
        router("least")
