"""A training step over a mesh: what ranks compute together, what they exchange and when, what they hold."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mtia_emu.compiler.gradients.step import TrainingStep
from mtia_emu.compiler.graph import Node
from mtia_emu.compiler.ops.collectives import COLLECTIVES
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
        values = rng.random(kind.shape) if kind.dtype.is_float else rng.integers(0, 8, kind.shape)
        out[name] = (known.array(name) if known else values).astype(kind.dtype.numpy)
    return {**out, "learning_rate": np.float32(0.01), "step": np.float32(2)}


@pytest.mark.parametrize("parallel", ["dp=2", "dp=4", "dp=2,tp=2"])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_all_ranks_together_compute_the_step_of_one(name: str, parallel: str, zero: bool) -> None:
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


def test_each_gradient_is_exchanged_once_and_with_zero_in_two_halves() -> None:
    one, mesh = step("resnet-tiny"), parse_parallel("dp=2")
    plain, shared = (exchanges(split_step(one, mesh, zero).split) for zero in (False, True))
    twice = 2  # biases of branches that are added have one gradient between them
    weights = len(one.parameters) - twice
    assert plain == {"all_reduce": weights + 2}, "one a gradient; the loss, and the count of its labels"
    assert shared == {"reduce_scatter": weights, "all_gather": weights + twice, "all_reduce": 2}


def test_rows_of_a_table_are_gathered_once_with_their_indices() -> None:
    found = exchanges(split_step(step("llama-tiny"), parse_parallel("dp=2")).split)
    assert found["all_gather"] == 2


def test_zero_holds_half_of_the_states() -> None:
    one = step("resnet-tiny")
    split = split_step(one, parse_parallel("dp=2"), shard_states=True).split
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
        ("pp=2", {}, "training is split over dp and tp"),
        ("dp=3", {}, "a batch of 4 .* does not divide among 3"),
        ("dp=2", {"accumulate": 2}, "--accumulate does not go with --parallel"),
        ("tp=7", {}, "no weight of .* divides among so many"),
    ],
)
def test_what_cannot_be_split_is_refused(parallel: str, recipe: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        split_step(step("resnet-tiny", **recipe), parse_parallel(parallel))
