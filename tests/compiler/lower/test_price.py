"""Which way a node is lowered: by the time of the blocks of both, as whole models then confirm."""

from __future__ import annotations

import pytest
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.text import parse

from mtia_emu.engine.run import report
from mtia_emu.machine.chip import load_chip
from mtia_emu.options import Options
from mtia_emu.study.tuning import tuning

TAIL = """graph g {{
  in %x : fp16[{m},{k}]
  in %w : fp16[{k},{n}]
  in %r : fp16[{m},{n}]
  in %s : fp16[{m},{n}]
  %y : fp16[{m},{n}] = matmul(%x, %w)
  %a : fp16[{m},{n}] = mul(%y, %r)
  %z : fp16[{m},{n}] = add(%a, %s)
  out %z
}}
"""
ATTENTION = """graph g {{
  in %q : fp16[2,{h},{q},{d}]
  in %k : fp16[2,{h},{d},{n}]
  in %v : fp16[2,{h},{n},{d}]
  in %m : fp16[1,1,{q},{n}]
  %s : fp16[2,{h},{q},{n}] = matmul(%q, %k)
  %t : fp16[2,{h},{q},{n}] = add(%s, %m)
  %p : fp16[2,{h},{q},{n}] = softmax(%t) {{axis=3}}
  %o : fp16[2,{h},{q},{d}] = matmul(%p, %v)
  out %o
}}
"""


def run(graph: Graph, chip: str, passes: str | None = None) -> tuple[int, set[str]]:
    """Return the cycles of a graph and the kernels that it runs."""
    options = Options(passes=passes)
    machine = load_chip(chip)
    program = compile_graph(graph, machine, options=options, tuning=tuning(options, cached=False)).program
    return report(program, machine).cycles, {block.kernel for block in program.blocks}


@pytest.mark.parametrize(
    ("chip", "m", "k", "n", "apart"),
    [("mtia-2i", 112, 8, 977, True), ("mtia-2i", 64, 512, 64, False), ("tiny", 16, 64, 16, False)],
)
def test_a_tail_has_a_launch_of_its_own_where_that_is_faster(
    chip: str, m: int, k: int, n: int, apart: bool
) -> None:
    graph = parse(TAIL.format(m=m, k=k, n=n))
    cycles, kernels = run(graph, chip)
    other, _ = run(graph, chip, "-fuse-tails")
    assert ("map" in kernels) is apart and cycles <= other * (1.04 if apart else 1.01)


@pytest.mark.parametrize(("chip", "h", "q", "n", "d"), [("mtia-2i", 8, 107, 107, 8), ("tiny", 4, 2, 51, 16)])
def test_attention_is_fused_only_where_that_is_faster(chip: str, h: int, q: int, n: int, d: int) -> None:
    graph = parse(ATTENTION.format(h=h, q=q, n=n, d=d))
    cycles, _ = run(graph, chip)
    assert cycles <= run(graph, chip, "-fuse-attention")[0] * 1.01


def test_without_a_rule_of_time_nothing_is_asked() -> None:
    chip = load_chip("mtia-2i")
    program = compile_graph(parse(TAIL.format(m=112, k=8, n=977)), chip).program
    assert {block.kernel for block in program.blocks} == {"matmul"}
