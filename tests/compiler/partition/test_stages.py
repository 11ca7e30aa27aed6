"""Stages of a pipeline, and the order that hides exchanges."""

from __future__ import annotations

import pytest
from mtia_emu.compiler.ops.collectives import COLLECTIVES
from mtia_emu.compiler.partition.stages import in_order, stages, weights

from mtia_emu.errors import UserError

from .cases import split


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_stages_have_every_node_and_get_only_from_before(count: int) -> None:
    made = split("llama-tiny", "tp=2")
    cut = stages(made, count)
    assert {n.name for s in cut for n in s.nodes} == {n.name for n in made.nodes}
    for number, stage in enumerate(cut):
        own = {v for n in stage.nodes for v in n.outputs}
        known = {*own, *stage.received, *made.inputs, *made.shards}
        assert all(v in known for n in stage.nodes for v in n.inputs if v)
        assert all(source < number for source in stage.received.values())


def test_a_cut_lies_where_few_bytes_pass() -> None:
    made = split("llama-tiny", "tp=1")
    (_, second) = stages(made, 2)
    assert list(second.received) == ["model.layers.1.self_attn.residual"] or len(second.received) == 1


def test_angles_are_computed_by_each_stage_that_needs_them() -> None:
    cut = stages(split("llama-tiny", "tp=1"), 3)
    at = [s for s, stage in enumerate(cut) if any(n.op == "cos" for n in stage.nodes)]
    assert len(at) > 1


def test_too_many_stages_are_refused() -> None:
    with pytest.raises(UserError, match=r"has only .* nodes with weights"):
        stages(split("llama-tiny", "tp=1"), 40)


def test_exchanges_begin_before_what_does_not_need_them() -> None:
    made = split("dlrm-small", "dp=4,tables=row")
    order = [n.name for n in in_order(made.nodes)]
    assert sorted(order) == sorted(n.name for n in made.nodes)
    place = {name: i for i, name in enumerate(order)}
    gathers = [place[n.name] for n in made.nodes if n.op == "all_gather"]
    dense = place["dense_arch.0"]
    assert max(gathers) < dense, "indices are on their way while the dense part is computed"
    for node in made.nodes:
        behind = [u for u in made.nodes if set(node.outputs) & set(u.inputs)]
        assert all(place[node.name] < place[u.name] for u in behind), "and each is behind what it reads"
    assert any(n.op in COLLECTIVES for n in made.nodes)


def test_stages_are_cut_by_what_nodes_are_said_to_weigh() -> None:
    made = split("llama-tiny", "tp=1")
    by_bytes = weights(made)
    assert stages(made, 2, by_bytes) == stages(made, 2)
    last = max(i for i, n in enumerate(made.nodes) if by_bytes[n.name])
    heavy = {n.name: 100.0 * (i == last) + 1.0 * bool(by_bytes[n.name]) for i, n in enumerate(made.nodes)}
    (first, second) = stages(made, 2, heavy)
    assert sum(heavy[n.name] > 1 for n in second.nodes) == 1
    assert sum(heavy[n.name] for n in first.nodes) > sum(heavy[n.name] == 1 for n in second.nodes)
