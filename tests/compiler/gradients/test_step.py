"""Training steps as graphs: what goes in and out, micro-batches, clipping, fp32 masters, skipped steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.gradients.optimisers import optimiser
from mtia_emu.compiler.gradients.step import Recipe, TrainingStep, training_step
from mtia_emu.compiler.graph import Const
from mtia_emu.compiler.reference import evaluate

from mtia_emu.errors import UserError

RNG = np.random.default_rng(4)
MODEL = text.parse("""graph mlp {
  in %x : fp32[8,5]
  in %a : fp32[5,6]
  in %b : fp32[6]
  in %c : fp32[6,3]
  %h : fp32[8,6] = matmul(%x, %a, %b)
  %r : fp32[8,6] = relu(%h)
  %y : fp32[8,3] = matmul(%r, %c)
  out %y
}
""")
WEIGHTS = {n: RNG.standard_normal(MODEL.inputs[n].shape).astype(np.float32) / 2 for n in "abc"}
X, LABELS = RNG.standard_normal((8, 5)).astype(np.float32), RNG.integers(0, 3, 8)
STORED = {name: Const.of(array) for name, array in WEIGHTS.items()}


def step_of(spelling: str = "sgd", **recipe: Any) -> TrainingStep:
    return training_step(MODEL, STORED, Recipe("cross-entropy", optimiser(spelling), **recipe))


def first(step: TrainingStep) -> dict[str, np.ndarray]:
    kept = {n: np.zeros(k.shape, np.float32) for n, k in step.states.items()}
    for name, array in WEIGHTS.items():
        kept[name] = array.astype(step.graph.inputs[name].dtype.numpy)
        if f"{name}.master" in kept:
            kept[f"{name}.master"] = array
    return kept


def once(
    step: TrainingStep, kept: dict[str, np.ndarray], micro: bool = False, **more: Any
) -> dict[str, np.ndarray]:
    graph = step.micro if micro and step.micro is not None else step.graph
    given = {
        "x": X,
        "target": LABELS,
        "learning_rate": np.float32(0.1),
        "step": np.float32(1),
        **kept,
        **more,
    }
    typed = {n: np.asarray(given[n]).astype(graph.inputs[n].dtype.numpy) for n in graph.inputs}
    found = evaluate(graph, typed)
    return {**found, **{old: found[new] for new, old in graph.states.items()}}


def rounded_at_random(step: TrainingStep, draws: int, **more: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return what a weight would become, in fp32, and the mean over draws of what it does."""
    maker = step.graph.producer(step.graph.producer("a.next").inputs[0])  # type: ignore[union-attr]
    assert maker is not None and maker.op == "round_random"
    graph = step.graph.with_nodes(step.graph.nodes, outputs=[*step.graph.outputs, maker.inputs[0]])
    kept, found = first(step), list[np.ndarray]()
    for draw in range(draws):
        out = once(replace(step, graph=graph), kept, draw=draw, **more)
        exact = out[maker.inputs[0]]
        found.append(out["a.next"].astype(np.float64))
    return exact.astype(np.float64), np.mean(found, axis=0)


def gradient(name: str) -> np.ndarray:
    """Return the slope of the loss by a weight, by central differences."""
    step, kept, slopes = step_of(), first(step_of()), np.zeros(WEIGHTS[name].shape)
    for at in np.ndindex(*slopes.shape):
        ends = []
        for side in (1e-2, -1e-2):
            moved = WEIGHTS[name].copy()
            moved[at] += side
            ends.append(float(once(step, {**kept, name: moved})["loss"]))
        slopes[at] = (ends[0] - ends[1]) / 2e-2
    return slopes


def test_weights_and_states_live_in_place() -> None:
    step = step_of("adamw")
    assert dict(step.graph.states) == {f"{n}.next": n for n in [*"abc", *step.states]}
    assert step.data == ("x", "target")
    assert {step.kind_of(n) for n in ("a", "a.mean", "x")} == {"weights", "optimizer", "data"}
    assert text.parse(text.dump(step.graph)).states == step.graph.states


def test_a_step_of_descent_follows_the_slope() -> None:
    after = once(step_of(), first(step_of()))
    for name in "abc":
        np.testing.assert_allclose(after[name], WEIGHTS[name] - 0.1 * gradient(name), atol=3e-4)


