"""A program as an execution has found it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from mtia_emu.compiler import text
from mtia_emu.compiler.pipeline import compile_graph

from mtia_emu.engine.function import execute
from mtia_emu.engine.run import report
from mtia_emu.engine.turns import as_routed
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Program
from mtia_emu.types import ExpertsWork

CHIP = load_chip("tiny")
GRAPH = """graph moe {
  in %x : fp32[6,16]
  in %chosen : int64[6,2]
  in %w : fp32[8,16,24]
  %y : fp32[12,24] = expert_matmul(%x, %w, %chosen)
  out %y
}
"""


TWO = np.tile(np.array([0, 1]), (6, 1))


def executed(chosen: np.ndarray) -> tuple[Program, Program]:
    """Return the program as it is compiled, and as it runs where tokens choose so."""
    from mtia_emu.compiler.reference import core_library

    program = compile_graph(text.parse(GRAPH), CHIP, dtype="fp32").program
    rng = np.random.default_rng(0)
    given = {"x": rng.standard_normal((6, 16)), "chosen": chosen, "w": rng.standard_normal((8, 16, 24))}
    given = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in given.items()}
    ran = execute(program, CHIP, given, core_library())
    right = np.repeat(given["x"], 2, axis=0)[:, None, :] @ given["w"][chosen.reshape(-1)]
    assert np.allclose(ran.outputs["y"], right[:, 0], atol=1e-4)
    return program, as_routed(program, ran.turns)


def dram_bytes(program: Program) -> int:
    return sum(x.dram_bytes for x in report(program, CHIP).layers)


def test_fewer_experts_are_fewer_bytes_on_both_machines() -> None:
    program, one = executed(TWO)
    _, all_ = executed(np.arange(12).reshape(6, 2) % 8)
    assert dram_bytes(one) < dram_bytes(all_)
    works = [next(w for w in p.works if isinstance(w, ExpertsWork)) for p in (one, program, all_)]
    assert [w.batch for w in works] == [2, 7, 8]  # 8 (1 - (3/4)^6) = 6.6 of 8 are expected
    assert [w.macs for w in works] == [12 * 16 * 24] * 3
    assert works[2].read_bytes - works[0].read_bytes == 6 * 16 * 24 * 4


def test_nothing_routed_is_the_same_program() -> None:
    program, _ = executed(TWO)
    assert as_routed(program, {}) is program


def test_equal_tables_are_one_block() -> None:
    program, _ = executed(TWO)
    index = next(i for i, x in enumerate(program.launches) if program.blocks[x.block].routed is not None)
    launches = (*program.launches, program.launches[index])
    table = np.zeros_like(program.blocks[program.launches[index].block].routed.table)  # type: ignore[union-attr]
    table[0] = 3, 1
    twice = as_routed(replace(program, launches=launches), {index: table, len(launches) - 1: table.copy()})
    assert len(twice.blocks) == len(program.blocks) + 1
    assert twice.launches[index].block == twice.launches[-1].block
