"""Marked graphs: nothing is lost, counted twice or put in two groups."""

from __future__ import annotations

import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes.groups import GPU_PASSES, Flow

import mtia_emu
from mtia_emu.gpu import Mode, load_gpu
from mtia_emu.types import launched

SHAPES = """graph g {
  in %x : fp16[4,6]
  %r : fp16[24] = reshape(%x) {shape=[24]}
  %a : fp16[24] = exp(%r)
  %s : fp16[4,6] = reshape(%a) {shape=[4,6]}
  %b : fp16[4,6] = tanh(%s)
  out %b
}"""


def test_who_reads_whom_is_seen_through_changes_of_shape() -> None:
    graph = check(text.parse(SHAPES))
    flow = Flow(graph)
    assert list(flow.works) == ["a", "b"] and flow.source("r") == "x" and flow.source("s") == "a"
    reader = flow.sole_reader(graph.by_name["a"])
    assert reader is not None and reader.name == "b"
    assert flow.sole_reader(graph.by_name["b"]) is None
    assert [n.name for n in flow.writers(graph.by_name["b"])] == ["a"]


@pytest.mark.parametrize("dims", [{"seq": 16, "past": 0}, {"seq": 1, "past": 31}], ids=str)
def test_a_decoder_keeps_its_multiply_adds_and_gets_faster(dims: dict[str, int]) -> None:
    assert len(GPU_PASSES) == 11
    asked = mtia_emu.compile_model("zoo:llama-tiny", dims=dims)
    whole = launched(asked.works, asked.groups)
    parts = [i for group in asked.groups for i in group.parts]
    assert len(parts) == len(set(parts)) and all(group.at in group.parts for group in asked.groups)
    assert sum(w.macs for w in whole) == sum(w.macs for w in asked.works)
    assert sum(w.kind == "attention" for w in whole) == sum(w.op == "softmax" for w in asked.works) == 2
    fused, apart = (load_gpu("h100-sxm").report(asked, Mode(fused=f)) for f in (True, False))
    assert fused.seconds < apart.seconds and fused.macs == apart.macs
    assert len(fused.layers) == len(asked.works) - len(parts) + len(asked.groups)
    assert [x.name for x in apart.layers] == [w.name for w in asked.works]
