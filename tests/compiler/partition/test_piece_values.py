"""Steps in pieces, executed by references: they come to what one chip does, whatever the schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mtia_emu.compiler.partition.mesh import parse_parallel
from mtia_emu.compiler.partition.piece_values import by_references, stepped_through

from .stepped import Arrays, batches, kept, on_one_chip, pieces, step, turns


def executed(
    model: str, parallel: str, count: int, zero: int = 0, **recipe: Any
) -> tuple[Arrays, list[Arrays]]:
    """Return weights and states behind a step over a mesh, and the outputs of its micro-batches."""
    cut = pieces(model, parallel, zero, accumulate=count, **recipe)
    given = batches(step(model, accumulate=count, **recipe), count)
    order = turns(parse_parallel(parallel), count)
    return stepped_through(cut, order, kept(cut.staged.step), given, by_references(cut))


@pytest.mark.parametrize(
    ("model", "parallel", "count", "recipe"),
    [
        ("llama-tiny", "pp=2", 1, {}),
        ("llama-tiny", "pp=4,schedule=gpipe", 4, {}),
        ("llama-tiny", "pp=2,vp=2", 4, {"clip": 0.1}),
        ("resnet-tiny", "pp=2", 2, {"optimizer": "sgd{momentum=0.9}"}),
        ("dlrm-small", "pp=2", 1, {"optimizer": "adagrad"}),
        ("gpt-tiny", "pp=2", 1, {}),
    ],
)
def test_stages_come_to_the_bits_of_one_chip(
    model: str, parallel: str, count: int, recipe: dict[str, Any]
) -> None:
    right, losses = on_one_chip(
        step(model, accumulate=count, **recipe), batches(step(model, accumulate=count, **recipe), count)
    )
    got, each = executed(model, parallel, count, **recipe)
    for name, value in right.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert [x["loss"] for x in each] == [x["loss"] for x in losses]


@pytest.mark.parametrize(
    ("model", "parallel", "count", "zero", "recipe"),
    [
        ("llama-tiny", "dp=2", 3, 0, {}),
        ("llama-tiny", "dp=2,tp=2", 2, 2, {}),
        ("llama-tiny", "dp=2,tp=2,pp=2", 2, 1, {"clip": 0.1}),
        ("gpt-tiny", "dp=2,pp=2", 2, 1, {"clip": 0.1}),
        ("gpt-tiny", "pp=2", 2, 0, {"precision": "fp16", "clip": 1.0, "keep": 0.0}),
    ],
)
def test_ranks_of_stages_come_to_what_one_chip_does(
    model: str, parallel: str, count: int, zero: int, recipe: dict[str, Any]
) -> None:
    """Compared are moments, which follow gradients smoothly: Adam's first step is their sign."""
    of = step(model, accumulate=count, **recipe)
    right, losses = on_one_chip(of, batches(of, count))
    got, each = executed(model, parallel, count, zero, **recipe)
    near = 1e-4 if of.recipe.precision == "fp32" else 2e-2
    for name in (n for n in right if n.endswith(".mean")):
        scale = np.abs(right[name]).max()
        np.testing.assert_allclose(got[name], right[name], rtol=0, atol=near * scale, err_msg=name)
    np.testing.assert_allclose([x["loss"] for x in each], [x["loss"] for x in losses], rtol=near)


def test_schedules_give_equal_bits() -> None:
    """Each adds up micro-batches in their order."""
    one, other = (executed("gpt-tiny", f"pp=2,schedule={s}", 3)[0] for s in ("gpipe", "1f1b"))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_weight_of_two_stages_stays_one() -> None:
    cut = pieces("gpt-tiny", "pp=2", accumulate=2)
    after, _ = executed("gpt-tiny", "pp=2", 2)
    assert cut.staged.ties
    for alias, name in cut.staged.ties.items():
        for slot in ("", ".mean", ".square"):
            np.testing.assert_array_equal(after[f"{alias}{slot}"], after[f"{name}{slot}"])
