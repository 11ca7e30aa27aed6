"""Products in 8 bits: which, in which format, by which scales; how far losses are from those of fp32."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.gradients.optimisers import optimiser
from mtia_emu.compiler.gradients.step import Recipe, TrainingStep, training_step
from mtia_emu.compiler.graph import Const
from mtia_emu.compiler.reference import evaluate

from mtia_emu.types import FP8_E4M3, FP8_E5M2

RNG = np.random.default_rng(6)
MODEL = text.parse("""graph mlp {
  in %x : fp32[16,24]
  in %a : fp32[24,32]
  in %b : fp32[32]
  in %c : fp32[8,32]
  %h : fp32[16,32] = matmul(%x, %a, %b)
  %r : fp32[16,32] = relu(%h)
  %t : fp32[32,8] = transpose(%c) {perm=[1, 0]}
  %y : fp32[16,8] = matmul(%r, %t)
  out %y
}
""")
WEIGHTS = {n: RNG.standard_normal(MODEL.inputs[n].shape).astype(np.float32) / 4 for n in "abc"}
X, LABELS = RNG.standard_normal((16, 24)).astype(np.float32), RNG.integers(0, 8, 16)
STORED = {name: Const.of(array) for name, array in WEIGHTS.items()}


def step_of(**recipe: Any) -> TrainingStep:
    return training_step(MODEL, STORED, Recipe("cross-entropy", optimiser("sgd"), **recipe))


def losses(step: TrainingStep, count: int, rate: float = 0.5, **also: np.ndarray) -> list[float]:
    kept = {n: np.zeros(k.shape, np.float32) for n, k in step.states.items()}
    for name, array in WEIGHTS.items():
        kept |= {name: array} | ({f"{name}.master": array} if f"{name}.master" in kept else {})
    given = {"x": X, "target": LABELS, "learning_rate": np.float32(rate), "step": np.float32(1)} | also
    found = []
    for _ in range(count):
        typed = {n: np.asarray((given | kept)[n]).astype(t.dtype.numpy) for n, t in step.graph.inputs.items()}
        out = evaluate(step.graph, typed)
        kept = {old: out[new] for new, old in step.graph.states.items()}
        found.append(float(out["loss"]))
    return found


def test_layers_multiply_e4m3_and_gradients_are_e5m2() -> None:
    graph = step_of(precision="fp8").graph
    pairs = [
        (
            "back" if n.origin.endswith("(backward)") else "fore",
            *(graph.type_of(v).dtype for v in n.inputs[:2]),
        )
        for n in graph.nodes
        if n.op == "matmul"
    ]
    assert pairs[:2] == [("fore", FP8_E4M3, FP8_E4M3)] * 2
    assert all({a, b} == {FP8_E4M3, FP8_E5M2} for where, a, b in pairs[2:]) and len(pairs) == 5
    assert {where for where, *_ in pairs[2:]} == {"back"}, "by c, by r, and by a: x is not trained"


def test_each_tensor_is_rounded_once() -> None:
    """x, a, r, c forward, two gradients backward: a transposed weight is the weight's codes transposed."""
    graph = step_of(precision="fp8").graph
    casts = [n for n in graph.nodes if n.op == "cast" and n.type.dtype in (FP8_E4M3, FP8_E5M2)]
    assert [n.type.dtype for n in casts].count(FP8_E4M3) == 4
    assert [n.type.dtype for n in casts].count(FP8_E5M2) == 2


def rounded(x: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Return a tensor as e4m3 has it with its largest magnitude at 448, and the scale, by ml_dtypes alone."""
    x = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    scale = np.abs(x).max() / np.float32(448)
    return (x / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32), scale


def test_a_layer_is_the_product_of_what_ml_dtypes_rounds() -> None:
    step = step_of(precision="fp8")
    graph = step.graph.with_nodes(step.graph.nodes, outputs=["h"])
    given = {"x": X, **WEIGHTS}
    typed = {
        n: np.asarray(given.get(n, np.zeros(t.shape))).astype(t.dtype.numpy) for n, t in graph.inputs.items()
    }
    (x, one), (a, other) = rounded(X), rounded(WEIGHTS["a"])
    right = (x.astype(np.float64) @ a) * one * other + WEIGHTS["b"].astype(ml_dtypes.bfloat16).astype(
        np.float64
    )
    got = evaluate(graph, typed)["h"].astype(np.float64)
    np.testing.assert_allclose(got, right, rtol=2**-7, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize("power", [-30, -20, 30])
def test_scales_follow_the_size_of_a_tensor(power: int) -> None:
    """Of weights times 2^p the sums are those times 2^p: nothing is lost or too large in 8 bits."""
    graph = step_of(precision="fp8").graph
    graph = graph.with_nodes(graph.nodes, outputs=["y"])
    shared = {n: np.zeros(t.shape, t.dtype.numpy) for n, t in graph.inputs.items()}
    shared |= {
        n: np.asarray(v).astype(graph.inputs[n].dtype.numpy)
        for n, v in {"x": X, **WEIGHTS, "b": 0 * WEIGHTS["b"]}.items()
    }
    scaled = shared | {"c": (shared["c"].astype(np.float32) * 2.0**power).astype(shared["c"].dtype)}
    one, other = (evaluate(graph, given)["y"].astype(np.float64) for given in (shared, scaled))
    np.testing.assert_allclose(other, one * 2.0**power, rtol=2**-7, atol=1e-3 * np.abs(other).max())


@pytest.mark.parametrize("recipe", [{}, {"keep": 0.0}, {"rounding": "stochastic"}])
def test_losses_stay_within_a_tenth_of_those_of_fp32_and_fall(recipe: dict[str, Any]) -> None:
    exact = losses(step_of(), 20)
    got = losses(step_of(precision="fp8", **recipe), 20, draw=np.uint32(1))
    gap = np.abs(np.subtract(got, exact)).max() / exact[0]
    assert 1e-5 < gap < 0.1 and got[-1] < 0.8 * got[0]
