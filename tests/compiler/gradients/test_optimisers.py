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


def muon(w: np.ndarray, g: np.ndarray, s: dict[str, np.ndarray], t: int) -> np.ndarray:
    s["m"] = 0.95 * s.get("m", 0.0) + 0.05 * g
    x = 0.95 * s["m"] + 0.05 * g
    x = x / np.linalg.norm(x)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ square @ x
    return w * (1 - 0.05 * 0.1) - 0.05 * 0.2 * max(w.shape) ** 0.5 * x


FORMULAS: dict[str, Formula] = {
    "sgd": lambda w, g, s, t: w - 0.05 * g,
    "sgd{weight_decay=0.1,momentum=0.9,nesterov=true}": sgd,
    "adam{beta1=0.8,beta2=0.99}": adam,
    "adamw{weight_decay=0.1,beta1=0.8,beta2=0.99}": adamw,
    "adagrad": adagrad,
    "adagrad{rowwise=true}": by_row,
    "muon": muon,
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


def test_muon_brings_singular_values_near_to_one_and_leaves_what_is_no_matrix_to_adamw() -> None:
    rule, bias = optimiser("muon{weight_decay=0,lr=0.02}"), TensorType(FP32, (7,))
    assert rule.states(KIND) == {"momentum": KIND} and rule.rule(False) is rule
    for other in (rule.states(bias), rule.rule(True).states(KIND)):
        assert list(other) == ["mean", "square"]
    assert rule.rule(True) == optimiser("adamw{weight_decay=0,lr=0.02,beta2=0.95}")
    steps = np.diff(np.stack([np.ones(KIND.shape), *executed(rule, 1.0)]), axis=0) / (0.2 * 4**0.5)
    for change in steps:
        assert np.all(np.abs(np.linalg.svd(change, compute_uv=False) - 0.95) < 0.3), (
            "0.68 to 1.13 of five steps"
        )


def test_muon_is_torchs() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: its Muon is the oracle here")
    w = torch.nn.Parameter(torch.ones(KIND.shape))
    rule = torch.optim.Muon([w], lr=0.05, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for gradient, found in zip(GRADIENTS, executed(optimiser("muon"), 0.05), strict=True):
        w.grad = torch.tensor(gradient, dtype=torch.float32)
        rule.step()
        # torch's products are in bf16: each change, of elements up to 0.02, is off by some hundredths
        np.testing.assert_allclose(found, w.detach().numpy(), atol=0.004)


def test_each_matrix_of_a_stack_is_one_by_itself() -> None:
    rule, at = optimiser("muon"), Moment("rate", "step")
    values = RNG.standard_normal((3, 5, 4)).astype(np.float32)
    scalars = {"rate": np.float32(0.1), "step": np.float32(1)}

    def changed(gradient: np.ndarray) -> np.ndarray:
        kind = TensorType(FP32, gradient.shape)
        graph = Graph(
            "u", [], {"w": kind, "g": kind, "m": kind} | dict.fromkeys(scalars, TensorType(FP32, ())), ["w"]
        )
        b = NodeBuilder(graph)
        new, _ = rule.update(Arithmetic(b, "w"), "w", "g", {"momentum": "m"}, at)
        zero = np.zeros_like(gradient)
        return evaluate(
            joined(graph, b, (named(b, new, "next"),)), {"w": zero, "m": zero, "g": gradient} | scalars
        )["next"]

    np.testing.assert_allclose(changed(values), [changed(v) for v in values], atol=1e-6)


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
