"""Next values of states are written over the old ones where all that reads these runs before."""

from __future__ import annotations

import numpy as np
import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.pipeline import Compiled, compile_graph
from mtia_emu.compiler.reference import evaluate

from mtia_emu.engine.function import execute
from mtia_emu.machine.chip import load_chip
from mtia_emu.options import Options

CHIP = load_chip("tiny", {"sram.bytes": 1 << 16, "sram.granule_bytes": 1 << 12})
SIZE = 96  # 36 kB a state: more than an eighth of SRAM
HEAD = "graph g {\n" + "".join(f"  in %{n} : fp32[{SIZE},{SIZE}]\n" for n in ("w", "m", "g"))
KIND = f"fp32[{SIZE},{SIZE}]"
MOMENTUM = f"""{HEAD}  const %half : fp32[1] = [0.5]
  %scaled : {KIND} = mul(%m, %half)
  %next_m : {KIND} = add(%scaled, %g)
  %next_w : {KIND} = sub(%w, %next_m)
  out %next_m at %m
  out %next_w at %w
}}
"""
LATE = f"""{HEAD}  %next_m : {KIND} = add(%m, %g)
  %turned : {KIND} = transpose(%m) {{perm=[1, 0]}}
  %next_w : {KIND} = matmul(%next_m, %turned)
  out %next_m at %m
  out %next_w at %w
}}
"""


def compiled(source: str, passes: str | None = None) -> Compiled:
    return compile_graph(text.parse(source), CHIP, options=Options.of(dtype="fp32", passes=passes))


def right(source: str, passes: str | None = None) -> bool:
    rng = np.random.default_rng(0)
    given = {n: rng.standard_normal((SIZE, SIZE)).astype(np.float32) for n in ("w", "m", "g")}
    graph = text.parse(source)
    found, expected = (
        execute(compiled(source, passes).program, CHIP, given, check=True).outputs,
        evaluate(graph, given),
    )
    return all(np.allclose(found[n], expected[n], atol=1e-4) for n in expected)


@pytest.mark.parametrize(("passes", "maps"), [(None, 1), ("-fuse-states", 2)])
def test_the_maker_writes_where_the_state_lies(passes: str | None, maps: int) -> None:
    """Of several states that one kernel makes, each."""
    schedule = compiled(MOMENTUM, passes).schedule
    assert [step.kernel for step in schedule.steps] == ["map"] * maps, "no copy"
    assert {v.buffer for step in schedule.steps for v in step.outputs} == {"next_m", "next_w"}
    assert right(MOMENTUM, passes)


def test_a_state_that_the_maker_reads_turned_is_copied() -> None:
    """A tile would be read after another was written over it."""
    turned = MOMENTUM.replace("mul(%m, %half)", "mul(%t, %half)").replace(
        "  %scaled", f"  %t : {KIND} = transpose(%m) {{perm=[1, 0]}}\n  %scaled"
    )
    kernels = [step.kernel for step in compiled(turned).schedule.steps]
    assert kernels == ["map", "copy"] and right(turned)


def test_an_old_value_that_is_read_later_stays_until_then() -> None:
    kernels = [step.kernel for step in compiled(LATE).schedule.steps]
    assert "copy" in kernels and kernels.index("copy") > kernels.index("matmul")
    assert right(LATE)
