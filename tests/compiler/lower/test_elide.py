"""Copies that need not be made."""

from __future__ import annotations

import pytest
from mtia_emu.compiler import text
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.lower.schedule import schedule
from mtia_emu.compiler.pipeline import compile_lowered
from mtia_emu.compiler.reference import evaluate

from mtia_emu import testing
from mtia_emu.engine.function import execute
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.verify import verify

CHIP = load_chip("mtia-2i")
HEAD = "graph g {\n  in %x : fp16[4,6]\n  in %w : fp16[6,6]\n"


def kernels(body: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the kernels of a graph's steps; its program must give what the reference gives, checked."""
    monkeypatch.setenv("MTIA_EMU_CHECK", "1")
    graph = text.parse(HEAD + body + "}\n")
    program = compile_lowered(graph, CHIP, dtype="fp16")
    verify(program)
    inputs = random_inputs(graph)
    testing.assert_close(execute(program, CHIP, inputs).outputs, evaluate(graph, inputs), 2e-3)
    return [step.kernel for step in schedule(graph, CHIP).steps]


def test_parts_are_made_where_they_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    body = """  %a : fp16[4,6] = exp(%x)
  %b : fp16[4,6] = matmul(%x, %w)
  %y : fp16[4,18] = concat(%a, %x, %b) {axis=1}
  %z : fp16[4,18] = neg(%y)
  out %z
"""
    assert kernels(body, monkeypatch) == ["map", "matmul", "copy", "map"]  # the input is copied


def test_what_a_part_is_made_of_may_be_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    body = """  %a : fp16[4,6] = exp(%x)
  %b : fp16[4,6] = matmul(%a, %w)
  %y : fp16[4,12] = concat(%b, %a) {axis=1}
  %z : fp16[4,12] = neg(%y)
  out %z
"""
    assert kernels(body, monkeypatch) == ["map", "matmul", "map"]


def test_a_join_within_a_join(monkeypatch: pytest.MonkeyPatch) -> None:
    body = """  %a : fp16[4,6] = exp(%x)
  %b : fp16[4,6] = neg(%x)
  %y : fp16[8,6] = concat(%a, %b) {axis=0}
  %c : fp16[8,6] = matmul(%y, %w)
  %z : fp16[8,12] = concat(%y, %c) {axis=1}
  %v : fp16[8,12] = neg(%z)
  out %v
"""
    assert kernels(body, monkeypatch) == ["map", "map", "matmul", "map"]


def test_a_part_that_stands_twice_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    body = """  %a : fp16[4,6] = exp(%x)
  %y : fp16[4,12] = concat(%a, %a) {axis=1}
  %z : fp16[4,12] = neg(%y)
  out %z
"""
    assert kernels(body, monkeypatch) == ["map", "copy", "map"]


def test_a_turned_output_is_written_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    body = """  %a : fp16[4,6] = matmul(%x, %w)
  %y : fp16[6,4] = transpose(%a) {perm=[1, 0]}
  out %y
"""
    assert kernels(body, monkeypatch) == ["matmul"]


def test_what_is_read_again_stays_out_of_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    body = """  %a : fp16[4,6] = exp(%x)
  %y : fp16[4,12] = concat(%a, %x) {axis=1}
  %z : fp16[4,6] = matmul(%a, %w)
  out %y
  out %z
"""
    assert kernels(body, monkeypatch).count("copy") == 2


def test_a_frame_is_filled_before_what_it_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    body = """  %a : fp16[4,6] = exp(%x)
  %y : fp16[6,8] = pad(%a) {pads=[1, 1, 1, 1]}
  %z : fp16[6,8] = neg(%y)
  out %z
"""
    assert kernels(body, monkeypatch) == ["map", "map", "copy", "map"]


def test_rows_broken_by_heads_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    body = """  %a : fp16[4,6] = matmul(%x, %w)
  %h : fp16[4,2,3] = reshape(%a) {shape=[4, 2, 3]}
  %y : fp16[2,4,3] = transpose(%h) {perm=[1, 0, 2]}
  out %y
"""
    assert kernels(body, monkeypatch) == ["matmul", "copy"]
