"""Random training graphs: slopes held to central differences in doubles; programs to onnxruntime.

What is computed of forward and backward is held to onnxruntime at every stage down to the program. That it is
the gradient is seen in doubles: the change of a weighted sum of all outputs along a random direction of all
floats, inputs and constants.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mtia_emu.compiler.build import NodeBuilder
from mtia_emu.compiler.check import check
from mtia_emu.compiler.gradients.differentiate import differentiate, joined, named
from mtia_emu.compiler.graph import Const, Graph, freeze_attrs
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.ops.backward import GRADIENTS, Back
from mtia_emu.compiler.reference import evaluate

from mtia_emu.testing.fuzz import mismatch_of, numbered_graph
from mtia_emu.types import FP64, TensorType

pytest.importorskip("onnxruntime")
SEED = 11
DEEP = 400
SLOPES, CHUNK = 2000, 250
NARROW = ("fp32", "fp16", "bf16")
WAYS = (1e-6, 1e-5, 1e-7, 1e-4)  # along a direction: at one of them no kink is between the ends
FINITE = 1e6  # constants beyond it hide scores
Arrays = dict[str, np.ndarray]


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


def wide(kind: TensorType) -> TensorType:
    return TensorType(FP64, kind.shape) if kind.dtype.name in NARROW else kind


def doubled(graph: Graph) -> Graph:
    """Return a graph whose floats are doubles, and no longer rounded on purpose."""
    nodes = []
    for node in graph.nodes:
        attrs = {
            k: "fp64" if k == "to" and v in NARROW else v for k, v in node.attrs.items() if k != "rounds"
        }
        nodes.append(replace(node, types=tuple(map(wide, node.types)), attrs=freeze_attrs(attrs)))
    consts = {
        n: Const(wide(c.type), c.array(n).astype(wide(c.type).dtype.numpy)) for n, c in graph.consts.items()
    }
    inputs = {n: wide(t) for n, t in graph.inputs.items()}
    return Graph(graph.name, nodes, inputs, graph.outputs, consts)


def opened(graph: Graph) -> tuple[Graph, Arrays]:
    """Return a graph whose constants of doubles are inputs, and their values."""
    floats = {n: c for n, c in graph.consts.items() if c.type.dtype == FP64 and c.type.size > 1}
    inputs = {**graph.inputs, **{n: c.type for n, c in floats.items()}}
    rest = {n: c for n, c in graph.consts.items() if n not in floats}
    return Graph(graph.name, graph.nodes, inputs, graph.outputs, rest), {
        n: c.array(n) for n, c in floats.items()
    }


def summed(graph: Graph, rng: np.random.Generator) -> Graph | None:
    """Return a graph with a weighted sum of its outputs of doubles, `loss`; None where it has none."""
    b, total = NodeBuilder(graph), ""
    for value in graph.outputs:
        kind = graph.type_of(value)
        if kind.dtype == FP64 and kind.size:
            part = b.add("mul", value, b.constant(rng.standard_normal(kind.shape), np.dtype(np.float64)))
            axes = tuple(range(kind.rank))
            part = b.add("reduce_sum", part, axes=axes, keepdims=False) if axes else part
            total = b.add("add", total, part) if total else part
    return joined(graph, b, (named(b, total, "loss"),)) if total else None


def slopes(number: int) -> tuple[float, list[float], float] | None:
    """Return the slope of a random graph by its gradients, and by differences; and the size of its terms.

    Differences end where one agrees. None of a graph without floats to go in or out.
    """
    rng, given = np.random.default_rng(number), numbered_graph(SEED, number)
    graph, stored = opened(doubled(given))
    whole = summed(graph, rng)
    wrt = [n for n, t in graph.inputs.items() if t.dtype == FP64]
    if whole is None or not wrt:
        return None
    at = {n: rng.standard_normal(t.shape) if t.dtype == FP64 else x for (n, t), x in _given(graph, given)}
    at |= {n: x * (1 + 1e-3 * rng.standard_normal(x.shape)) for n, x in stored.items()}
    way = {n: np.where(np.abs(at[n]) < FINITE, rng.standard_normal(at[n].shape), 0) for n in wrt}
    back = differentiate(whole, "loss", wrt)
    with np.errstate(all="ignore"):
        found = evaluate(back, at)
        terms = [found[v] * way[n] for n, v in zip(wrt, back.outputs[-len(wrt) :], strict=True)]
        slope, size, seen = float(sum(t.sum() for t in terms)), sum(float(np.abs(t).sum()) for t in terms), []
        for step in WAYS:
            ends = [
                float(evaluate(whole, at | {n: at[n] + s * way[n] for n in wrt})["loss"])
                for s in (step, -step)
            ]
            seen.append((ends[0] - ends[1]) / (2 * step))
            if near(slope, seen[-1], size, max(1.0, abs(ends[0])) / step):
                break
    return slope, seen, size


def _given(graph: Graph, given: Graph) -> list[tuple[tuple[str, TensorType], np.ndarray]]:
    """Return the inputs with arrays that their indices may be."""
    arrays = random_inputs(given, 0)
    return [((n, t), arrays.get(n, np.zeros(0))) for n, t in graph.inputs.items()]


def near(slope: float, seen: float, size: float, rounding: float) -> bool:
    """Return whether two slopes are one, as far as terms that cancel and the digits of doubles allow."""
    return abs(seen - slope) <= 1e-4 * max(abs(slope), 1e-3 * size) + 1e-12 * rounding


def wrong(numbers: range) -> list[tuple[int, float, list[float]]]:
    """Return the graphs whose slopes are apart; NaN is one of them where the differences are numbers."""
    found = [(number, slopes(number)) for number in numbers]
    return [(n, s[0], s[1]) for n, s in found if s is not None and len(s[1]) == len(WAYS)]


@pytest.mark.parametrize("start", range(0, SLOPES, CHUNK))
def test_slopes_of_random_graphs(start: int) -> None:
    assert wrong(range(start, start + CHUNK)) == []


def test_a_wrong_rule_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(b: Back) -> tuple[str, ...]:
        return (b.times(b.grad, 0.999),)

    monkeypatch.setitem(GRADIENTS, "tanh", flat)
    assert len(wrong(range(60))) > 3
