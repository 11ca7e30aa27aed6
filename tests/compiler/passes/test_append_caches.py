"""Caches that grow in place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from before_after import cases, hold, lowered, outcomes, results
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler import text
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.passes import AppendCaches
from mtia_emu.compiler.pipeline import compile_graph, compile_lowered

from mtia_emu import testing
from mtia_emu.engine.function import execute
from mtia_emu.engine.run import report
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.file import load, save
from mtia_emu.program.verify import verify

CHIP = load_chip("mtia-2i")
GROW = """graph g {{
  in %past : fp16[{b},{h},{past},{d}]
  in %new : fp16[{b},{h},{new},{d}]
  %keys : fp16[{b},{h},{total},{d}] = concat(%past, %new) {{axis=2}}
  %y : fp16[{b},{h},{total},{d}] = neg(%keys)
  out %keys
  out %y
  {more}
}}"""


def grow(b: int = 1, h: int = 2, past: int = 3, new: int = 1, d: int = 4, more: str = "") -> str:
    return GROW.format(b=b, h=h, past=past, new=new, d=d, total=past + new, more=more)


@pytest.mark.parametrize("case", cases("append-caches"))
def test_before_and_after(case: str) -> None:
    hold(case)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 9))
def test_a_program_of_one_memory_gives_equal_results(b: int, h: int, past: int, new: int, d: int) -> None:
    graph = text.parse(grow(b, h, past, new, d))
    program = compile_lowered(lowered(graph, (AppendCaches(),)), CHIP, dtype="fp16")
    verify(program)
    (begins, _), (whole, _) = program.inputs, program.outputs
    assert (begins.space, begins.address) == (whole.space, whole.address)
    found, wanted = execute(program, CHIP, random_inputs(graph)).outputs, results(graph)
    assert all((found[name] == wanted[name]).all() for name in wanted)


def test_only_what_is_new_is_written() -> None:
    graph = text.parse(grow(4, 8, 2047, 1, 128).replace("out %y", "")).prune()
    before, after = (
        report(compile_lowered(g, CHIP, dtype="fp16"), CHIP)
        for g in (graph, lowered(graph, (AppendCaches(),)))
    )
    assert after.cycles < before.cycles / 10
    assert after.traffic.dram_write_bytes * 1000 < before.traffic.dram_write_bytes


def test_a_saved_program_keeps_where_the_past_lies(tmp_path: Path) -> None:
    graph = text.parse(grow(2, 3))
    compiled = compile_graph(graph, CHIP).program
    assert any("1 inputs (%past, ...) grow in place" in note for note in compiled.notes)
    save(compiled, tmp_path / "saved.mtia")
    loaded = load(tmp_path / "saved.mtia")
    assert loaded.inputs == compiled.inputs and loaded.inputs[0].strides == (48, 16, 4, 1)
    found = execute(loaded, CHIP, random_inputs(graph)).outputs["keys"]
    assert (found == results(graph)["keys"]).all()


def test_strides_that_leave_the_memory_are_refused() -> None:
    program = compile_graph(text.parse(grow(2, 3)), CHIP).program
    for strides, words in (((1, 1), "lies in strides"), ((1 << 20, 16, 4, 1), "outside the memory")):
        wrong = (replace(program.inputs[0], strides=strides), *program.inputs[1:])
        with pytest.raises(UserError, match=words):
            verify(replace(program, inputs=wrong))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (grow(more="out %past"), "%past has other readers"),
        (grow(more="%z : fp16[1,2,3,4] = exp(%past)\n  out %z"), "%past has other readers"),
        (grow(past=0), "there is no past"),
        (
            grow()
            .replace("concat(%past, %new)", "concat(%p, %new)")
            .replace("%keys :", "%p : fp16[1,2,3,4] = exp(%past)\n  %keys :", 1),
            "its first operand is no input of the model",
        ),
    ],
)
def test_what_cannot_grow_in_place_is_copied(body: str, reason: str) -> None:
    assert outcomes("append-caches", body) == [reason]


def test_an_op_that_cannot_grow_in_place_still_runs() -> None:
    graph = text.parse(grow(more="out %past").replace("concat", "append"))
    program = compile_lowered(graph, CHIP, dtype="fp16")
    found, wanted = execute(program, CHIP, random_inputs(graph)).outputs, results(graph)
    assert all((found[name] == wanted[name]).all() for name in wanted)


def test_keys_that_are_read_often_are_copied_near() -> None:
    graph = text.parse(
        """graph g {
  in %q : fp16[1,4,600,16]
  in %past_k : fp16[1,2,300,16]
  in %past_v : fp16[1,2,300,16]
  in %k : fp16[1,2,600,16]
  in %v : fp16[1,2,600,16]
  %keys : fp16[1,2,900,16] = append(%past_k, %k) {axis=2}
  %values : fp16[1,2,900,16] = append(%past_v, %v) {axis=2}
  %y : fp16[1,4,600,16] = attention(%q, %keys, %values) {tape="1 -> x0 | "}
  out %y
  out %keys at %past_k
  out %values at %past_v
}"""
    )
    chip = load_chip("tiny", {"sram.bytes": 1 << 20})
    program = compile_lowered(graph, chip, dtype="fp16")
    copied = [x.name for x in program.launches]
    assert copied.count("y") >= 3
    found, wanted = execute(program, chip, random_inputs(graph)).outputs, results(graph)
    testing.assert_close(found, wanted, 1e-2)
