"""Independent steps in one launch: which may be, what they compute, and that it is never slower."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.inputs.samples import random_inputs
from mtia_emu.compiler.lower import beside as rules
from mtia_emu.compiler.lower.beside import apart, gather, meet, moments
from mtia_emu.compiler.lower.choice import Tuning
from mtia_emu.compiler.lower.schedule import schedule
from mtia_emu.compiler.lower.steps import Schedule, Step
from mtia_emu.compiler.lower.views import View, packed
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.reference import core_library
from mtia_emu.kernels.search import BY_ESTIMATE, MappingSearch

from mtia_emu import api
from mtia_emu.engine.function import execute
from mtia_emu.engine.memoised import memoised_costs
from mtia_emu.engine.run import report
from mtia_emu.machine.chip import Chip, load_chip
from mtia_emu.program.file import load, save
from mtia_emu.program.isa import Program
from mtia_emu.program.text import dump
from mtia_emu.program.verify import verify
from mtia_emu.reuse.memo import Memo
from mtia_emu.study.trace import trace_events
from mtia_emu.study.tuning import cycles
from mtia_emu.testing.fuzz import TOGETHER, numbered_graph, random_chip
from mtia_emu.types import FP16

Array = np.ndarray[Any, Any]
JUDGED = MappingSearch(beside=cycles)
CHIP = "mtia-2i"


def towers(count: int, rows: int = 64, width: int = 128) -> Graph:
    """Return a graph of independent products of one input, one after another, and their sum."""
    from mtia_emu.compiler.text import parse

    kind = f"fp16[{rows},{width}]"
    lines = ["graph towers {", f"  in %x : {kind}"]
    lines += [f"  const %w{i} : fp16[{width},{width}] = absent" for i in range(count)]
    lines += [f"  %h{i} : {kind} = matmul(%x, %w{i})" for i in range(count)]
    lines += [f"  %s{i} : {kind} = {'tanh' if i % 2 else 'sigmoid'}(%h{i})" for i in range(count)]
    lines += [f"  out %s{i}" for i in range(count)]
    return parse("\n".join([*lines, "}"]))


def compiled(graph: Graph, chip: Chip, search: MappingSearch) -> Program:
    return compile_graph(graph, chip, tuning=Tuning(search)).program


def test_independent_steps_stand_at_one_moment_and_dependent_ones_do_not() -> None:
    calls = schedule(towers(3), load_chip(CHIP))
    alone = list(calls.steps)
    gather(calls, BY_ESTIMATE)
    assert sorted(calls.steps, key=alone.index) == alone and calls.moments == sorted(calls.moments)
    sizes = [len(steps) for steps in moments(calls)]
    assert max(sizes) == 3 and sum(sizes) == len(alone)
    for steps in moments(calls):
        for step in steps:
            others = {v.buffer for s in steps if s is not step for v in s.outputs}
            assert not others & {v.buffer for v in (*step.inputs, *step.outputs)}


def test_what_waits_for_the_step_before_stays_behind_it() -> None:
    calls = schedule(towers(1), load_chip(CHIP))
    before = list(calls.steps)
    gather(calls, BY_ESTIMATE)
    assert calls.steps == before and calls.moments == list(range(len(before)))


def test_small_layers_side_by_side_are_faster_and_keep_their_names() -> None:
    chip = load_chip(CHIP)
    apart_, joined = (compiled(towers(4), chip, search) for search in (BY_ESTIMATE, JUDGED))
    slow, fast = report(apart_, chip), report(joined, chip)
    assert fast.cycles < slow.cycles and len(joined.launches) < len(apart_.launches)
    assert fast.macs == slow.macs and fast.joules < slow.joules
    names = {part.name for x in joined.launches for part in (x.parts or (x,))}
    assert names == {x.name for x in apart_.launches}
    (launch,) = [x for x in joined.launches if len(x.parts) == 4][:1]
    assert launch.name == " + ".join(x.name for x in launch.parts)
    text = dump(joined)
    assert "bands from rows 0, 2, 4, 6" in text and launch.name in text
    tracks = [e.track for e in trace_events(joined, chip) if e.name == launch.parts[1].name]
    assert tracks == ["layer from row 2"]


def test_a_launch_of_several_layers_comes_back_from_its_file(tmp_path: Any) -> None:
    program = compiled(towers(4), load_chip(CHIP), JUDGED)
    assert any(block.bands for block in program.blocks)
    save(program, tmp_path / "p.mtia")
    found = load(tmp_path / "p.mtia")
    assert found.launches == program.launches
    assert [b.bands for b in found.blocks] == [b.bands for b in program.blocks]


@pytest.mark.parametrize(
    ("model", "dims"),
    [
        ("zoo:dlrm-small", {"batch": 64}),
        ("zoo:dlrm-small", {"batch": 512}),
        ("zoo:llama-tiny", {"batch": 1, "seq": 8}),
        ("zoo:llama-tiny", {"batch": 1, "seq": 1, "past": 8}),
    ],
)
def test_a_model_is_no_slower_by_its_own_timing(model: str, dims: dict[str, int]) -> None:
    chip, found = load_chip(CHIP), []
    for beside in (False, True):
        with api.open_model(model, dims) as source:
            program = api.compile_stages(source, chip, beside=beside).program
        found.append((report(program, chip).cycles, len(program.launches)))
    (slow, many), (fast, few) = found
    assert fast < slow and few < many


def test_a_slower_launch_is_not_taken() -> None:
    """A timer to which a launch of several layers is the slower makes the program that is made without."""
    chip = load_chip(CHIP)
    dislike = MappingSearch(beside=lambda block, _: 1e9 if block.bands else 1e5)
    program = compiled(towers(4), chip, dislike)
    assert not any(block.bands for block in program.blocks) and not any(x.parts for x in program.launches)
    assert len(program.launches) == len(compiled(towers(4), chip, BY_ESTIMATE).launches)


@settings(max_examples=40)
@given(st.integers(0, 1 << 20))
def test_values_and_traffic_are_those_without(number: int) -> None:
    graph, chip = numbered_graph(3, number), random_chip(3, number)
    chip = chip.model_copy(update={"grid": chip.grid.model_copy(update={"rows": 3})})
    inputs = random_inputs(graph, 0)
    results = []
    for search in (BY_ESTIMATE, TOGETHER.search):
        program = compiled(graph, chip, search)
        verify(program, chip)
        with np.errstate(all="ignore"):
            outputs = execute(program, chip, inputs, core_library(), check=True).outputs
        results.append((outputs, report(program, chip)))
    (alone, one), (together, other) = results
    for name, array in alone.items():
        np.testing.assert_allclose(
            together[name].astype(np.float64), array.astype(np.float64), rtol=2e-2, atol=2e-2
        )
    assert one.macs == other.macs


@settings(max_examples=200)
@given(st.data())
def test_views_apart_have_no_element_in_common(data: st.DataObject) -> None:
    def view() -> View:
        rank = data.draw(st.integers(1, 3))
        shape = tuple(data.draw(st.integers(1, 4)) for _ in range(rank))
        strides = data.draw(
            st.one_of(st.just(packed(shape)), st.tuples(*[st.sampled_from([0, 1, 2, 6, 12])] * rank))
        )
        return View("x", FP16, shape, strides, data.draw(st.integers(0, 30)))

    a, b = view(), view()
    if apart(a, b):
        assert not _elements(a) & _elements(b)


@settings(max_examples=100)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 6), st.sampled_from([1, 3, 24]))
def test_lots_of_views_meet_where_two_of_them_are_not_apart(
    some: int, others: int, shift: int, wide: int
) -> None:
    def lot(count: int, first: int) -> list[View]:
        return [View("x", FP16, (8, 2), (6 * wide, 1), first + 2 * i) for i in range(count)]

    one, other = lot(some, 0), lot(others, 2 * some + shift - 3)
    assert meet(one, other) == any(not apart(a, b) for a in one for b in other)


def test_columns_that_reach_into_the_next_line_meet_those_that_begin_it() -> None:
    """In lines of 6, columns 4 to 8 of a line are 0 and 1 of the next, however many views there are."""
    over, begin = View("x", FP16, (2, 4), (6, 1), 4), View("x", FP16, (2, 2), (6, 1), 0)
    assert _elements(over) & _elements(begin)
    assert meet([over] * 9, [begin] * 9) and meet([begin] * 9, [over] * 9)


@pytest.mark.parametrize(("earlier", "later"), [("read", "write"), ("write", "read"), ("write", "write")])
def test_a_step_waits_for_who_wrote_or_read_what_it_writes_or_wrote_what_it_reads(
    earlier: str, later: str
) -> None:
    left, right = View("x", FP16, (8, 4), (12, 1), 0), View("x", FP16, (8, 4), (12, 1), 4)

    def step(does: str, view: View) -> Step:
        other = View(does, FP16, (8, 4), (4, 1), 0)
        return Step(does, "copy", "rows", *(((view,), (other,)) if does == "read" else ((other,), (view,))))

    moment = rules._Moment([], {}, 0)
    moment.note(step(earlier, left))
    assert moment.holds_up(step(later, left)) and not moment.holds_up(step(later, right))


def test_two_steps_may_read_the_same() -> None:
    view = View("x", FP16, (8, 4), (4, 1), 0)
    one, two = (Step(name, "copy", "rows", (view,), (replace(view, buffer=name),)) for name in ("a", "b"))
    moment = rules._Moment([], {}, 0)
    moment.note(one)
    assert not moment.holds_up(two)


def test_two_thousand_columns_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [View("x", FP16, (8, 4), (8000, 1), 4 * i) for i in range(2000)]
    monkeypatch.setattr(rules, "apart", lambda a, b: pytest.fail("pair by pair"))
    assert not meet(columns[:1000], columns[1000:])


def _elements(view: View) -> set[int]:
    at = np.indices(view.shape).reshape(len(view.shape), -1)
    return set((view.offset + np.asarray(view.strides) @ at).tolist())


def test_columns_of_one_result_are_apart() -> None:
    left = View("x", FP16, (8, 4), (12, 1), 0)
    right = replace(left, offset=4)
    assert apart(left, right) and not apart(left, replace(left, offset=3))


def test_shared_between_chips_it_is_the_unshared_one() -> None:
    memoise, graph = Memo(), towers(3)
    for changes in ({}, {"dram.channel_bytes_per_s": 4e9}, {"launch.replace_s": 1e-9}, {"grid.rows": 3}, {}):
        chip = load_chip("tiny", {"grid.rows": 2, **changes})
        shared = compile_graph(graph, chip, tuning=Tuning(JUDGED, memoise)).program
        plain = compiled(graph, chip, JUDGED)
        assert shared.launches == plain.launches
        each = memoised_costs(shared, chip, memoise)
        assert report(shared, chip, each=each) == report(plain, chip)
    memoise.done.clear()
    compile_graph(graph, load_chip("tiny", {"grid.rows": 2}), tuning=Tuning(JUDGED, memoise))
    assert not memoise.done


def test_lives_of_what_is_touched_at_one_moment_do_not_share_memory() -> None:
    """Buffers that two steps of a moment touch lie apart, one written while the other is read."""
    chip = load_chip(CHIP)
    done = compile_graph(towers(4), chip, tuning=Tuning(JUDGED))
    calls: Schedule = done.schedule
    for launch in done.program.launches:
        block = done.program.blocks[launch.block]
        spans = sorted(
            (address, address + x.extent_bytes, x.written)
            for x, address in zip(block.operands, launch.addresses, strict=True)
            if x.space == "sram"
        )
        for (_, end, one), (begin, _, two) in pairwise(spans):
            assert end <= begin or not (one or two)
    assert calls.moments
