"""Reports of programs: on a chip other than the one that they were compiled for, and what notes say."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.pipeline import compile_lowered

from mtia_emu.api import core_library
from mtia_emu.engine.function import execute
from mtia_emu.engine.run import report
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Program

SIZES = [(2, 2), (4, 2), (2, 5), (6, 6)]


@pytest.fixture(scope="module")
def program() -> Program:
    """Return a small recommender, with weights, compiled for the 2 x 2 grid of the tiny chip."""
    import mtia_emu

    return mtia_emu.compile_model("zoo:dlrm-small", "tiny", dims={"batch": 4}, seed=0)


@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_more_pes_never_slow_a_fixed_program(program: Program, rows: int, cols: int) -> None:
    small = report(program, load_chip("tiny"))
    large = report(program, load_chip("tiny", {"grid.rows": rows, "grid.cols": cols}))
    assert large.cycles == small.cycles
    assert large.traffic == small.traffic
    assert large.utilization * rows * cols == pytest.approx(small.utilization * 4)


def test_a_larger_grid_computes_the_same(program: Program) -> None:
    from mtia_emu import zoo

    inputs = zoo.example_inputs("dlrm-small", {"batch": 4})
    outputs = [
        execute(program, load_chip("tiny", {"grid.rows": r, "grid.cols": c}), inputs, core_library()).outputs
        for r, c in SIZES
    ]
    for other in outputs[1:]:
        np.testing.assert_array_equal(other["probability"], outputs[0]["probability"])


@pytest.mark.parametrize(("rows", "cols"), [(1, 4), (4, 1)])
def test_a_smaller_grid_is_refused(program: Program, rows: int, cols: int) -> None:
    chip = load_chip("tiny", {"grid.rows": rows, "grid.cols": cols})
    with pytest.raises(UserError, match=rf"for a grid of 2 x 2 PEs, tiny has {rows} x {cols}; compile"):
        report(program, chip)


@pytest.mark.parametrize(("elements", "said"), [(1 << 16, True), (16, False)])
def test_work_of_one_core_is_said_where_it_takes_long(elements: int, said: bool) -> None:
    graph = text.parse(f"""graph g {{
  in %x : fp32[{elements}]
  in %l : fp16[2048,2048]
  const %r : fp16[2048,2048] = absent
  %y : fp32[{elements}] = cumsum(%x) {{axis=0}}
  %z : fp16[2048,2048] = matmul(%l, %r)
  out %y
  out %z
}}""")
    chip = load_chip("mtia-2i")
    notes = report(compile_lowered(graph, chip, dtype="fp16"), chip).notes
    assert any("one processor core works by itself" in n and "cumsum" in n for n in notes) == said
