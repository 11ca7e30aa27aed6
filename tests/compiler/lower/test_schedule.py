"""What makes a step, and where values lie."""

from __future__ import annotations

import sys

import numpy as np
from mtia_emu.compiler import text
from mtia_emu.compiler.lower.schedule import schedule
from mtia_emu.compiler.lower.steps import Schedule

from mtia_emu.api import core_library
from mtia_emu.machine.chip import load_chip

TINY = load_chip("tiny")


def plan(body: str) -> Schedule:
    """Return the schedule of a graph for the tiny chip."""
    return schedule(text.parse(f"graph g {{\n{body}\n}}"), TINY)


def test_moves_that_a_view_can_stand_for_make_no_step() -> None:
    made = plan("""  in %x : fp32[2,3,4]
  %t : fp32[3,2,4] = transpose(%x) {perm=[1, 0, 2]}
  %s : fp32[1,2,2] = slice(%t) {ends=[3, 2, 4], starts=[2, 0, 0], steps=[1, 1, 2]}
  %e : fp32[5,2,2] = expand(%s) {shape=[5, 2, 2]}
  %c : fp32[5,2,2] = copy(%e)
  %y : fp32[5,2,2] = neg(%c)
  out %y""")
    assert (
        str(made)
        == """schedule g for tiny
  input %x : fp32[2,3,4]
  output %y : fp32[5,2,2]
  %y[5,2,2] = map(%x[5,2,2]:(0,12,2)+8) tape=1 -> t0 | t0 = neg(x0) : fp32   # y
"""
    )


def test_what_no_view_can_stand_for_is_copied_once() -> None:
    made = plan("""  in %x : fp32[2,3]
  %t : fp32[3,2] = transpose(%x) {perm=[1, 0]}
  %f : fp32[6] = reshape(%t) {shape=[6]}
  %y : fp32[6] = neg(%f)
  out %y""")
    assert [s.kernel for s in made.steps] == ["copy", "map"]


def test_outputs_are_buffers_of_their_own() -> None:
    made = plan("""  in %x : fp32[4]
  const %c : fp32[4] = [1.0, 2.0, 3.0, 4.0]
  %n : fp32[4] = neg(%x)
  %v : fp32[2,2] = reshape(%n) {shape=[2, 2]}
  %h : fp32[2] = slice(%n) {ends=[2], starts=[0], steps=[1]}
  %i : fp32[4] = copy(%x)
  out %n
  out %v
  out %h
  out %i
  out %c
  out %x""")
    buffers = [view.buffer for view in made.outputs.values()]
    assert buffers == ["n", "v.out", "h.out", "i.out", "c.out", "x.out"]
    assert all(made.buffers[name].role == "output" for name in buffers)
    assert [s.kernel for s in made.steps] == ["map"] + ["copy"] * 5


def test_an_output_is_copied_as_soon_as_it_is_made() -> None:
    made = plan("""  in %x : fp32[4]
  %a : fp32[4] = neg(%x)
  %b : fp32[4] = exp(%a)
  %c : fp32[4] = sin(%b)
  %h : fp32[2] = slice(%a) {ends=[2], starts=[0], steps=[1]}
  %y : fp32[4] = cos(%c)
  out %y
  out %h""")
    assert [s.outputs[0].buffer for s in made.steps] == ["a", "h.out", "b", "c", "y"]


def test_small_constants_that_several_steps_read_are_copied_first() -> None:
    body = """  in %x : fp32[32,{n}]
  const %mask : fp32[32,{n}] = absent
  %a : fp32[32,{n}] = add(%x, %mask)
  %b : fp32[{n},32] = transpose(%a) {{perm=[1, 0]}}
  %s : fp32[{n},32] = softmax(%b) {{axis=1}}
  %t : fp32[32,{n}] = transpose(%s) {{perm=[1, 0]}}
  %y : fp32[32,{n}] = mul(%t, %mask)
  out %y"""
    made = plan(body.format(n=32))
    assert made.steps[0].name == "mask.pinned" and made.buffers["mask.pinned"].role == "temp"
    assert all("mask" not in [v.buffer for v in s.inputs] for s in made.steps[1:])
    for n in (8, 256):  # too small to be worth a step, too large for its share of SRAM
        assert "mask.pinned" not in plan(body.format(n=n)).buffers


def test_what_is_empty_makes_no_step() -> None:
    made = plan("""  in %x : fp32[0,4]
  in %z : fp32[2,4]
  %y : fp32[0,4] = softmax(%x) {axis=1}
  %c : fp32[2,4] = concat(%x, %z) {axis=0}
  out %y
  out %c""")
    assert [(s.name, s.kernel) for s in made.steps] == [("c", "copy")]
    assert made.buffers[made.outputs["y"].buffer].role == "output"


def test_numbers_go_into_commands() -> None:
    made = plan("""  in %x : fp32[4]
  in %d : fp64[4]
  const %half : fp32[1] = [0.5]
  const %third : fp64[1] = [0.3333333333333333]
  const %unknown : fp32[1] = absent
  %a : fp32[4] = mul(%x, %half)
  %b : fp64[4] = mul(%d, %third)
  %c : fp32[4] = mul(%a, %unknown)
  out %b
  out %c""")
    assert [len(s.inputs) for s in made.steps] == [1, 2, 2]
    assert "mul(x0, 0.5)" in dict(made.steps[0].params)["tape"]


def test_a_core_is_told_which_operands_are_omitted() -> None:
    made = schedule(
        text.parse("""graph g {
  in %a : fp64[2,3]
  in %b : fp64[3,2]
  in %s : fp64[2]
  %y : fp64[2,2] = matmul(%a, %b, _, %s)
  out %y
}"""),
        TINY,
    )
    (step,) = made.steps
    params = dict(step.params)
    assert step.kernel == "scalar" and ("omitted", (2,)) in params["attrs"]
    a, b, s = np.ones((2, 3)), np.ones((3, 2)), np.full(2, 2.0)
    (out,) = core_library()["matmul"]([a, b, s], dict(params["attrs"]))
    np.testing.assert_array_equal(out, np.full((2, 2), 6.0))


def test_work_grows_with_the_number_of_outputs_not_with_its_square() -> None:
    def calls(count: int) -> int:
        outputs = "".join(
            f"  %y{i} : fp32[1] = slice(%x) {{ends=[{i + 1}], starts=[{i}], steps=[1]}}\n  out %y{i}\n"
            for i in range(count)
        )
        graph = text.parse(f"graph g {{\n  in %x : fp32[{count}]\n{outputs}}}")
        seen = 0

        def note(*_: object) -> None:
            nonlocal seen
            seen += 1

        sys.setprofile(note)
        try:
            schedule(graph, TINY)
        finally:
            sys.setprofile(None)
        return seen

    assert calls(400) < 2.5 * calls(200)
