"""Products with weights in int8."""

from __future__ import annotations

import numpy as np
import pytest
from before_after import cases, hold, outcomes
from mtia_emu.compiler import text
from mtia_emu.compiler.graph import Const
from mtia_emu.compiler.passes.layout import Layout
from mtia_emu.compiler.pipeline import passes

from mtia_emu.types import FP16, FP32, TensorType


@pytest.mark.parametrize("case", cases("quantise"))
def test_before_and_after(case: str) -> None:
    hold(case, 5e-2)


def test_products_of_activations_and_empty_ones_stay() -> None:
    body = """graph g {
  in %x : fp32[4,4]
  in %none : fp32[0,4]
  const %w : fp32[4,4] = absent
  const %batch : fp32[2,4,4] = absent
  %a : fp32[4,4] = matmul(%x, %x)
  %b : fp32[0,4] = matmul(%none, %w)
  %c : fp32[2,4,4] = matmul(%x, %batch)
  out %a
  out %b
  out %c
}"""
    weights = "its right side is not a weight matrix"
    assert outcomes("quantise", body) == [weights, "it is empty", weights]


def test_weights_are_not_read_before_they_are_needed() -> None:
    def load() -> np.ndarray:
        raise AssertionError("read")

    kind = TensorType(FP32, (8, 4))
    graph = text.parse("""graph g {
  in %x : fp32[2,8]
  const %w : fp32[8,4] = absent
  %y : fp32[2,4] = matmul(%x, %w)
  out %y
}""")
    lazy = graph.with_nodes(graph.nodes, consts={"w": Const(kind, load)})
    for step in (*passes(FP32, FP16, int8=True), Layout()):
        lazy = step(lazy)
    assert any(n.op == "matmul_map" for n in lazy.nodes) and all(c.present for c in lazy.consts.values())
