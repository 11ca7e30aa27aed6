"""Tables that one rank has: who looks up, what is exchanged, and that values are those of one rank."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from mtia_emu.compiler.ops import infer, reference
from mtia_emu.compiler.partition.lockstep import evaluate_split
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.propagate import propagate
from mtia_emu.compiler.partition.ranks import rank_graph
from mtia_emu.compiler.partition.stages import stages
from mtia_emu.compiler.partition.tables import TablePlace, tables
from mtia_emu.compiler.reference import evaluate

from mtia_emu.types import FP32, TensorType

from .cases import error, model, split

FP16_ERROR = 4e-3
MIXED = (
    ("table", (1,)), ("column", (0, 1)), ("row", ()), ("copied", ()),
    ("column", ()), ("table", (0,)), ("column", (1, 0)), ("table", (1,)),
)  # fmt: skip


@pytest.mark.parametrize("parallel", ["dp=2", "dp=4", "dp=8", "tp=2", "dp=2,tp=2", "dp=2,mb=2"])
def test_tables_that_lie_whole_give_what_one_rank_gives(parallel: str) -> None:
    assert error("dlrm-small", f"{parallel},tables=table", batch=16) < FP16_ERROR


@pytest.mark.parametrize("parallel", ["dp=2", "tp=2", "dp=4", "dp=2,tp=2"])
def test_tables_of_all_kinds_at_once_give_what_one_rank_gives(parallel: str) -> None:
    graph, inputs = model("dlrm-small", batch=16)
    places = {name: TablePlace(*kind) for name, kind in zip(tables(graph), MIXED, strict=True)}
    made = propagate(graph, parse_parallel(f"{parallel},tables=plan"), places=places)
    got, right = evaluate_split(made, inputs), evaluate(graph, inputs)
    for name, x in right.items():
        assert np.max(np.abs(got[name] - x)) < FP16_ERROR * np.max(np.abs(x))


def test_a_rank_has_its_own_tables_and_all_have_the_same_exchanges() -> None:
    made = split("dlrm-small", "dp=4,tables=table")
    graphs = [rank_graph(made, rank) for rank in range(4)]
    held = [{v for v in g.consts if v.startswith("embedding")} for g in graphs]
    assert Counter(v for own in held for v in own) == Counter(f"embedding_bags.{i}.weight" for i in range(8))
    orders = [[(n.op, n.name) for n in g.nodes if n.op in ("collect", "spread")] for g in graphs]
    assert all(order == orders[0] for order in orders) and len(orders[0]) == 16
    for graph, own in zip(graphs, held, strict=True):
        assert sum(n.op == "gather" for n in graph.nodes) == len(own)
        assert sum(n.op == "reduce_sum" for n in graph.nodes) == len(own), "pooled where the rows are"
        sent = [n for n in graph.nodes if n.op == "spread"]
        assert all(n.type.shape == (16, 64) for n in sent), "each rank gets rows of its own samples"
        assert sum(n.attrs["own"] for n in sent) == len(own)
        assert all(graph.type_of(n.inputs[0]).shape == ((64, 64) if n.attrs["own"] else (1,)) for n in sent)


def test_indices_that_all_ranks_have_are_not_sent() -> None:
    made = split("dlrm-small", "tp=4,tables=table")
    assert not [n for n in made.nodes if n.op == "collect"]
    assert all(n.attrs["parts"] == 1 for n in made.nodes if n.op == "spread"), "each rank gets all samples"


def test_unpooled_rows_of_a_decoder_are_sent_as_they_are() -> None:
    made = split("llama-tiny", "dp=2,tables=table", batch=2)
    (sent,) = [n for n in made.nodes if n.op == "spread"]
    assert sent.type.shape == (1, 16, 256)
    assert error("llama-tiny", "dp=2,tables=table", batch=2) < FP16_ERROR


def test_a_pipeline_is_not_cut_between_a_table_and_what_becomes_of_its_rows() -> None:
    made = split("dlrm-small", "pp=4,dp=2,tables=table")
    for stage in stages(made, 4):
        kept = {n.name for n in stage.nodes}
        for node in stage.nodes:
            if node.op == "spread":
                assert {f"{node.attrs['table']}.collect", node.attrs["table"]} <= kept


def test_no_weighing_cuts_right_behind_a_table() -> None:
    made = split("dlrm-small", "pp=2,dp=2,tables=table")
    for holder in [n for n in made.nodes if n.name in made.holders and n.op != "spread"]:
        whole = {holder.name} | {n.name for n in made.nodes if holder.output in n.inputs}
        weighs = {n.name: float(n.name in whole) for n in made.nodes}
        kept = [{n.name for n in stage.nodes} for stage in stages(made, 2, weighs)]
        assert any(whole <= names for names in kept), "what looks up and what reads it are of one stage"


@pytest.mark.parametrize("dim", [0, 1])
def test_what_is_collected_lies_along_the_dimension_that_is_said(dim: int) -> None:
    attrs = {"axes": ("dp",), "size": 3, "dim": dim, "owner": 0, "own": True, "table": 0}
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    (kind,) = infer("collect", (TensorType(FP32, x.shape),), attrs)
    (made,) = reference("collect", (x,), attrs)
    assert kind.shape == made.shape == ((6, 4), (2, 12))[dim]
    assert infer("collect", (kind,), attrs | {"own": False}) == (TensorType(FP32, (1,)),)
