"""Random graphs: what is inferred is what is computed, and the text says it all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.build import NodeBuilder
from mtia_emu.compiler.check import check
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.passes import Fold, tidy
from mtia_emu.compiler.reference import evaluate

from mtia_emu.types import FP32, TensorType

UNARY = ("exp", "tanh", "relu", "neg", "sigmoid")
KINDS = ("unary", "binary", "matmul", "reduce", "transpose", "reshape", "slice", "concat")
BINARY = ("add", "mul", "max", "sub")


def grow(draw: st.DrawFn, b: NodeBuilder, values: list[str]) -> str:
    """Add one node of a random kind on a random value; return its result."""
    x = draw(st.sampled_from(values))
    shape = b.type_of(x).shape
    rank = len(shape)
    kind = draw(st.sampled_from(KINDS))
    if kind == "unary":
        return b.add(draw(st.sampled_from(UNARY)), x)
    if kind == "binary":
        same = [v for v in values if b.type_of(v).shape == shape]
        return b.add(draw(st.sampled_from(BINARY)), x, draw(st.sampled_from(same)))
    if kind == "matmul" and rank >= 2:
        return b.add("matmul", x, b.add("transpose", x, perm=(*range(rank - 2), rank - 1, rank - 2)))
    if kind == "reduce" and rank:
        return b.add("reduce_sum", x, axes=(draw(st.integers(0, rank - 1)),), keepdims=draw(st.booleans()))
    if kind == "transpose":
        return b.add("transpose", x, perm=tuple(draw(st.permutations(range(rank)))))
    if kind == "slice" and rank:
        starts = [draw(st.integers(0, s)) for s in shape]
        return b.add("slice", x, starts=starts, ends=shape, steps=(1,) * rank)
    if kind == "concat" and rank:
        return b.add("concat", x, x, axis=draw(st.integers(0, rank - 1)))
    return b.add("reshape", x, shape=(*shape, 1) if rank < 4 else (b.type_of(x).size,))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Return a graph of up to a dozen nodes over two inputs and a constant."""
    b = NodeBuilder()
    shapes = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple)
    inputs = {name: TensorType(FP32, draw(shapes)) for name in ("x", "y z")}
    for name, kind in inputs.items():
        b.declare(name, kind)
    values = [*inputs, b.constant(np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3))]
    for _ in range(draw(st.integers(0, 12))):
        values.append(grow(draw, b, values))
    return Graph("random", b.nodes, inputs, [values[-1]], b.consts).prune()


@settings(max_examples=80)
@given(graphs(), st.integers(0, 1000))
def test_what_is_inferred_is_computed_and_written(graph: Graph, seed: int) -> None:
    check(graph)
    rng = np.random.default_rng(seed)
    feed = {k: rng.standard_normal(t.shape).astype(np.float32) for k, t in graph.inputs.items()}
    with np.errstate(all="ignore"):
        out = evaluate(graph, feed)  # which holds each result to its stated type
        written = text.dump(graph)
        data = {k: c.array() for k, c in graph.consts.items()}
        back = text.parse(written, data)
        assert back.nodes == graph.nodes and text.dump(back) == written
        for name, value in evaluate(back, feed).items():
            np.testing.assert_array_equal(value, out[name])


def shaped(graph: Graph) -> list[tuple[object, ...]]:
    """Return a graph's nodes with values numbered in order: names that are made up do not count."""
    numbers: dict[str, int] = {name: i for i, name in enumerate((*graph.inputs, *graph.consts))}
    nodes = []
    for node in graph.nodes:
        read = tuple(numbers[v] for v in node.inputs)
        for value in node.outputs:
            numbers[value] = len(numbers)
        nodes.append((node.op, read, node.types, tuple(node.attrs.items())))
    return [*nodes, tuple(numbers[v] for v in graph.outputs)]


@settings(max_examples=60)
@given(graphs())
def test_only_what_stays_is_passed_over(graph: Graph) -> None:
    """Fold with each node made anew gives what it gives where those that stay are passed over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tidy, "stays", lambda op, inputs, scope: False)
        every = Fold()(graph)
    assert shaped(Fold()(graph)) == shaped(every)
