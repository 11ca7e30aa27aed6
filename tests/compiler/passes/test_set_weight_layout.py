"""Weights k innermost."""

from __future__ import annotations

import pytest
from before_after import cases, hold, outcomes
from mtia_emu.compiler import text
from mtia_emu.compiler.passes import SetWeightLayout
from mtia_emu.compiler.pipeline import compile_lowered

from mtia_emu.engine.run import report
from mtia_emu.machine.chip import load_chip
from mtia_emu.options import Options

COLD = Options(state="cold")  # so that weights come from DRAM


@pytest.mark.parametrize("case", cases("set-weight-layout"))
def test_before_and_after(case: str) -> None:
    hold(case)


def test_weights_that_others_read_and_activations_stay() -> None:
    body = """graph g {
  in %x : fp16[2,4]
  in %v : fp16[4,4]
  const %w : fp16[4,4] = absent
  %a : fp16[2,4] = matmul(%x, %w)
  %b : fp16[4,4] = add(%v, %w)
  %c : fp16[2,4] = matmul(%x, %v)
  out %a
  out %b
  out %c
}"""
    assert outcomes("set-weight-layout", body) == ["%w has other users"]


def test_weights_that_several_products_read_are_stored_once() -> None:
    graph = text.parse("""graph g {
  in %x : fp16[2,4]
  const %w : fp16[4,4] = absent
  %a : fp16[2,4] = matmul(%x, %w)
  %b : fp16[2,4] = matmul(%a, %w)
  out %b
}""")
    made = SetWeightLayout()(graph)
    assert len(made.consts) == 1 and [n.op for n in made.nodes] == ["transpose", "matmul"] * 2


def test_a_large_weight_of_two_products_is_read_faster() -> None:
    chip = load_chip("mtia-2i")
    graph = text.parse("""graph g {
  in %x : fp16[64,4096]
  in %y : fp16[64,4096]
  const %w : fp16[4096,4096] = absent
  %p : fp16[64,4096] = matmul(%x, %w)
  %q : fp16[64,4096] = matmul(%y, %w)
  out %p
  out %q
}""")
    before, after = (
        report(compile_lowered(g, chip, dtype="fp16", options=COLD), chip).cycles
        for g in (graph, SetWeightLayout()(graph))
    )
    assert after < 0.9 * before
