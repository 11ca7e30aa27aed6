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
