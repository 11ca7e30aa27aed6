"""Packed weights: queries, keys and values in one product, and gated networks in one."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.graph import Const, Graph, Node
from mtia_emu.compiler.partition.lockstep import evaluate_split
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.propagate import propagate
from mtia_emu.compiler.partition.unpack import unpacked
from mtia_emu.compiler.reference import evaluate

from mtia_emu.types import FP32, TensorType

from .cases import exchanges

RNG = np.random.default_rng(0)
X = TensorType(FP32, (4, 8))


def const(*shape: int) -> Const:
    return Const(TensorType(FP32, shape), RNG.standard_normal(shape).astype(np.float32))


def columns(start: int, end: int) -> Node:
    kind = TensorType(FP32, (4, end - start))
    attrs = {"starts": (0, start), "ends": (4, end), "steps": (1, 1)}
    return Node(f"s{start}", "slice", ("all",), (f"s{start}",), (kind,), attrs)


def packed(bias: str, *more: Node, outputs: tuple[str, ...] = ("y",)) -> Graph:
    """Return a gated network whose two halves come of one product: `bias` is "", "operand" or "add"."""
    consts = {"w": const(8, 24), "b": const(24), "down": const(12, 8)}
    whole = TensorType(FP32, (4, 24))
    made = {
        "": [Node("all", "matmul", ("x", "w"), ("all",), (whole,))],
        "operand": [Node("all", "matmul", ("x", "w", "b"), ("all",), (whole,))],
        "add": [
            Node("p", "matmul", ("x", "w"), ("p",), (whole,)),
            Node("all", "add", ("b", "p"), ("all",), (whole,)),
        ],
    }[bias]
    half = TensorType(FP32, (4, 12))
    nodes = [
        *made,
        columns(0, 12),
        columns(12, 24),
        Node("gate", "silu", ("s0",), ("gate",), (half,)),
        Node("both", "mul", ("gate", "s12"), ("both",), (half,)),
        Node("y", "matmul", ("both", "down"), ("y",), (X,)),
        *more,
    ]
    return Graph("packed", nodes, {"x": X}, list(outputs), consts)


@pytest.mark.parametrize("bias", ["", "operand", "add"])
def test_pieces_have_products_of_their_own(bias: str) -> None:
    graph, x = packed(bias), {"x": RNG.standard_normal((4, 8)).astype(np.float32)}
    apart = unpacked(graph)
    assert [n.op for n in apart.nodes].count("matmul") == 3 and not any(n.op == "slice" for n in apart.nodes)
    right = evaluate(graph, x)["y"]
    np.testing.assert_allclose(evaluate(apart, x)["y"], right, rtol=1e-5, atol=1e-5)
    made = propagate(apart, parse_parallel("tp=4"))
    assert exchanges(made) == {"all_reduce": 1}, "a decoder's, nothing is whole"
    np.testing.assert_allclose(evaluate_split(made, x)["y"], right, rtol=1e-5, atol=1e-5)


def test_a_product_that_is_read_whole_stays() -> None:
    more = Node("z", "neg", ("all",), ("z",), (TensorType(FP32, (4, 24)),))
    for graph in (packed("", more, outputs=("y", "z")), packed("", outputs=("y", "all"))):
        assert unpacked(graph) is graph or [n.op for n in unpacked(graph).nodes].count("matmul") == 2


def test_absent_weights_stay_absent() -> None:
    graph = packed("")
    gone = graph.with_nodes(graph.nodes, consts={k: Const(c.type, None) for k, c in graph.consts.items()})
    apart = unpacked(gone)
    assert sorted(c.type.shape for c in apart.consts.values()) == [(8, 12), (8, 12), (12, 8)]
    assert not any(c.present for c in apart.consts.values())


def test_a_product_with_a_latent_that_is_normed_stays() -> None:
    """As `kv_a_proj` of multi-head latent attention: a latent for a norm, and a part of keys."""
    kind, row = TensorType(FP32, (4, 12)), TensorType(FP32, (4, 1))
    nodes = [
        Node("all", "matmul", ("x", "w"), ("all",), (TensorType(FP32, (4, 24)),)),
        columns(0, 12),
        columns(12, 24),
        Node("square", "mul", ("s0", "s0"), ("square",), (kind,)),
        Node("mean", "reduce_mean", ("square",), ("mean",), (row,), {"axes": (1,), "keepdims": True}),
        Node("y", "mul", ("s0", "mean"), ("y",), (kind,)),
        Node("z", "mul", ("s12", "y"), ("z",), (kind,)),
    ]
    graph = Graph("latent", nodes, {"x": X}, ["z"], {"w": const(8, 24)})
    assert unpacked(graph) is graph
