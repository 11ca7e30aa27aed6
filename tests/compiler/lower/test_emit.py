"""What becomes a block, and how launches and bindings refer to it."""

from __future__ import annotations

import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.pipeline import compile_graph

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Program

LAYERS = """graph g {
  in %x : fp16[16,16]
  const %w0 : fp16[16,16] = absent
  const %w1 : fp16[16,16] = absent
  const %w2 : fp16[16,16] = absent
  %p0 : fp16[16,16] = matmul(%x, %w0)   # first
  %s0 : fp16[16,16] = softmax(%p0) {axis=1}
  %p1 : fp16[16,16] = matmul(%s0, %w1)
  %s1 : fp16[16,16] = softmax(%p1) {axis=1}
  %p2 : fp16[16,16] = matmul(%s1, %w2)
  %s2 : fp16[16,16] = softmax(%p2) {axis=0}
  out %s2
}"""


def program(body: str, **settings: object) -> Program:
    """Return a graph compiled for a tiny chip."""
    return compile_graph(text.parse(body), load_chip("tiny", settings)).program


def test_equal_steps_share_a_block() -> None:
    made = program(LAYERS)
    blocks = [launch.block for launch in made.launches if launch.op.startswith("matmul")]
    assert len(blocks) == 3 and blocks[1] == blocks[2]  # the first reads its input from DRAM
    softmaxes = [launch.block for launch in made.launches if launch.op == "softmax"]
    assert softmaxes[0] == softmaxes[1] != softmaxes[2]


def test_launches_carry_the_models_own_names() -> None:
    first, second = program(LAYERS).launches[:2]
    assert (first.name, first.op) == ("first", "matmul") and second.op == "softmax"


def test_what_does_not_fit_names_its_layer() -> None:
    body = """graph g {
  in %ids : int64[4]
  const %table : fp32[10,100000] = absent
  const %ends : int64[2] = [0, 4]
  %y : fp32[1,100000] = embedding_bag(%table, %ids, %ends) {mode="sum"}   # /tables/0
  out %y
}"""
    with pytest.raises(UserError, match=r"\(embedding_bag, /tables/0\) does not fit tiny: .*local memory"):
        program(body)


def staged(body: str, sram: int) -> tuple[Program, set[int]]:
    """Return a graph compiled for a chip with so much SRAM, and the rooms that products in DRAM are given."""
    made = compile_graph(text.parse(body), load_chip("tiny", {"sram.bytes": sram}))
    rooms = {call.stage_bytes for calls in made.calls for _, call, *_ in calls} - {0}
    assert made.program.sram_bytes + made.program.scratch_bytes <= sram
    return made.program, rooms


def test_a_product_of_two_operands_in_dram_stages_them_in_all_sram_that_no_buffer_takes() -> None:
    """An operand of 256 KiB goes through a quarter of 512 KiB in parts, through more of it in one."""
    body = """graph g {
  in %a : fp16[128,1024]
  in %b : fp16[1024,128]
  %y : fp16[128,128] = matmul(%a, %b)
  out %y
}"""
    made, rooms = staged(body, 1 << 19)
    assert rooms == {1 << 19} and made.sram_bytes == 0 and made.scratch_bytes > 1 << 17


def test_what_buffers_take_is_no_room_for_staging() -> None:
    """An activation of 256 KiB leaves less to the product of two in DRAM; one of 384 KiB a quarter."""
    body = """graph g {
  in %a : fp16[128,512]
  in %b : fp16[512,128]
  in %c : fp16[ROWS,512]
  %e : fp16[ROWS,512] = softmax(%c) {axis=1}
  %y : fp16[128,128] = matmul(%a, %b)
  %s : fp16[ROWS,512] = softmax(%e) {axis=0}
  out %y
  out %s
}"""
    for rows, left in ((256, 1 << 18), (384, 1 << 17)):
        made, rooms = staged(body.replace("ROWS", str(rows)), 1 << 19)
        assert rooms == {left} and made.sram_bytes == rows * 512 * 2
