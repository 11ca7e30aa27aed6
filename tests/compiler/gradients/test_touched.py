"""Tables of which rows are looked up: steps that change those rows alone, beside steps of whole tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.gradients.optimisers import optimiser
from mtia_emu.compiler.gradients.step import Recipe, TrainingStep, training_step
from mtia_emu.compiler.graph import Const
from mtia_emu.compiler.pipeline import Compiled, compile_graph
from mtia_emu.compiler.reference import core_library, evaluate

import mtia_emu
from mtia_emu.engine.function import execute
from mtia_emu.engine.run import report
from mtia_emu.errors import UserError
from mtia_emu.options import Options

Arrays = dict[str, np.ndarray[Any, Any]]
SAME = ("sgd", "adagrad", "adagrad{rowwise=true}")  # rows without a gradient stay as they are
LAZY = (
    *("sgd{momentum=0.9}", "sgd{momentum=0.5,nesterov=true,weight_decay=0.1}", "adam", "adamw"),
    "adagrad{weight_decay=0.1}",
)
FAR = 60  # more rows than are looked up


def step_of(spelling: str, rows: int, count: int, dim: int = 3, **recipe: Any) -> TrainingStep:
    """Return a step of bags of two rows of a table, which another look-up reads as well."""
    graph = text.parse(f"""graph tables {{
  in %i : int64[{count}]
  in %j : int64[{count // 2}]
  in %o : int64[{count // 2 + 1}]
  in %table : fp32[{rows},{dim}]
  in %w : fp32[{dim},1]
  %bag : fp32[{count // 2},{dim}] = embedding_bag(%table, %i, %o) {{mode="mean"}}
  %one : fp32[{count // 2},{dim}] = gather(%table, %j) {{axis=0}}
  %x : fp32[{count // 2},{dim}] = mul(%bag, %one)
  %y : fp32[{count // 2},1] = matmul(%x, %w)
  out %y
}}
""")
    stored = {n: Const.of(np.zeros(graph.inputs[n].shape, np.float32)) for n in ("table", "w")}
    return training_step(graph, stored, Recipe("mse", optimiser(spelling), **recipe))


def values(step: TrainingStep, indices: list[int]) -> Arrays:
    """Return what a third step is given: a table, and states that are not 0."""
    rng, half = np.random.default_rng(len(indices)), len(indices) // 2
    made: Arrays = {name: rng.random(kind.shape, np.float32) for name, kind in step.graph.inputs.items()}
    index = np.array(indices, np.int64)
    offsets = np.arange(0, len(indices) + 1, 2)
    scalars = {"learning_rate": np.float32(0.1), "step": np.float32(3)}
    return made | {"i": index, "j": index[half:], "o": offsets} | scalars


def after(step: TrainingStep, given_: Arrays) -> Arrays:
    found = evaluate(step.graph, {n: given_[n] for n in step.graph.inputs})
    return {old: found[new] for new, old in step.graph.states.items()}


def some(rows: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(-rows, rows - 1), min_size=2, max_size=16).map(lambda x: x[: len(x) // 2 * 2])


@pytest.mark.parametrize("spelling", SAME)
@settings(max_examples=15)
@given(indices=some(FAR))
@example(indices=[7] * 12)  # all equal
@example(indices=[3, -57] * 4 + [3, 9])  # a hot row by two names
def test_rows_become_what_they_do_in_a_step_of_the_whole_table(spelling: str, indices: list[int]) -> None:
    found, whole = (step_of(spelling, FAR, len(indices), embeddings=kind) for kind in ("rows", "tables"))
    given_ = values(found, indices)
    mine, theirs = after(found, given_), after(whole, given_)
    for name in mine:
        np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spelling", LAZY)
@settings(max_examples=10)
@given(indices=some(FAR))
@example(indices=[7] * 12)
def test_what_moves_all_rows_waits_for_a_look_up(spelling: str, indices: list[int]) -> None:
    """The rows that are looked up, as a table of their own, take a step of the whole of it."""
    step = step_of(spelling, FAR, len(indices))
    given_ = values(step, indices)
    rows, named = np.unique(np.array(indices) % FAR, return_inverse=True)
    small = step_of(spelling, len(rows), len(indices), embeddings="tables")
    less = {n: a[rows] if a.ndim and a.shape[0] == FAR else a for n, a in given_.items()} | {
        "i": named,
        "j": named[len(named) // 2 :],
    }
    mine, theirs = after(step, given_), after(small, less)
    others = np.setdiff1d(np.arange(FAR), rows)
    for name in mine:
        if name.startswith("table"):
            np.testing.assert_array_equal(mine[name][others], given_[name][others])
            np.testing.assert_allclose(mine[name][rows], theirs[name], rtol=2e-6, atol=1e-6)


def compiled(step: TrainingStep, chip: mtia_emu.Chip) -> Compiled:
    return compile_graph(step.graph, chip, options=Options.of(dtype="fp32"))


@pytest.mark.parametrize("spelling", ["sgd", "adagrad{rowwise=true}", "adam"])
def test_bits_are_the_same_on_grids_of_any_size(spelling: str) -> None:
    hot = [5, 5, 5, 1, 59, 5, -1, 5, 40, 5, 40, 1, 5, 5]
    step, found = step_of(spelling, FAR, len(hot)), []
    given_ = values(step, hot)
    for sides in ((1, 1), (2, 4), (8, 8)):
        chip = mtia_emu.load_chip("mtia-2i", {"grid.rows": sides[0], "grid.cols": sides[1]})
        program = compiled(step, chip).program
        arrays = {b.name: given_[b.name] for b in program.inputs}
        made = execute(program, chip, arrays, core_library()).outputs
        found.append({old: made[new] for new, old in step.graph.states.items() if old.startswith("table")})
    expected = after(step, given_)
    for name, value in found[0].items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)
        assert all(value.tobytes() == other[name].tobytes() for other in found[1:])


@pytest.mark.parametrize("spelling", ["sgd", "adagrad", "adam"])
def test_a_step_costs_what_is_looked_up_and_not_what_the_table_holds(spelling: str) -> None:
    """What is left of the table's rows: bytes of their numbers, equal draws, and what the cache keeps."""
    chip = mtia_emu.load_chip("mtia-2i")
    few, many = (
        report(compiled(step_of(spelling, rows, 512, 32), chip).program, chip) for rows in (10**4, 10**6)
    )
    assert many.seconds == pytest.approx(few.seconds, rel=0.05)
    assert many.traffic.noc_bytes == pytest.approx(few.traffic.noc_bytes, rel=0.02)
    assert many.traffic.dram_read_bytes + many.traffic.dram_write_bytes < 10**6


def test_a_step_says_what_it_changes() -> None:
    (note,) = step_of("adam", FAR, 8).graph.notes
    assert "gradients of the rows that are, 12 of 60 at most" in note and "waits" in note
    assert "waits" not in step_of("sgd", FAR, 8).graph.notes[0]
    for other in (
        step_of("adam", FAR, 8, embeddings="tables"),
        step_of("adam", FAR, 8, accumulate=2),
    ):
        assert other.graph.notes == ()
    with pytest.raises(UserError, match=r"--embeddings 'some' \(right: rows or tables"):
        step_of("adam", FAR, 8, embeddings="some")


@pytest.mark.parametrize(
    "recipe", [{"clip": 0.05}, {"precision": "bf16"}, {"precision": "fp16", "clip": 0.05}]
)
def test_clips_masters_and_scales_reach_rows(recipe: dict[str, Any]) -> None:
    indices = [7, 7, 1, 2, 7, 3, 9, 9]
    found, whole = (step_of("adagrad", FAR, 8, embeddings=k, **recipe) for k in ("rows", "tables"))
    given_ = {n: a.astype(found.graph.inputs[n].dtype.numpy) for n, a in values(found, indices).items()}
    given_["loss_scale"] = np.float32(8)
    for name in ("table", "w"):
        given_[name] = given_.get(f"{name}.master", given_[name]).astype(given_[name].dtype)
    mine, theirs = after(found, given_), after(whole, given_)
    for name in mine:
        np.testing.assert_allclose(
            mine[name].astype(np.float32), theirs[name].astype(np.float32), rtol=4e-2, atol=1e-4
        )


def test_a_step_that_is_skipped_leaves_rows_as_they_are() -> None:
    step = step_of("adam", FAR, 4, precision="fp16")
    given_ = {n: a.astype(step.graph.inputs[n].dtype.numpy) for n, a in values(step, [1, 2, 2, 3]).items()}
    given_ |= {"loss_scale": np.float32(np.inf), "table": given_["table.master"].astype(np.float16)}
    for name, value in after(step, given_).items():
        if name.startswith("table"):
            np.testing.assert_array_equal(value, given_[name])
