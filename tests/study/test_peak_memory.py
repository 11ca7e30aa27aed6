"""Bytes that a schedule holds at once, by kind."""

from __future__ import annotations

import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.pipeline import compile_graph

from mtia_emu.machine.chip import load_chip
from mtia_emu.options import Options
from mtia_emu.study.peak_memory import peak_memory

GATHERED = """graph g {
  in %x : fp32[8,64]
  in %w : fp32[32,64]
  %w.gathered : fp32[64,64] = all_gather(%w) {axes=["dp"], dim=0, size=2}   # ORIGIN
  %h : fp32[8,64] = matmul(%x, %w.gathered)   # fc
  %y : fp32[8,64] = neg(%h)   # fc (backward)
  out %y
}
"""


@pytest.mark.parametrize("origin", ["w.gathered", "w.gathered (backward)", "other", "other (backward)"])
def test_weights_that_chips_share_out_are_weights_while_they_are_whole(origin: str) -> None:
    graph = text.parse(GATHERED.replace("ORIGIN", origin))
    schedule = compile_graph(graph, load_chip("tiny"), options=Options.of(dtype="fp32")).schedule
    peak = peak_memory(schedule, {"w": "weights", "x": "data"}.__getitem__)
    whole, kind = 4 * 64 * 64, "gradients" if "backward" in origin else "activations"
    assert peak.weights == whole // 2 + whole * ("gathered" in origin)
    assert (getattr(peak, kind) >= whole) == ("gathered" not in origin)
    assert peak.data == 4 * 8 * 64
