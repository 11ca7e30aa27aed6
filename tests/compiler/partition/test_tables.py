"""Which constants are tables, how they are dealt out, and that parts of columns give the whole."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.tables import TablePlace, cut_tables, evenly, part_name, tables
from mtia_emu.compiler.reference import evaluate

from .cases import model


def test_a_recommender_has_a_table_a_bag_and_a_decoder_has_its_vocabulary() -> None:
    found = tables(model("dlrm-small", batch=8)[0])
    assert [(r.kind.shape, r.samples, r.pooling) for r in found.values()][:2] == [
        ((10000, 64), 8, 3.0),
        ((4096, 64), 8, 8.0),
    ]
    assert next(iter(found.values())).read_bytes == 8 * 3 * 64 * 2
    assert list(tables(model("llama-tiny")[0])) == ["model.embed_tokens.weight"]


def test_tables_are_dealt_out_by_what_is_read_of_them() -> None:
    graph, _ = model("dlrm-small", batch=8)
    places, found = evenly(graph, parse_parallel("dp=3,tp=2,tables=table")), tables(graph)
    load = [0.0] * 3
    for name, place in places.items():
        assert place.kind == "table"
        load[place.owners[0]] += found[name].read_bytes
    total, largest = sum(load), max(r.read_bytes for r in found.values())
    assert sum(r.read_bytes for r in found.values()) == total
    assert max(load) <= total / 3 + largest, "no list schedule is further off"
    for rank in range(3):
        last = min(found[name].read_bytes for name, place in places.items() if place.owners == (rank,))
        assert load[rank] - last <= min(load), "the last table of a rank came to it when it had the least"


@pytest.mark.parametrize("owners", [(0, 1), (1, 0, 2, 3), (2, 2)])
def test_parts_of_columns_are_pooled_each_and_joined(owners: tuple[int, ...]) -> None:
    graph, inputs = model("dlrm-small", batch=8)
    name = "embedding_bags.1.weight"
    cut, places = cut_tables(graph, {name: TablePlace("column", owners)})
    assert places == {part_name(name, i): TablePlace("table", (o,)) for i, o in enumerate(owners)}
    assert name not in cut.consts
    each = 64 // len(owners)
    for i in range(len(owners)):
        part, whole = cut.consts[part_name(name, i)], graph.consts[name]
        assert np.array_equal(part.array(""), whole.array(name)[:, i * each : (i + 1) * each])
        (user,) = [n for n in cut.nodes if part_name(name, i) in n.inputs]
        assert [u.op for u, _ in cut.users(user.output)] == ["reduce_sum"], "pooled before it is joined"
    for key, right in evaluate(graph, inputs).items():
        assert np.array_equal(evaluate(cut, inputs)[key], right)


def test_tables_of_one_place_stay_as_they_are() -> None:
    graph, _ = model("dlrm-small", batch=8)
    places = {
        "embedding_bags.0.weight": TablePlace("row"),
        "embedding_bags.1.weight": TablePlace("table", (1,)),
    }
    assert cut_tables(graph, places) == (graph, places)
