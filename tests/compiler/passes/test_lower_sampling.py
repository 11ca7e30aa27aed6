"""Sampling by a grid, spelt as gathers: held to the op's reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from before_after import lowered, outcomes
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes import LowerIndexing
from mtia_emu.compiler.reference import evaluate

BODY = """graph g {{
  in %x : fp32[2,3,{size}]
  in %grid : fp32[2,{out},{rank}]
  %y : fp32[2,3,{out}] = grid_sample(%x, %grid) {{{attrs}}}
  out %y
}}"""
CASES = list(itertools.product(("linear", "nearest"), ("zeros", "border"), (True, False), (2, 3)))


def body(mode: str, padding: str, *, corners: bool = True, rank: int = 2) -> str:
    size, places = (",".join(sizes[:rank]) for sizes in ("547", "643"))
    attrs = f'align_corners={str(corners).lower()}, mode="{mode}", padding="{padding}"'
    return BODY.format(size=size, out=places, rank=rank, attrs=attrs)


@pytest.mark.parametrize(("mode", "padding", "corners", "rank"), CASES)
def test_it_samples_what_the_reference_samples(mode: str, padding: str, corners: bool, rank: int) -> None:
    graph = check(text.parse(body(mode, padding, corners=corners, rank=rank)))
    made = lowered(graph, (LowerIndexing(least=0),))
    assert "grid_sample" not in {n.op for n in made.nodes}
    rng = np.random.default_rng(rank)
    shapes = {name: kind.shape for name, kind in graph.inputs.items()}
    x = rng.standard_normal(shapes["x"]).astype(np.float32)
    grid = rng.uniform(-1.6, 1.6, shapes["grid"]).astype(np.float32)  # some places are outside
    grid.flat[0], grid.flat[4], grid.flat[8] = -1.0, 1.0, np.inf
    with np.errstate(invalid="ignore"):
        right, value = (evaluate(g, {"x": x, "grid": grid})["y"] for g in (graph, made))
    assert np.isfinite(right).any()
    np.testing.assert_allclose(value, right, rtol=1e-5, atol=1e-6)


def test_values_that_are_no_numbers_stay_outside() -> None:
    graph = check(text.parse(body("linear", "zeros")))
    made = lowered(graph, (LowerIndexing(least=0),))
    x = np.full((2, 3, 5, 4), np.inf, np.float32)
    grid = np.full((2, 6, 4, 2), 3.0, np.float32)  # far outside
    assert (evaluate(made, {"x": x, "grid": grid})["y"] == 0).all()


@pytest.mark.parametrize(("mode", "padding"), [("cubic", "zeros"), ("linear", "reflection")])
def test_other_neighbours_stay_on_a_core(mode: str, padding: str) -> None:
    (reason,) = outcomes("lower-indexing{least=0}", body(mode, padding))
    assert reason.startswith(f"mode {mode} and padding {padding}")


def test_few_places_stay_on_a_core() -> None:
    (reason,) = outcomes("lower-indexing", body("linear", "zeros"))
    assert "too few" in reason