def test_gradients_are_clipped_by_the_norm_of_all() -> None:
    plain, kept = once(step_of(), first(step_of())), first(step_of())
    norm = np.sqrt(sum(((kept[n] - plain[n]) ** 2).sum() for n in "abc")) / 0.1
    clipped = once(step_of(clip=norm / 2), kept)
    assert clipped["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    for name in "abc":
        np.testing.assert_allclose(
            kept[name] - clipped[name], (kept[name] - plain[name]) / 2, rtol=1e-3, atol=1e-6
        )
    loose = once(step_of(clip=10 * norm), kept)
    np.testing.assert_allclose(loose["a"], plain["a"], atol=1e-6)


def test_the_sum_of_micro_batches_is_clipped_not_the_last_one_alone() -> None:
    """As torch.nn.utils.clip_grad_norm_ does between the last backward and the step."""
    plain, kept = once(step_of(), first(step_of())), first(step_of())
    norm = np.sqrt(sum(((kept[n] - plain[n]) ** 2).sum() for n in "abc")) / 0.1
    step = step_of(clip=norm / 2, accumulate=3)
    now = first(step)
    for _ in range(2):
        now |= {n: v for n, v in once(step, now, micro=True).items() if n in now}
    clipped = once(step, now)
    assert clipped["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    for name in "abc":
        np.testing.assert_allclose(
            kept[name] - clipped[name], (kept[name] - plain[name]) / 2, rtol=1e-3, atol=1e-6
        )


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_equal_micro_batches_are_as_one(rule: str) -> None:
    step, plain = step_of(rule, accumulate=3), once(step_of(rule), first(step_of(rule)))
    kept = first(step)
    for _ in range(2):
        kept |= {n: v for n, v in once(step, kept, micro=True).items() if n in kept}
    after = once(step, kept)
    for name in "abc":
        np.testing.assert_allclose(after[name], plain[name], atol=1e-6)
        assert (after[f"{name}.sum_of_gradients"] == 0).all()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_narrow_floats_have_masters(precision: str) -> None:
    step = step_of("sgd", precision=precision)
    kept = first(step)
    after = once(step, kept, loss_scale=np.float32(128))
    wide = once(step_of(), first(step_of()))
    for name in "abc":
        assert after[name].dtype == step.graph.inputs[name].dtype.numpy != np.float32
        np.testing.assert_array_equal(after[name], after[f"{name}.master"].astype(after[name].dtype))
        np.testing.assert_allclose(after[f"{name}.master"], wide[name], atol=5e-3)


def test_a_step_whose_gradients_overflow_changes_nothing() -> None:
    step = step_of("adam", precision="fp16")
    kept = first(step)
    after = once(step, kept, loss_scale=np.float32(1e9))
    assert not np.isfinite(after["gradient_norm"])
    for name in kept:
        np.testing.assert_array_equal(after[name], kept[name])


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"precision": "fp4"}, "--precision 'fp4' .right: fp32, bf16, fp16, fp8"),
        ({"accumulate": 0}, "accumulate 0"),
        ({"output": "z"}, "output 'z'"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(recipe: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        step_of(**recipe)


def test_weights_rounded_at_random_are_right_in_the_mean_where_the_nearest_ones_stand_still() -> None:
    """Within five standard deviations: a rounding is off by half a unit at most, 2^-9 of the value."""
    step, draws = step_of(precision="bf16", rounding="stochastic"), 400
    assert not step.states, "and there are no masters"
    exact, mean = rounded_at_random(step, draws, learning_rate=np.float32(1e-3))
    unit = 2.0 ** (np.floor(np.log2(np.abs(exact))) - 7)
    assert (np.abs(mean - exact) <= 5 * unit / 2 / np.sqrt(draws)).all()
    assert abs(((mean - exact) / unit).mean()) < 5 * 0.5 / np.sqrt(draws * exact.size)
    before = first(step)["a"].astype(np.float64)
    nearest = exact.astype(np.float32).astype(first(step)["a"].dtype).astype(np.float64)
    still = (nearest == before) & (exact != before)
    assert still.sum() > 10 and (mean != before)[still].mean() > 0.5


def test_a_draw_rounds_one_way_and_weights_independently() -> None:
    step = step_of("sgd{momentum=0.9}", precision="bf16", rounding="stochastic")
    one, same, other = (once(step, first(step), draw=d) for d in (1, 1, 2))
    assert set(step.states) == {"a.momentum", "b.momentum", "c.momentum"}
    assert all(np.array_equal(one[n], same[n]) for n in one)
    assert any(not np.array_equal(one[n], other[n]) for n in WEIGHTS)
    rows = [n.inputs[0] for n in step.graph.nodes if n.op == "philox"]
    numbers = np.concatenate([step.graph.consts[r].array(r).ravel() for r in rows])
    assert len(np.unique(numbers)) == len(numbers), "no two rows share a counter"


def test_rows_of_a_table_are_rounded_at_random_too() -> None:
    table = text.parse("""graph t {
  in %i : int64[4]
  in %a : fp32[50,6]
  %y : fp32[4,6] = gather(%a, %i) {axis=0}
  out %y
}
""")
    stored = {"a": Const.of(RNG.standard_normal((50, 6)).astype(np.float32))}
    recipe = Recipe("mse", optimiser("sgd{lr=0.1}"), precision="bf16", rounding="stochastic")
    step = training_step(table, stored, recipe)
    weight = stored["a"].array("a").astype(step.graph.inputs["a"].dtype.numpy)
    given = {"i": np.array([3, 7, 3, 9]), "a": weight, "target": np.zeros((4, 6), np.float32)}
    scalars = {"learning_rate": np.float32(0.1), "step": np.float32(1), "draw": np.uint32(4)}
    new = evaluate(step.graph, given | {n: v for n, v in scalars.items() if n in step.graph.inputs})["a.next"]
    assert not step.states and new.dtype == weight.dtype
    changed = (new != weight).any(axis=1).nonzero()[0]
    assert set(changed) <= {3, 7, 9} and len(changed)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"rounding": "random"}, "--rounding 'random' .right: nearest or stochastic"),
        ({"rounding": "stochastic"}, "is of weights in bf16, precision is fp32"),
        ({"rounding": "stochastic", "precision": "fp16"}, "is of weights in bf16, precision is fp16"),
    ],
)
def test_a_rounding_that_does_not_fit_is_refused(recipe: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        step_of(**recipe)
