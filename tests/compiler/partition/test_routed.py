"""Rows sent to their experts: which exchanges that takes, what each rank gets, and that results stay."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from mtia_emu.compiler.graph import Const, Graph, Node
from mtia_emu.compiler.ops.collectives import sent_to
from mtia_emu.compiler.partition.lockstep import combined, evaluate_split
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.prepare import prepared
from mtia_emu.compiler.partition.propagate import propagate
from mtia_emu.compiler.reference import evaluate

from mtia_emu.types import FP32, INT64, TensorType

from .cases import exchanges, model

BATCH, LAYERS = 8, {"mixture-tiny": 2, "deepseek-tiny": 1}  # layers that have experts


@cache
def ready(name: str) -> Graph:
    return prepared(model(name, batch=BATCH)[0])


@pytest.mark.parametrize("name", sorted(LAYERS))
@pytest.mark.parametrize("parallel", ["ep=2,dispatch", "ep=4,dispatch", "dp=2,ep=2,dispatch"])
def test_a_layer_sends_rows_once_and_gets_them_back_once(name: str, parallel: str) -> None:
    """Beside rows, choices and shares are gathered, which are small; nothing is summed over all ranks."""
    made = propagate(ready(name), parse_parallel(parallel))
    layers = LAYERS[name]
    assert exchanges(made) == {"dispatch": layers, "all_gather": 2 * layers, "combine": layers}
    graph, inputs = model(name, batch=BATCH)
    got = evaluate_split(made, inputs)
    for value, right in evaluate(graph, inputs).items():
        assert np.abs(got[value].astype(float) - right).max() < 0.01 * np.abs(right).max()


def test_weights_split_too_take_the_sums_of_a_decoder_besides() -> None:
    made = propagate(ready("mixture-tiny"), parse_parallel("tp=2,ep=2,dispatch"))
    assert exchanges(made) == {"all_reduce": 5, "dispatch": 2, "all_gather": 5, "combine": 2}


ATTRS = {"axes": ("ep",), "size": 2, "dim": 0, "experts": 4, "each": 2}
CHOSEN = np.array([[0, 1], [1, 2], [3, -1]])  # -1 is the last expert


def test_a_row_goes_where_one_of_its_experts_is_and_nowhere_else() -> None:
    x = np.arange(1.0, 7.0).reshape(3, 2)
    assert sent_to(x, CHOSEN, 0, ATTRS)[:, 0].tolist() == [1, 3, 0]
    assert sent_to(x, CHOSEN, 1, ATTRS)[:, 0].tolist() == [0, 3, 5]
    first, second = combined("dispatch", [[x, CHOSEN], [10 * x, CHOSEN[::-1]]], ATTRS)
    assert first[:, 0].tolist() == [1, 3, 0, 0, 30, 50] and second[:, 0].tolist() == [0, 3, 5, 10, 30, 0]


def test_a_row_of_each_choice_goes_to_its_own_expert() -> None:
    x = np.arange(1.0, 7.0).reshape(6, 1)
    assert sent_to(x, CHOSEN, 1, ATTRS)[:, 0].tolist() == [0, 0, 0, 4, 5, 6]


def test_a_gather_that_others_read_stays_one() -> None:
    x, chosen, y = TensorType(FP32, (4, 3)), TensorType(INT64, (4, 1)), TensorType(FP32, (4, 3))
    nodes = [
        Node("copy", "neg", ("x",), ("z",), (x,)),
        Node("pick", "neg", ("chosen",), ("c",), (chosen,)),
        Node("product", "expert_matmul", ("z", "w", "c"), ("y",), (y,)),
        Node("total", "cumsum", ("z",), ("t",), (x,), {"axis": 0}),
    ]
    weights = {"w": Const(TensorType(FP32, (2, 3, 3)), np.ones((2, 3, 3), np.float32))}
    for outputs, right in ((["y"], "dispatch"), (["y", "t"], "all_gather")):
        kept = nodes[: 2 + len(outputs)] if outputs == ["y"] else nodes
        graph = Graph(
            "g", kept[:3] if outputs == ["y"] else nodes, {"x": x, "chosen": chosen}, outputs, weights
        )
        made = propagate(graph, parse_parallel("ep=2,dispatch"))
        assert right in exchanges(made) and ("dispatch" in exchanges(made)) == (right == "dispatch")
