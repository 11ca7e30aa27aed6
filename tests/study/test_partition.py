"""What ranks exchange on a system: groups, bytes as nccl-tests counts them, sends between stages."""

from __future__ import annotations

import pytest

from mtia_emu.study.partition import Exchanges, exchanged_bytes, partition
from mtia_emu.system.collectives import Collective, timed

from .systems import machine, model


@pytest.mark.parametrize(
    ("op", "right"), [("all_reduce", 64), ("all_gather", 256), ("reduce_scatter", 64), ("all_to_all", 64)]
)
def test_bytes_are_those_of_nccl_tests(op: str, right: int) -> None:
    assert exchanged_bytes(op, 64, 4) == right


def test_groups_are_of_the_chips_of_a_stage() -> None:
    over = machine("pp=2,dp=2,tp=2")
    on = Exchanges(over.system, over.mesh)
    assert on.groups(0, over.mesh.axes("tp")) == [(0, 1), (2, 3)]
    assert on.groups(1, over.mesh.axes("dp")) == [(4, 6), (5, 7)]
    time, groups = on.time(1, "all_reduce", over.mesh.axes("tp"), 4096)
    assert groups == 2 and time == timed(over.system, Collective("all_reduce", 4096, (4, 5)))


def test_a_stage_sends_what_later_ones_need() -> None:
    parts = partition(model("llama-tiny").graph, machine("pp=2").mesh)
    (sent,), none = parts.sent
    assert not none
    assert parts.sent_bytes(0) == parts.split.types[sent].bytes == 16 * 256 * 2
    first, second = (parts.graph(stage, 0) for stage in range(2))
    assert sent in first.outputs and sent in second.inputs
