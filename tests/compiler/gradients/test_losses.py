"""Losses: values by closed form, gradients by central differences; what does not fit is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.gradients.differentiate import differentiate
from mtia_emu.compiler.gradients.losses import IGNORED, LOSSES, with_loss
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.reference import evaluate

from mtia_emu.errors import UserError
from mtia_emu.types import FP32, TensorType

RNG = np.random.default_rng(5)
X = RNG.standard_normal((4, 5)).astype(np.float32)
TARGETS = RNG.uniform(0, 1, (4, 5)).astype(np.float32)
LABELS = np.array([1, 4, IGNORED, 0], np.int64)


def model() -> Graph:
    return Graph("identity", [], {"x": TensorType(FP32, (4, 5))}, ["x"])


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def likelihood(p: np.ndarray) -> np.ndarray:
    return -(TARGETS * np.log(p) + (1 - TARGETS) * np.log(1 - p))


CASES = {
    "cross-entropy": (X, LABELS, -np.log(softmax(X))[[0, 1, 3], [1, 4, 0]].mean()),
    "bce-with-logits": (X, TARGETS, likelihood(sigmoid(X)).mean()),
    "bce": (sigmoid(X), TARGETS, likelihood(sigmoid(X)).mean()),
    "mse": (X, TARGETS, ((X - TARGETS) ** 2).mean()),
}


def test_every_loss_has_a_case() -> None:
    assert set(CASES) == set(LOSSES)


@pytest.mark.parametrize(
    ("kind", "op", "words"),
    [
        ("bce", "neg", "bce is of probabilities, and %y comes from neg, .* bce-with-logits"),
        ("bce", "sigmoid", ""),
        ("bce-with-logits", "neg", ""),
        ("bce-with-logits", "sigmoid", "is of scores, and %y is a sigmoid already"),
        ("cross-entropy", "softmax", "is of scores, and %y is a softmax already"),
        ("cross-entropy", "sigmoid", ""),
        ("mse", "sigmoid", ""),
    ],
)
def test_an_output_of_another_form_than_the_loss_is_noted(kind: str, op: str, words: str) -> None:
    attrs = " {axis=1}" if op == "softmax" else ""
    graph = text.parse(f"""graph m {{
  in %x : fp32[4,5]
  %z : fp32[4,5] = {op}(%x){attrs}
  %y : fp32[4,5] = reshape(%z) {{shape=[4, 5]}}
  out %y
}}
""")
    notes = with_loss(graph, kind).notes
    assert (re.search(words, *notes) is not None) if words else not notes


def test_bce_of_an_input_is_noted() -> None:
    assert "%x comes from an input" in with_loss(model(), "bce").notes[0]


@pytest.mark.parametrize("kind", CASES)
def test_the_loss_and_its_gradient(kind: str) -> None:
    x, target, expected = CASES[kind]
    graph = differentiate(with_loss(model(), kind), "loss", ["x"])
    found = evaluate(graph, {"x": x, "target": target})
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    slopes, step = np.zeros(x.shape), 1e-2
    for at in np.ndindex(*x.shape):
        ends = []
        for side in (step, -step):
            moved = x.copy()
            moved[at] += side
            ends.append(float(evaluate(graph, {"x": moved, "target": target})["loss"]))
        slopes[at] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(found["grad.x"], slopes, atol=5e-4)


def test_large_scores_stay_finite() -> None:
    x = np.array([[1e4, -1e4, 0, 0, 0]] * 4, np.float32)
    for kind in ("bce-with-logits", "cross-entropy"):
        target = np.array([0, 1, 0, 0]) if kind == "cross-entropy" else np.ones((4, 5), np.float32)
        found = evaluate(differentiate(with_loss(model(), kind), "loss", ["x"]), {"x": x, "target": target})
        assert np.isfinite(found["loss"]) and np.isfinite(found["grad.x"]).all()


def test_shares_of_0_and_1_stay_finite() -> None:
    x, target = np.array([[0, 1, 0, 1, 0.5]] * 4, np.float32), np.array([[0, 1, 1, 0, 1]] * 4, np.float32)
    found = evaluate(differentiate(with_loss(model(), "bce"), "loss", ["x"]), {"x": x, "target": target})
    assert found["loss"] == pytest.approx((200 - np.log(0.5)) / 5) and np.isfinite(found["grad.x"]).all()


@pytest.mark.parametrize(
    ("kind", "names", "words"),
    [
        ("mean-square", {}, "unknown loss 'mean-square'"),
        ("mse", {"output": "y"}, "output 'y'"),
        ("mse", {"target": "x"}, "has a value %x already"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, names: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        with_loss(model(), kind, **names)
