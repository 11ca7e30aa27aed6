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


def test_rows_to_experts_go_the_faster_way() -> None:
    """A quarter of rows to each of four ranks by an all-to-all, or all to all; back they are as many."""
    over = machine("ep=4")
    on, axes, size = Exchanges(over.system, over.mesh), over.mesh.axes("ep"), 1 << 22
    few, _ = on.routed(0, "dispatch", axes, size, [0.25] * 4)
    part = size / 16
    matrix = tuple(tuple(part * (i != j) for j in range(4)) for i in range(4))
    assert few == timed(over.system, Collective("all_to_all", 0.0, (0, 1, 2, 3), matrix))
    skewed, _ = on.routed(0, "dispatch", axes, size, [0.75, 0.1, 0.1, 0.05])
    back, _ = on.routed(0, "combine", axes, size, [0.75, 0.1, 0.1, 0.05])
    assert few.seconds < skewed.seconds < on.routed(0, "dispatch", axes, size, [1.0] * 4)[0].seconds
    shares = [0.75, 0.1, 0.1, 0.05]
    sent = [[size / 4 * share * (i != j) for j, share in enumerate(shares)] for i in range(4)]
    returned = tuple(tuple(sent[j][i] for j in range(4)) for i in range(4))
    assert back == timed(over.system, Collective("all_to_all", 0.0, (0, 1, 2, 3), returned))
    assert sum(back.link_bytes) == sum(skewed.link_bytes) and back.link_bytes != skewed.link_bytes
    for op, alike in (("dispatch", "all_gather"), ("combine", "reduce_scatter")):
        assert on.routed(0, op, axes, size, [1.0] * 4)[0].seconds <= on.time(0, alike, axes, size)[0].seconds


def test_what_goes_to_holders_of_tables_and_comes_back_is_an_all_to_all_of_uneven_parts() -> None:
    over = machine("dp=4")
    on, axes = Exchanges(over.system, over.mesh), over.mesh.axes("dp")
    parts = [(0, 4096), (2, 65536), (0, 1024)]
    there, groups = on.placed(0, "collect", axes, parts)
    back, _ = on.placed(0, "spread", axes, parts)
    sent = [[0.0, 0, 65536, 0], [5120, 0, 65536, 0], [5120, 0, 0, 0], [5120, 0, 65536, 0]]
    ranks = (0, 1, 2, 3)
    right = Collective("all_to_all", 0.0, ranks, tuple(map(tuple, sent)))
    turned = Collective("all_to_all", 0.0, ranks, tuple(map(tuple, zip(*sent, strict=True))))
    assert groups == 1 and there == timed(over.system, right) and back == timed(over.system, turned)
