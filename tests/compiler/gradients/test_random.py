"""Random training graphs: forward and backward, held to onnxruntime at every stage down to the program."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler.build import NodeBuilder
from mtia_emu.compiler.check import check
from mtia_emu.compiler.gradients.differentiate import differentiate, joined, named
from mtia_emu.compiler.graph import Graph

from mtia_emu.testing.fuzz import mismatch_of, numbered_graph

pytest.importorskip("onnxruntime")
SEED = 11
DEEP = 400


def training(graph: Graph, seed: int) -> Graph | None:
    """Return a graph with the gradients of a weighted mean of its float outputs; None without any."""
    b, rng, total = NodeBuilder(graph), np.random.default_rng(seed), ""
    for value in graph.outputs:
        kind = graph.type_of(value)
        if kind.dtype.is_float and kind.size:
            weights = b.constant(rng.integers(-2, 3, kind.shape) / 4.0, np.dtype(np.float32))
            part = b.add("mul", b.add("cast", value, to="fp32"), weights)
            axes = tuple(range(kind.rank))
            part = b.add("reduce_mean", part, axes=axes, keepdims=False) if axes else part
            total = b.add("add", total, part) if total else part
    if not total:
        return None
    whole = joined(graph, b, (named(b, total, "loss"),))
    wrt = [n for n, t in whole.inputs.items() if t.dtype.is_float]
    wrt += [n for n, c in whole.consts.items() if c.type.dtype.is_float and c.type.size > 1]
    return check(differentiate(whole, "loss", wrt)) if wrt else None


def held(numbers: range) -> int:
    """Return how many graphs could be differentiated; fail where one computes something else."""
    found = [(number, training(numbered_graph(SEED, number), number)) for number in numbers]
    for number, graph in found:
        wrong = mismatch_of(graph, SEED, number) if graph is not None else None
        assert wrong is None, (number, wrong)
    return sum(graph is not None for _, graph in found)


def test_random_training_graphs() -> None:
    assert held(range(8)) >= 7


@pytest.mark.deep
@pytest.mark.parametrize("chunk", range(DEEP // 20))
def test_many_random_training_graphs(chunk: int) -> None:
    assert held(range(8 + 20 * chunk, 28 + 20 * chunk)) >= 15
