"""A training step over a mesh: what ranks compute together, what they exchange and when, what they hold."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.gradients.marks import BACKWARD
from mtia_emu.compiler.gradients.optimisers import optimiser
from mtia_emu.compiler.gradients.step import Recipe, TrainingStep, training_step
from mtia_emu.compiler.graph import Const, Node
from mtia_emu.compiler.ops import fused_attention
from mtia_emu.compiler.ops.collectives import COLLECTIVES
from mtia_emu.compiler.ops.layout import WHOLE
from mtia_emu.compiler.partition.lockstep import evaluate_split
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.step import as_ready, split_step
from mtia_emu.compiler.reference import evaluate

import mtia_emu
from mtia_emu.errors import UserError
from mtia_emu.types import FP32, TensorType

from .cases import exchanges

MODELS: dict[str, tuple[Any, ...]] = {
    "resnet-tiny": ("cross-entropy", "sgd{momentum=0.9}", {"batch": 4}),
    "llama-tiny": ("cross-entropy", "adagrad", {"batch": 4, "seq": 8}),
}
BAGS = ("dlrm-small", "bce", {"batch": 8})


@cache
def step(name: str, **recipe: Any) -> TrainingStep:
    """Return the step of a model of the zoo with random weights."""
    loss, optimizer, dims = MODELS[name]
    return mtia_emu.training_step(f"zoo:{name}", loss, optimizer, dims=dims, seed=0, **recipe)


def inputs(of: TrainingStep) -> dict[str, np.ndarray]:
    """Return a batch, weights, and states after some steps."""
    rng, out = np.random.default_rng(3), dict[str, np.ndarray]()
    for name, kind in of.graph.inputs.items():
        known = of.parameters.get(name)
        values = rng.random(kind.shape) if kind.dtype.is_float else rng.integers(0, 3, kind.shape)
        out[name] = (known.array(name) if known else values).astype(kind.dtype.numpy)
    return {**out, "learning_rate": np.float32(0.01), "step": np.float32(2)}


@pytest.mark.parametrize("parallel", ["dp=2", "dp=4", "dp=2,tp=2", "dp=2,tp=2,sp"])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_all_ranks_together_compute_the_step_of_one(name: str, parallel: str, zero: int) -> None:
    one = step(name)
    if name == "resnet-tiny" and "tp" in parallel:
        pytest.skip("nothing but one product of a convolutional net divides over tp")
    feed = {n: x for n, x in inputs(one).items() if n in one.graph.inputs}
    made = split_step(one, parse_parallel(parallel), zero)
    got = evaluate_split(made.split, feed)
    for out, right in evaluate(one.graph, feed).items():
        np.testing.assert_allclose(got[out], right, rtol=1e-4, atol=1e-5 * np.abs(right).max())
    states = one.graph.states
    for out, (_, layout) in made.split.outputs.items():
        assert out not in states or layout.dims == made.split.inputs[states[out]].dims, "states lie in place"


@pytest.mark.parametrize("parallel", ["dp=2", "dp=2,tp=2"])
def test_attention_that_goes_back_at_once_is_split_by_heads(parallel: str) -> None:
    with mock.patch.object(fused_attention, "SCORES", 0):
        loss, optimizer, dims = MODELS["llama-tiny"]
        one = mtia_emu.training_step("zoo:llama-tiny", loss, optimizer, dims=dims, seed=0)
    assert any(node.op == "attention_back" for node in one.graph.nodes)
    feed = {n: x for n, x in inputs(one).items() if n in one.graph.inputs}
    made, plain = split_step(one, parse_parallel(parallel), 0), step("llama-tiny")
    got = evaluate_split(made.split, feed)
    for out, right in evaluate(plain.graph, feed).items():
        np.testing.assert_allclose(got[out], right, rtol=1e-4, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_states_lie_as_their_own_weight_where_they_are_as_long(zero: int) -> None:
    """%w divides by columns, its state has one; that of %w.b begins with the name of %w too."""
    graph = text.parse("""graph two {
  in %x : fp32[4,7]
  in %w : fp32[7,6]
  in %w.b : fp32[6,4]
  %h : fp32[4,6] = matmul(%x, %w)
  %y : fp32[4,4] = matmul(%h, %w.b)
  out %y
}
""")
    rng = np.random.default_rng(1)
    stored = {n: Const.of(rng.random(graph.inputs[n].shape, np.float32)) for n in ("w", "w.b")}
    one = training_step(graph, stored, Recipe("mse", optimiser("adagrad{rowwise=true}")))
    feed = {n: x for n, x in inputs(one).items() if n in one.graph.inputs}
    made = split_step(one, parse_parallel("dp=2"), zero).split
    assert made.inputs["w.sum"].dims == (WHOLE, WHOLE) and made.inputs["w.b.sum"].dims[0] != WHOLE
    got = evaluate_split(made, feed)
    for out, right in evaluate(one.graph, feed).items():
        np.testing.assert_allclose(got[out], right, rtol=1e-4, atol=1e-6)


@cache
def recommender(optimizer: str, **recipe: Any) -> TrainingStep:
    name, loss, dims = BAGS
    return mtia_emu.training_step(f"zoo:{name}", loss, optimizer, dims=dims, seed=0, **recipe)


@pytest.mark.parametrize(
    "parallel", ["dp=2", "dp=4", "dp=2,tables=column", "dp=8,tables=column", "tp=2,tables=column"]
)
@pytest.mark.parametrize(
    ("optimizer", "zero", "recipe"),
    [
        ("sgd", 0, {}),
        ("adagrad", 0, {"clip": 0.1}),
        ("adagrad{rowwise=true}", 1, {}),
        ("adam", 2, {}),
        ("adam", 1, {"embeddings": "tables"}),
    ],
)
def test_tables_whole_or_in_columns_change_as_on_one_chip(
    parallel: str, optimizer: str, zero: int, recipe: dict[str, Any]
) -> None:
    one = recommender(optimizer, **recipe)
    feed = {n: x for n, x in inputs(one).items() if n in one.graph.inputs}
    split = split_step(one, parse_parallel(parallel), zero if "dp" in parallel else 0).split
    got = evaluate_split(split, feed)
    for out, right in evaluate(one.graph, feed).items():
        np.testing.assert_allclose(got[out], right, rtol=1e-4, atol=1e-5 * np.abs(right).max())
    tables = [n for n in one.parameters if n.startswith("embedding_bags")]
    whole = sum(one.graph.inputs[n].bytes for n in tables)
    held = sum(split.types[n].bytes for n in tables)
    assert held == whole // (int(parallel[3]) if "tables" in parallel else 1)


def test_each_chip_pools_its_own_bags_or_its_columns_of_all() -> None:
    one = recommender("sgd")
    for parallel, bags in (("dp=4", (2, 64)), ("dp=4,tables=column", (8, 16))):
        split = split_step(one, parse_parallel(parallel)).split
        shapes = {n.type.shape for n in split.nodes if n.op == "embedding_bag"}
        assert shapes == {bags} and not split.notes
    assert exchanges(split)["all_to_all"] == 2 * 8, "what is pooled, and its gradient, of each table"


def test_sums_of_micro_batches_lie_in_columns_too() -> None:
    one = recommender("adam", accumulate=2)
    split = split_step(one, parse_parallel("dp=4,tables=column")).split
    for table in (n for n in one.parameters if n.startswith("embedding_bags")):
        kinds = {split.types[n] for n in (table, f"{table}.mean", f"{table}.sum_of_gradients")}
        assert {kind.shape for kind in kinds} == {(one.graph.inputs[table].shape[0], 16)}
        assert not split.inputs[f"{table}.sum_of_gradients"].sums


@pytest.mark.parametrize(
    "parallel", ["dp=4", "tp=2", "dp=2,tp=2,sp", "dp=2,tables=column", "tp=2,tables=column"]
)
def test_a_sum_of_micro_batches_is_added_to_where_it_lies(parallel: str) -> None:
    one = step("llama-tiny", accumulate=2)
    split = split_step(one, parse_parallel(parallel)).split
    added = {node.inputs[0] for node in split.nodes if node.op == "add"}
    assert {name for name in one.states if name.endswith("sum_of_gradients")} <= added


def test_each_gradient_is_exchanged_once_and_in_two_halves_where_it_is_shared_out() -> None:
    one, mesh = step("resnet-tiny"), parse_parallel("dp=2")
    plain, states, grads, all_ = (exchanges(split_step(one, mesh, zero).split) for zero in range(4))
    twice = 2  # biases of branches that are added have one gradient between them
    weights = len(one.parameters) - twice
    assert plain == {"all_reduce": weights + 2}, "one a gradient; the loss, and the count of its labels"
    assert states == {**plain, "all_gather": weights + twice}, "each chip's part of the new weights"
    assert grads == {"reduce_scatter": weights, "all_gather": weights + twice, "all_reduce": 2}
    back = {v for node in one.graph.nodes if node.origin.endswith(BACKWARD) for v in node.inputs}
    again = sum(any(w in back for w in (name, *_moves(one, name))) for name in one.parameters)
    assert 0 < again < len(one.parameters), "gradients need no biases"
    assert all_ == {**grads, "all_gather": len(one.parameters) + again}


def _moves(one: TrainingStep, weight: str) -> set[str]:
    """Return what is made of a weight alone."""
    own = {weight}
    for node in one.forward.nodes:
        if own.intersection(node.inputs) and all(v in own or v in one.forward.consts for v in node.inputs):
            own.update(node.outputs)
    return own


@pytest.mark.parametrize("chips", [2, 4])
def test_bytes_of_exchanges_are_those_of_closed_forms(chips: int) -> None:
    """Of the bytes of weights W that are shared out (Rajbhandari et al., 2020, section 7; an all-reduce sends
    twice what a gather or a scatter does): stage 0 sends 2 W, 1 3 W, 2 2 W, 3 3 W."""
    one = step("llama-tiny")
    dense = sum(one.graph.inputs[n].bytes for n in one.parameters if n != "model.embed_tokens.weight")
    plain = _exchanged_bytes(one, chips, 0)
    for zero, (scattered, gathered) in enumerate([(0, 0), (0, 1), (1, 1), (1, 2)]):
        found = _exchanged_bytes(one, chips, zero)
        assert found["all_reduce"] == (1 - scattered) * dense
        assert found["reduce_scatter"] == scattered * dense
        assert found["all_gather"] - plain["all_gather"] == gathered * dense, "rows of the table besides"


def _exchanged_bytes(one: TrainingStep, chips: int, zero: int) -> Counter[str]:
    """Return the bytes of whole values that are exchanged, by op, without single numbers."""
    split, found = split_step(one, parse_parallel(f"dp={chips}"), zero).split, Counter[str]()
    for node in split.nodes:
        if node.op in COLLECTIVES and node.type.rank:
            found[node.op] += max(split.types[node.inputs[0]].bytes, node.type.bytes)
    return found


def test_the_largest_stage_holds_a_part_of_all_that_belongs_to_a_weight() -> None:
    one = step("llama-tiny")
    split = split_step(one, parse_parallel("dp=4"), zero=3).split
    for name in (*one.parameters, *one.states):
        whole = 1 if name.startswith("model.embed") else 4
        assert split.types[name].size * whole == one.graph.inputs[name].size
        assert split.outputs[f"{name}.next"][1] == split.inputs[name], "and it is never made whole again"


def test_rows_of_a_table_are_gathered_once_with_their_indices() -> None:
    found = exchanges(split_step(step("llama-tiny"), parse_parallel("dp=2")).split)
    assert found["all_gather"] == 2


def test_zero_holds_half_of_the_states() -> None:
    one = step("resnet-tiny")
    split = split_step(one, parse_parallel("dp=2"), zero=1).split
    halves = [n for n in one.states if one.graph.inputs[n].shape[0] % 2 == 0]
    assert halves and all(2 * split.types[n].size == one.graph.inputs[n].size for n in halves)
    assert all(split.types[n] == one.graph.inputs[n] for n in one.parameters)


def test_gradients_are_exchanged_before_the_way_back_ends() -> None:
    nodes = split_step(step("resnet-tiny"), parse_parallel("dp=2")).stage.nodes
    first = next(i for i, n in enumerate(nodes) if n.op == "all_reduce" and n.type.rank > 1)
    last = max(i for i, n in enumerate(nodes) if n.origin.endswith("(backward)"))
    assert first < last / 2 + len(nodes) / 4


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=12))
def test_the_order_keeps_all_nodes_each_behind_what_it_reads(chosen: list[tuple[bool, int]]) -> None:
    kind, nodes = TensorType(FP32, (2,)), list[Node]()
    for i, (exchange, back) in enumerate(chosen):
        source = f"n{max(i - 1 - back, 0)}" if i else "x"
        attrs = {"axes": ("dp",), "size": 2} if exchange else {}
        nodes.append(
            Node(f"n{i}", "all_reduce" if exchange else "neg", (source,), (f"n{i}",), (kind,), attrs)
        )
    ordered, made = as_ready(nodes), {"x"}
    assert sorted(n.name for n in ordered) == sorted(n.name for n in nodes)
    for i, node in enumerate(ordered):
        assert node.inputs[0] in made
        made.add(node.output)
        if node.op in COLLECTIVES and i:
            before = ordered[i - 1]
            assert before.output == node.inputs[0] or before.op in COLLECTIVES, "as soon as it can"


@pytest.mark.parametrize(
    ("parallel", "recipe", "words"),
    [
        ("cp=2", {}, "training is split over dp, tp and pp"),
        ("dp=3", {}, "a batch of 4 .* does not divide among 3"),
        ("dp=2,mb=2", {}, "training has those of --accumulate"),
        ("tp=7", {}, "no weight of .* divides among so many"),
    ],
)
def test_what_cannot_be_split_is_refused(parallel: str, recipe: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        split_step(step("resnet-tiny", **recipe), parse_parallel(parallel))


@pytest.mark.parametrize(
    ("parallel", "words"),
    [
        ("dp=2,tables=row", "tables=row: .*right: tables=column"),
        ("dp=2,tables=plan", "tables=plan: .*right: tables=column"),
        ("dp=2,pp=2,tables=column", "right: without pp"),
        ("tp=3,tables=column", "no table of dlrm-small divides its columns among 3"),
    ],
)
def test_tables_that_cannot_be_cut_so_are_refused(parallel: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        split_step(recommender("sgd"), parse_parallel(parallel))


def test_an_optimizer_that_keeps_nothing_has_gradients_and_weights_to_share_out() -> None:
    plain = mtia_emu.training_step("zoo:resnet-tiny", "cross-entropy", "sgd", dims={"batch": 2}, seed=0)
    with pytest.raises(UserError, match="this one keeps nothing"):
        split_step(plain, parse_parallel("dp=2"), zero=1)
    assert exchanges(split_step(plain, parse_parallel("dp=2"), zero=2).split)["reduce_scatter"] > 5
