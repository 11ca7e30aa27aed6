"""Optimisers: their nodes against the published formulas in doubles, over several steps; their spelling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mtia_emu.compiler.build import NodeBuilder
from mtia_emu.compiler.gradients.arithmetic import Arithmetic
from mtia_emu.compiler.gradients.differentiate import joined, named
from mtia_emu.compiler.gradients.optimisers import OPTIMISERS, Moment, Optimiser, optimiser
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.reference import evaluate

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, TensorType

KIND = TensorType(FP32, (4, 3))
RNG = np.random.default_rng(2)
GRADIENTS = RNG.standard_normal((6, 4, 3))
Formula = Callable[[np.ndarray, np.ndarray, dict[str, np.ndarray], int], np.ndarray]


def graph_of(rule: Optimiser) -> Graph:
    states = rule.states(KIND)
    inputs = {"w": KIND, "g": KIND, "rate": TensorType(FP32, ()), "step": TensorType(FP32, ()), **states}
    graph = Graph("update", [], inputs, ["w"])
    b = NodeBuilder(graph)
    new, after = rule.update(Arithmetic(b, "w"), "w", "g", {s: s for s in states}, Moment("rate", "step"))
    outputs = [named(b, new, "next")] + [named(b, v, f"{s}.next") for s, v in after.items()]
    return joined(graph, b, outputs)


def executed(rule: Optimiser, rate: float) -> list[np.ndarray]:
    """Return the weight after each step, from ones."""
    graph, w, seen = graph_of(rule), np.ones(KIND.shape, np.float32), []
    state = {s: np.zeros(k.shape, np.float32) for s, k in rule.states(KIND).items()}
    for i, gradient in enumerate(GRADIENTS, 1):
        scalars = {"rate": np.float32(rate), "step": np.float32(i)}
        found = evaluate(graph, {"w": w, "g": gradient.astype(np.float32), **scalars, **state})
        w, state = found["next"], {s: found[f"{s}.next"] for s in state}
        seen.append(w)
    return seen


def sgd(w: np.ndarray, g: np.ndarray, s: dict[str, np.ndarray], t: int) -> np.ndarray:
    g = g + 0.1 * w
    s["m"] = 0.9 * s.get("m", 0.0) + g
    return w - 0.05 * (g + 0.9 * s["m"])


def adam(w: np.ndarray, g: np.ndarray, s: dict[str, np.ndarray], t: int) -> np.ndarray:
    s["m"] = 0.8 * s.get("m", 0.0) + 0.2 * g
    s["v"] = 0.99 * s.get("v", 0.0) + 0.01 * g * g
    m, v = s["m"] / (1 - 0.8**t), s["v"] / (1 - 0.99**t)
    return w - 0.05 * m / (np.sqrt(v) + 1e-8)


def adamw(w: np.ndarray, g: np.ndarray, s: dict[str, np.ndarray], t: int) -> np.ndarray:
    return adam(w * (1 - 0.05 * 0.1), g, s, t)


def adagrad(w: np.ndarray, g: np.ndarray, s: dict[str, np.ndarray], t: int) -> np.ndarray:
    s["sum"] = s.get("sum", 0.0) + g * g
    return w - 0.05 * g / (np.sqrt(s["sum"]) + 1e-10)


def by_row(w: np.ndarray, g: np.ndarray, s: dict[str, np.ndarray], t: int) -> np.ndarray:
    s["sum"] = s.get("sum", 0.0) + (g * g).mean(axis=1, keepdims=True)
    return w - 0.05 * g / (np.sqrt(s["sum"]) + 1e-10)


FORMULAS: dict[str, Formula] = {
    "sgd": lambda w, g, s, t: w - 0.05 * g,
    "sgd{weight_decay=0.1,momentum=0.9,nesterov=true}": sgd,
    "adam{beta1=0.8,beta2=0.99}": adam,
    "adamw{weight_decay=0.1,beta1=0.8,beta2=0.99}": adamw,
    "adagrad": adagrad,
    "adagrad{rowwise=true}": by_row,
}


@pytest.mark.parametrize("spelling", FORMULAS)
def test_steps_are_those_of_the_formula(spelling: str) -> None:
    w, state = np.ones(KIND.shape), dict[str, np.ndarray]()
    for i, (gradient, found) in enumerate(
        zip(GRADIENTS, executed(optimiser(spelling), 0.05), strict=True), 1
    ):
        w = FORMULAS[spelling](w, gradient, state, i)
        np.testing.assert_allclose(found, w, atol=1e-6)


def test_every_optimiser_has_a_formula() -> None:
    assert {spelling.partition("{")[0] for spelling in FORMULAS} == set(OPTIMISERS)


def test_rows_share_a_sum() -> None:
    assert optimiser("adagrad{rowwise=true}").states(KIND) == {"sum": TensorType(FP32, (4, 1))}
    assert optimiser("sgd").states(KIND) == {}


def test_the_spelling_comes_back() -> None:
    for text in ("adamw{lr=0.0003,weight_decay=0.1}", "sgd{momentum=0.9,nesterov=true}", "adam"):
        assert optimiser(text).spelling == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("adamx", "unknown optimizer 'adamx'; did you mean 'adam"),
        ("adam{rate=1}", "unknown option of adam 'rate'"),
        ("adam{lr=fast}", "lr='fast' .right: a number from 0 to below 1e.38"),
        ("adam{lr=1e40}", "lr='1e40' .right: a number from 0 to below 1e.38"),
        ("adam{beta1=1}", "beta1='1' .right: a number from 0 to below 1"),
        ("sgd{nesterov=1}", "nesterov='1' .right: true or false"),
        ("sgd{lr=nan}", "lr='nan'"),
        ("sgd{lr=1,lr=2}", "gives lr twice"),
        ("sgd lr=1", "right: adamw{lr=3e-4,weight_decay=0.1}"),
    ],
)
def test_what_is_no_optimiser_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        optimiser(text)
