"""Layouts of whole models: which exchanges a strategy takes, that values stay right, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.graph import Graph, Node
from mtia_emu.compiler.ops import OPS
from mtia_emu.compiler.ops.layout import SPLITS
from mtia_emu.compiler.partition.lockstep import evaluate_split
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.propagate import propagate
from mtia_emu.compiler.reference import evaluate

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, INT64, TensorType

from .cases import error, exchanges, model, split

X = TensorType(FP32, (4, 6))
FP16_ERROR = 4e-3  # of the largest: sums of parts are rounded to fp16 once more


@pytest.mark.parametrize(
    ("parallel", "right"),
    [
        ("tp=2", {"all_reduce": 5, "all_gather": 1}),  # table, two a layer; logits
        ("tp=4", {"all_reduce": 5, "all_gather": 1}),  # two key heads among four ranks
        ("tp=8", {"all_reduce": 5, "all_gather": 1}),
        ("tp=4,sp", {"reduce_scatter": 5, "all_gather": 6}),
        ("cp=2", {"all_gather": 5}),  # keys and values of two layers; angles of keys are local
        ("cp=2,tp=2", {"all_reduce": 5, "all_gather": 6}),
    ],
)
def test_a_decoder_takes_the_exchanges_of_megatron(parallel: str, right: dict[str, int]) -> None:
    made = split("llama-tiny", parallel)
    assert exchanges(made) == right and not made.notes
    assert error("llama-tiny", parallel) < FP16_ERROR


def test_heads_are_split_and_caches_with_them() -> None:
    made = split("llama-tiny", "tp=4", seq=1, past=16)
    assert made.inputs["past_key_values.0.key"].dims[1] == ("tp.0",), "two key heads"
    assert made.outputs["present.0.key"][1].dims[1] == ("tp.0",)
    assert made.shards["model.layers.0.self_attn.q_proj.weight"].layout.dims == ((), ("tp.0", "tp.1"))
    assert made.shards["model.layers.0.self_attn.o_proj.weight"].layout.dims == (("tp.0", "tp.1"), ())
    assert error("llama-tiny", "tp=4", seq=1, past=16) < FP16_ERROR


@pytest.mark.parametrize(
    ("parallel", "right"),
    [
        ("dp=4", {}),
        ("dp=4,tables=row", {"all_gather": 7, "reduce_scatter": 7}),  # the table of 3 rows is whole
        ("dp=4,tables=column", {"all_gather": 8, "all_to_all": 8}),
        ("dp=2,tp=2,tables=row", {"all_gather": 7, "reduce_scatter": 7, "all_reduce": 5}),
    ],
)
def test_a_recommender_splits_its_batch_and_its_tables(parallel: str, right: dict[str, int]) -> None:
    assert exchanges(split("dlrm-small", parallel)) == right
    assert error("dlrm-small", parallel) < FP16_ERROR


def test_the_batch_is_split_without_a_word_between_ranks() -> None:
    assert exchanges(split("llama-tiny", "dp=2,mb=2", batch=4)) == {}
    assert error("llama-tiny", "dp=2,mb=2,tp=2", batch=4) < FP16_ERROR


@pytest.mark.parametrize(
    ("parallel", "words"),
    [
        ("tp=3", "nothing of weights and heads divides among all of them, 3 would be alike"),
        ("ep=2", "nothing of stacks of experts divides"),
        ("dp=2", "a batch of 1 .* does not divide among 2"),
        ("cp=3", "a sequence of 16 .* does not divide"),
    ],
)
def test_an_axis_that_splits_nothing_is_refused(parallel: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        split("llama-tiny", parallel)


def test_an_op_without_a_rule_is_computed_by_every_rank_and_said_so() -> None:
    kind = TensorType(FP32, (4, 3, 3))
    node = Node("sizes", "det", ("x",), ("y",), (TensorType(FP32, (4,)),), {})
    made = propagate(Graph("g", [node], {"x": kind}, ["y"]), parse_parallel("dp=2"))
    assert exchanges(made) == {"all_gather": 1}
    assert made.notes == ("every rank computes the whole of 1 det: no layout rule splits these",)


INDICES = TensorType(INT64, (4, 2))


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        (Node("n", "topk", ("x",), ("y", "i"), (TensorType(FP32, (4, 2)), INDICES), {"axis": 1, "k": 2}), 1),
        (Node("n", "cumsum", ("x",), ("y",), (X,), {"axis": 1}), 1),
        (Node("n", "gather_elements", ("x", "i"), ("y",), (TensorType(FP32, (4, 2)),), {"axis": 1}), 2),
        (Node("n", "scatter_elements", ("x", "i", "u"), ("y",), (X,), {"axis": 1}), 3),
    ],
    ids=lambda x: getattr(x, "op", ""),
)
def test_what_goes_along_one_dimension_is_split_over_the_others(node: Node, inputs: int) -> None:
    kinds = dict([("x", X), ("i", INDICES), ("u", TensorType(FP32, (4, 2)))][:inputs])
    graph = Graph("g", [node], kinds, list(node.outputs))
    made = propagate(graph, parse_parallel("dp=2"))
    assert not exchanges(made) and not made.notes
    rng = np.random.default_rng(0)
    given = {"x": rng.standard_normal((4, 6)).astype(np.float32), "u": np.ones((4, 2), np.float32)}
    given = {k: x for k, x in {**given, "i": rng.permuted([[0, 5]] * 4, axis=1)}.items() if k in kinds}
    got, right = evaluate_split(made, given), evaluate(graph, given)
    assert all(np.array_equal(got[name], right[name]) for name in graph.outputs)


def test_micro_batches_never_meet() -> None:
    node = Node("running", "cumsum", ("x",), ("y",), (X,), {"axis": 0})
    graph = Graph("g", [node], {"x": X}, ["y"])
    with pytest.raises(UserError, match="needs all micro-batches at once"):
        propagate(graph, parse_parallel("mb=2"))


def test_rules_are_of_ops_that_there_are() -> None:
    assert set(SPLITS) <= set(OPS)


def test_one_rank_is_the_graph_itself() -> None:
    graph, _ = model("llama-tiny")
    made = propagate(graph, parse_parallel("tp=1"))
    assert made.nodes == graph.nodes
