"""Quantising as the end of the kernel before it."""

from __future__ import annotations

import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes.groups import MarkChains, MarkedGraph, MarkQuantised, mark

import mtia_emu
from mtia_emu.gpu import load_gpu
from mtia_emu.types import CopyWork, ElementwiseWork, launched

QUANTISED = "%q : int8[16,64], %s : fp32[16,1] = quantise_rows(%a)\nout %q\nout %s\n"


def marked(body: str) -> MarkedGraph:
    lines = "in %x : fp16[16,64]\n" + body
    graph = check(text.parse(f"graph g {{\n{lines}\n}}"))
    return MarkQuantised()(MarkChains()(mark(graph)))


def test_the_kernel_before_writes_8_bits() -> None:
    found = marked("%a : fp16[16,64] = tanh(%x)\n" + QUANTISED)
    (group,) = found.groups
    assert (group.nodes, group.at) == (("a", "q"), "a") and isinstance(group.work, ElementwiseWork)
    assert group.work.write_bytes == 16 * 64 + 4 * 16 and group.work.read_bytes == 2 * 16 * 64


def test_what_another_kernel_reads_is_written_too() -> None:
    (group,) = marked("%a : fp16[16,64] = tanh(%x)\nout %a\n" + QUANTISED).groups
    assert group.work.write_bytes == 2 * 16 * 64 + 16 * 64 + 4 * 16


def test_a_chain_before_it_goes_on() -> None:
    (group,) = marked("%b : fp16[16,64] = tanh(%x)\n%a : fp16[16,64] = exp(%b)\n" + QUANTISED).groups
    assert (group.nodes, group.at) == (("b", "a", "q"), "a")


def test_a_move_quantises_at_its_end_and_an_input_stays_a_kernel() -> None:
    (group,) = marked("%a : fp16[16,64] = concat(%x) {axis=0}\n" + QUANTISED).groups
    assert isinstance(group.work, CopyWork)
    assert marked(QUANTISED.replace("%a", "%x")).groups == ()


@pytest.mark.parametrize("gpu", ["h100-sxm", "a100-sxm-80gb"])
@pytest.mark.parametrize("batch", [512, 8192])
def test_8_bits_are_not_slower_than_16(gpu: str, batch: int) -> None:
    wide, narrow = (
        load_gpu(gpu).report(mtia_emu.compile_model("zoo:dlrm-mlperf", dims={"batch": batch}, dtype=kind))
        for kind in ("fp16", "int8")
    )
    assert narrow.seconds < wide.seconds and narrow.joules < wide.joules


def test_every_node_is_in_one_kernel() -> None:
    asked = mtia_emu.compile_model("zoo:llama-tiny", dtype="int8")
    whole = launched(asked.works, asked.groups)
    assert sum(w.macs for w in whole) == sum(w.macs for w in asked.works)
    assert sum(w.op == "quantise_rows" for w in whole) == 0
