"""What passes do to cycles, beside what the machine could do."""

from __future__ import annotations

import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.frontend import load
from mtia_emu.compiler.pipeline import compile_graph, mapping_passes, passes
from mtia_emu.compiler.pipeline import compile_lowered as compiled

from mtia_emu import api
from mtia_emu.engine.run import report
from mtia_emu.machine.chip import load_chip
from mtia_emu.options import Options
from mtia_emu.study.measure import COLUMNS, least_dram_bytes, measure, rows
from mtia_emu.types import FP16, FP32

CHIP = load_chip("mtia-2i")


def test_attention_writes_no_scores_to_dram() -> None:
    """Hold what a prefill of Llama-3-8B writes to DRAM to its outputs: one layer's scores are as large."""
    with api.open_model("zoo:llama-3-8b", {"seq": 2048}) as source:
        program = compile_graph(load(source.path), CHIP).program
    outputs = sum(b.type.bytes for b in program.outputs)
    attention = [x for x in program.launches if program.blocks[x.block].kernel == "attention"]
    assert len(attention) == 32 and not [x for x in program.launches if x.op == "softmax"]
    assert report(program, CHIP).traffic.dram_write_bytes < outputs * 1.001


def test_each_tensor_of_the_model_moves_once_at_least() -> None:
    graph = text.parse("""graph g {
  in %past : fp16[1,2,8,4]
  in %new : fp16[1,2,1,4]
  in %ids : int64[3]
  in %ends : int64[2]
  const %table : fp16[100,4] = absent
  const %w : fp16[4,4] = absent
  %cache : fp16[1,2,9,4] = append(%past, %new) {axis=2}
  %rows : fp16[3,4] = gather(%table, %ids) {axis=0}
  %bag : fp16[1,4] = embedding_bag(%table, %ids, %ends) {mode="sum"}
  %p : fp16[3,4] = matmul(%rows, %w)
  %q : fp16[1,4] = matmul(%bag, %w)
  out %cache at %past
  out %p
  out %q
}""")
    past, new, ids, ends, looked_up, w = 128, 16, 24, 16, 24, 32
    assert least_dram_bytes(graph) == past + new + ids + ends + looked_up + w + new + 24 + 8


def test_shares_are_of_what_the_machine_could_do() -> None:
    graph = text.parse("""graph g {
  in %x : fp16[1,4096]
  const %w : fp16[4096,4096] = absent
  %y : fp16[1,4096] = matmul(%x, %w)
  %z : fp16[1,4096] = relu(%y)
  out %z
}""")
    steps = (*passes(FP32, FP16), *mapping_passes(CHIP))
    first, *_, last = measure(graph, steps, CHIP, Options(dtype="fp16", state="cold"))
    least = 2 * (4096 * 4096 + 2 * 4096) / CHIP.dram_bytes_per_cycle
    assert last.dram_share == pytest.approx(least / last.cycles) and 0.85 < last.dram_share < 8 / 9
    assert last.cycles < first.cycles and last.launches == first.launches - 1
    *_, warm = measure(graph, steps, CHIP, Options(dtype="fp16"))
    assert warm.cycles < last.cycles and warm.dram_share < 0.1  # the weight stays in SRAM
    none, after = rows([first, last])
    assert len(none) == len(COLUMNS) and none[2] == "" and after[2].startswith("-")


def test_what_a_pass_leaves_as_it_is_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from mtia_emu.study import measure as module

    graph = text.parse("""graph g {
  in %x : fp16[8,8]
  %y : fp16[8,8] = relu(%x)
  out %y
}""")
    timed = []
    monkeypatch.setattr(module, "compile_lowered", lambda *a, **k: timed.append(a[0]) or compiled(*a, **k))
    found = list(measure(graph, passes(FP16, FP16), CHIP, Options(dtype="fp16")))
    assert len(timed) < len(found) / 4 and len({x.cycles for x in found}) == len(timed)
