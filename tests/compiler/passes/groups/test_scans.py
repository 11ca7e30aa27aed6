"""Loops as one kernel, with what their library does in it."""

from __future__ import annotations

from mtia_emu.compiler import text
from mtia_emu.compiler.check import check
from mtia_emu.compiler.passes.groups import MarkedGraph, MarkScans, mark

from mtia_emu.types import ScanWork

SELECTIVE = """graph g {
  in %dt : fp16[20,6,1]
  in %b : fp16[20,1,4]
  in %c : fp16[20,4,1]
  in %h0 : fp16[6,4]
  const %a : fp16[6,4] = absent
  %da : fp16[20,6,4] = mul(%dt, %a)
  %ea : fp16[20,6,4] = exp(%da)
  %db : fp16[20,6,4] = mul(%dt, %b)
  %h : fp16[20,6,4] = scan(%h0, %ea, %db) {scanned=2, tapes=["3 -> t1 | t0 = mul(x1, x0); t1 = add(t0, x2)"]}
  %y : fp16[20,6,1] = matmul(%h, %c)
  %last : fp16[1,6,4] = slice(%h) {starts=[19, 0, 0], ends=[20, 6, 4], steps=[1, 1, 1]}
  out %y
  out %last
}"""
RECURRENT = """graph g {
  in %x : fp16[20,2,6]
  in %h0 : fp16[2,3]
  const %w : fp16[3,6] = absent
  %e : fp16[20,2,6] = exp(%x)
  %l : fp16[20,2,3] = slice(%e) {starts=[0, 0, 0], ends=[20, 2, 3], steps=[1, 1, 1]}
  %r : fp16[20,2,3] = slice(%e) {starts=[0, 0, 3], ends=[20, 2, 6], steps=[1, 1, 1]}
  %h : fp16[20,2,3] = scan(%h0, %w, %l, %r) {product=true, scanned=2, tapes=["TAPE"]}
  %y : fp16[20,2,3] = tanh(%h)
  out %y
}"""
RECURRENT = RECURRENT.replace("TAPE", "5 -> t2 | t0 = add(x1, x3); t1 = mul(x2, x4); t2 = add(t0, t1)")


def marked(body: str) -> MarkedGraph:
    """Return the graph of a text with its loops marked."""
    return MarkScans()(mark(check(text.parse(body))))


def test_a_selective_scan_makes_what_it_scans_and_reads_the_states_out() -> None:
    graph = marked(SELECTIVE)
    (group,) = graph.groups
    assert group.nodes == ("da", "ea", "db", "h", "y", "last") and group.at == "h"
    assert isinstance(group.work, ScanWork)
    cells = 20 * 6 * 4
    assert group.work.flops == cells * (1 + 1 + 1 + 2 + 2) and group.work.depth == 7
    assert group.work.read_bytes == 2 * (20 * 6 + 20 * 4 + 20 * 4 + 6 * 4 + 6 * 4)
    assert group.work.write_bytes == 2 * (20 * 6 + 6 * 4)
    assert graph.asked.groups[0].parts == tuple(range(6))


def test_states_that_others_read_are_written() -> None:
    more = SELECTIVE.replace("  out %y\n", "  %s : fp16[20,6,4] = softmax(%h) {axis=2}\n  out %s\n  out %y\n")
    (group,) = marked(more).groups
    assert "s" not in group.nodes and group.work.write_bytes == 2 * (20 * 6 * 4 + 20 * 6 + 6 * 4)


def test_a_recurrent_kernel_reads_its_gates_in_place_and_computes_nothing_else() -> None:
    (group,) = marked(RECURRENT).groups
    assert group.nodes == ("l", "r", "h") and isinstance(group.work, ScanWork)
    assert group.work.macs == 20 * 2 * 3 * 6
    assert (
        group.work.read_bytes == 2 * (20 * 2 * 6 + 2 * 3 + 3 * 6) and group.work.write_bytes == 2 * 20 * 2 * 3
    )
