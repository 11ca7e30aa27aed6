"""Launches of a program in time: a chain today, any order of waiting that is asked for."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.text import parse

import mtia_emu
from mtia_emu.engine.launches import costs
from mtia_emu.engine.run import report
from mtia_emu.engine.sequence import barrier_cycles, launch_runs, spans
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Launch, Opcode, Part, Program
from mtia_emu.study.trace import trace_events
from mtia_emu.testing.fuzz import TOGETHER

# 100 cycles to start the first launch and 30 for every other, at 1 GHz; the halves round up
CHIP = load_chip("tiny", {"launch.first_s": 99.5e-9, "launch.replace_s": 29.5e-9})


@pytest.fixture(scope="module")
def program() -> Program:
    return mtia_emu.compile_model("zoo:dlrm-small", CHIP, dims={"batch": 4}, beside=False)


def test_launches_follow_one_another(program: Program) -> None:
    each = costs(program, CHIP)
    laid = spans(program, CHIP, each)
    assert [x.launch for x in laid] == list(range(len(program.launches)))
    assert laid[0].start == 0 and {x.track.name for x in laid} == {"tiny"}
    assert [x.begin - x.start for x in laid] == [100, *[30] * (len(laid) - 1)]
    assert [x.end - x.begin for x in laid] == [c.cycles for c in each]
    assert all(a.end == b.start for a, b in pairwise(laid))
    assert [x.after for x in laid] == [(), *((i,) for i in range(len(laid) - 1))]
    assert laid[-1].end_s == report(program, CHIP, each=each).seconds


def test_what_launches_wait_for_may_be_said(program: Program) -> None:
    each = costs(program, CHIP)
    waits = [(), *((0,) for _ in each[1:])]
    laid = spans(program, CHIP, each, waits)
    assert [x.after for x in laid] == waits
    assert all(a.end == b.start for a, b in pairwise(laid))  # the chip runs one at a time all the same
    with pytest.raises(ValueError, match="shorter"):
        spans(program, CHIP, each, waits[:-1])


def test_layers_of_a_launch_begin_together_and_end_with_their_own_commands() -> None:
    graph = parse("""graph pair {
      in %x : fp16[64,128]
      in %y : fp16[8,128]
      const %w : fp16[128,128] = absent
      const %v : fp16[128,32] = absent
      %a : fp16[64,128] = matmul(%x, %w)
      %b : fp16[8,32] = matmul(%y, %v)
      out %a
      out %b
    }""")
    program = compile_graph(graph, CHIP, tuning=TOGETHER).program
    (run,) = launch_runs(program, CHIP, costs(program, CHIP))
    assert len(run.layers) == 2 and [x.band for x in run.layers] == [0, 1]
    ends = {e.name: e.end_cycle for e in trace_events(program, CHIP) if e.track.startswith("layer from row")}
    for x in run.layers:
        assert (x.span.start, x.span.begin) == (run.span.start, run.span.begin) == (0, 100)
        assert x.span.end == math.ceil(ends[x.layer.name])
    assert max(x.span.end for x in run.layers) == run.span.end


def test_a_launch_ends_when_what_it_copies_for_later_ones_is_there() -> None:
    steps = """
      %p0 : fp32[4,256] = matmul(%x, %w0)
      %s0 : fp32[4,256] = softmax(%p0) {axis=1}
      %p1 : fp32[4,256] = matmul(%s0, %w1)"""
    weights = "".join(f"  const %w{i} : fp32[256,256] = absent\n" for i in range(2))
    graph = parse(f"graph g {{\n  in %x : fp32[4,256]\n{weights}{steps}\n  out %p1\n}}")
    chip = load_chip("tiny", {"dram.channel_bytes_per_s": 2e9})
    program = compile_graph(graph, chip).program
    copying = 0
    for run in launch_runs(program, chip, costs(program, chip)):
        commands = run.block.commands
        ahead = (commands["op"] == Opcode.STAGE) & (commands["stage"] < 0)
        if ahead.any():
            copying += 1
            assert run.span.end == run.span.begin + math.ceil(run.cost.time.end.max())
            assert run.cost.time.end[ahead].max() <= run.span.end - run.span.begin
    assert copying


STEPS = """graph loop {
  in %h : fp16[4,8]
  in %x : fp16[6,4,8]
  const %w : fp16[8,8] = absent
  %y : fp16[6,4,8] = scan(%h, %w, %x) {product=true, scanned=1, tapes=["3 -> t0 | t0 = add(x1, x2)"]}
  %z : fp16[6,4,8] = exp(%y)
  out %z
}"""


def test_steps_of_a_loop_wait_for_one_another_and_are_not_launched() -> None:
    program = compile_graph(parse(STEPS), CHIP, dtype="fp16", prefetch=False).program
    ops = [x.op for x in program.launches]
    assert ops == ["scan"] * 12 + ["exp"]
    starts = [x.begin - x.start for x in spans(program, CHIP, costs(program, CHIP))]
    barrier = math.ceil(2 * CHIP.sram.latency_s * CHIP.clock_hz)
    assert barrier == barrier_cycles(CHIP) < 30
    assert starts == [100, *[barrier] * 11, 30]


def test_a_loop_goes_on_only_where_the_launch_before_is_of_the_same_loops() -> None:
    one, other = Launch(0, (), "a", "scan"), Launch(1, (), "b", "scan")
    both = Launch(2, (), "a + b", "scan + scan", parts=(Part("a", "scan"), Part("b", "scan")))
    assert one.goes_on(one) and both.goes_on(both) and both.goes_on(replace(both, parts=both.parts[::-1]))
    assert not one.goes_on(other) and not both.goes_on(one) and not one.goes_on(both)
    assert not Launch(0, (), "a", "exp").goes_on(Launch(0, (), "a", "exp"))
