"""Ranks' graphs: their parts of weights add up to the whole, and all of them together compute it."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.check import check
from mtia_emu.compiler.partition.ranks import joined, part_of, rank_graph

from .cases import model, split


@pytest.mark.parametrize("parallel", ["tp=4", "dp=2,tp=2", "tp=2,sp"])
def test_ranks_have_equal_graphs_but_for_their_data(parallel: str) -> None:
    made = split("llama-tiny", parallel, batch=2)
    graphs = [rank_graph(made, rank) for rank in range(len(made.mesh.ranks))]
    for graph in graphs:
        check(graph, "partition", {})
        assert [(n.name, n.op, n.types) for n in graph.nodes] == [
            (n.name, n.op, n.types) for n in graphs[0].nodes
        ]


def test_the_parts_of_weights_add_up_to_the_whole() -> None:
    made, (graph, _) = split("llama-tiny", "tp=4"), model("llama-tiny")
    graphs = [rank_graph(made, rank) for rank in range(4)]
    for name, shard in made.shards.items():
        if shard.source:
            parts = {r: g.consts[name].array(name) for r, g in enumerate(graphs) if name in g.consts}
            whole = joined(parts, shard.layout, made.mesh)
            np.testing.assert_array_equal(whole, graph.consts[shard.source].array(shard.source))


def test_a_bias_beside_a_sum_that_is_owed_is_one_ranks_alone() -> None:
    made, (graph, _) = split("dlrm-small", "tp=2"), model("dlrm-small")
    owed = [name for name, shard in made.shards.items() if shard.layout.sums]
    assert owed
    for name in owed:
        first, second = (rank_graph(made, r).consts[name].array(name) for r in range(2))
        np.testing.assert_array_equal(first, graph.consts[made.shards[name].source].array(name))
        assert not second.any()


def test_a_part_of_a_number_is_the_number() -> None:
    made = split("llama-tiny", "tp=2")
    scalar = part_of(np.float32(3), made.outputs["logits"][1].__class__(()), made.mesh.ranks[1], made.mesh)
    assert scalar.shape == () and scalar == 3
