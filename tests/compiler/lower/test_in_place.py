"""Next values of states are written over the old ones where all that reads these runs before."""

from __future__ import annotations

import numpy as np
from mtia_emu.compiler import text
from mtia_emu.compiler.pipeline import Compiled, compile_graph
from mtia_emu.compiler.reference import evaluate

from mtia_emu.engine.function import execute
from mtia_emu.machine.chip import load_chip

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


def compiled(source: str) -> Compiled:
    return compile_graph(text.parse(source), CHIP, dtype="fp32")


def right(source: str) -> bool:
    rng = np.random.default_rng(0)
    given = {n: rng.standard_normal((SIZE, SIZE)).astype(np.float32) for n in ("w", "m", "g")}
    graph = text.parse(source)
    found, expected = (
        execute(compiled(source).program, CHIP, given, check=True).outputs,
        evaluate(graph, given),
    )
    return all(np.allclose(found[n], expected[n], atol=1e-4) for n in expected)


def test_the_maker_writes_where_the_state_lies() -> None:
    steps = compiled(MOMENTUM).schedule.steps
    assert [step.kernel for step in steps] == ["map", "map"], "no copy"
    assert right(MOMENTUM)


def test_an_old_value_that_is_read_later_stays_until_then() -> None:
    kernels = [step.kernel for step in compiled(LATE).schedule.steps]
    assert "copy" in kernels and kernels.index("copy") > kernels.index("matmul")
    assert right(LATE)
