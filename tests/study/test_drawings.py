"""What is drawn of graphs and programs: every node, every cycle."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from mtia_emu.compiler import text
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.pipeline import compile_graph

import mtia_emu
from mtia_emu import UserError, testing
from mtia_emu.engine.launches import costs
from mtia_emu.engine.run import report as make_report
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.commands import UNITS
from mtia_emu.study.drawings import MOST_BARS, graph_drawing, layer_lanes, program_lanes, under_way
from mtia_emu.testing.fuzz import TOGETHER
from mtia_emu.view.drawing import dot

TINY = load_chip("tiny")
GRAPH = """graph g {
  in %x : fp32[2,4]
  const %w : fp32[4,4] = absent
  %a : fp32[2,4] = matmul(%x, %w)
  %b : fp32[2,4] = add(%a, %a)
  %c : fp32[4,2] = transpose(%b) {perm=[1, 0]}
  out %c
  out %x
}
"""


def test_a_graph_is_boxes_and_arrows() -> None:
    drawing = graph_drawing(text.parse(GRAPH))
    lines = [(box.lines[:2], box.kind) for box in drawing.boxes]
    assert lines == [
        (("input", "x"), "input"),
        (("matmul", "a"), "product"),
        (("add", "b"), "other"),
        (("transpose", "c"), "move"),
        (("output", "c"), "output"),
        (("output", "x"), "output"),
    ]
    assert [a[:2] for a in drawing.arrows] == [(0, 1), (1, 2), (2, 3), (3, 4), (0, 5)]
    assert "constant %w : fp32[4,4]" in drawing.boxes[1].tip


def test_what_reads_rows_of_a_table_is_a_lookup() -> None:
    """Whether one table or several, pooled or not."""
    body = """graph g {
  in %t : fp32[9,4]
  in %i : int64[3]
  in %o : int64[2]
  %a : fp32[3,4] = gather(%t, %i) {axis=0}
  %b : fp32[2,4] = embedding_bag(%t, %i, %o) {mode="sum"}
  %c : fp32[2,4], %d : fp32[2,4] = embedding_bags(%t, %i, %o, %t, %i, %o) {mode="sum"}
  %e : fp32[4,9] = transpose(%t) {perm=[1, 0]}
  out %a
  out %b
  out %c
  out %d
  out %e
}
"""
    boxes = graph_drawing(text.parse(body)).boxes[3:7]
    assert [box.kind for box in boxes] == ["lookup", "lookup", "lookup", "move"]


@settings(max_examples=30)
@given(testing.graphs())
def test_every_operand_has_its_arrow(graph: Graph) -> None:
    drawing = graph_drawing(graph)
    assert len(drawing.boxes) == len(graph.inputs) + len(graph.nodes) + len(graph.outputs)
    reads = sum(len({v for v in node.inputs if v and v not in graph.consts}) for node in graph.nodes)
    assert len(drawing.arrows) == reads + sum(v not in graph.consts for v in graph.outputs)
    assert all(source < target for source, target, _ in drawing.arrows)
    assert dot(drawing).count(" -> ") == len(drawing.arrows)


@pytest.fixture(scope="module")
def program() -> mtia_emu.compile_model:  # type: ignore[valid-type]
    return mtia_emu.compile_model("zoo:llama-tiny", TINY)


def test_lanes_are_as_busy_as_the_commands(program) -> None:  # type: ignore[no-untyped-def]
    lanes, cycles = program_lanes(program, TINY)
    assert cycles == make_report(program, TINY).cycles
    assert [bar.end for bar in lanes[0].bars][-1] == cycles
    assert Counter(bool(bar.name) for bar in lanes[0].bars) == {
        True: len(program.launches),
        False: len(program.launches),
    }
    assert all(0 < bar.share <= 1 and bar.end <= cycles for lane in lanes for bar in lane.bars)
    each = [cost.time for cost in costs(program, TINY)]
    starts = [bar.start for bar in lanes[0].bars if bar.name]
    assert all(a.end == b.start for a, b in pairwise(lanes[0].bars))  # launch, layer, launch, ...
    edges = np.linspace(0.0, cycles, 137)
    for unit, _ in enumerate(UNITS):
        spent = sum(float((t.end - t.start)[t.unit == unit].sum()) for t in each)
        drawn = float((under_way(each, starts, unit, edges) * np.diff(edges)).sum())
        assert drawn == pytest.approx(spent)


def test_layers_of_one_launch_stand_one_below_the_other() -> None:
    lines = GRAPH.replace("%b : fp32[2,4] = add(%a, %a)", "%b : fp32[2,4] = tanh(%x)").splitlines()
    graph = text.parse("\n".join([*lines[:-4], "  out %a", "  out %b", "}"]))
    done = compile_graph(graph, TINY, tuning=TOGETHER).program
    (launch,) = (x for x in done.launches if x.parts)
    lanes, cycles = program_lanes(done, TINY)
    assert [lane.name for lane in lanes[:2]] == ["layer, by what bound it", "beside it"]
    names = [
        bar.name for lane in lanes[:2] for bar in lane.bars if bar.name in {x.name for x in launch.parts}
    ]
    assert names == [x.name for x in launch.parts]
    layers = {x.name: x for x in make_report(done, TINY).layers}
    for bar in (bar for lane in lanes[:2] for bar in lane.bars if bar.name):
        assert bar.end == layers[bar.name].end_cycle
    assert max(bar.end for lane in lanes[:2] for bar in lane.bars) == cycles


def test_a_layer_shows_every_command_of_a_pe(program) -> None:  # type: ignore[no-untyped-def]
    launch = next(x for x in program.launches if x.name == "logits")
    commands = program.blocks[launch.block].commands
    lanes, cycles = layer_lanes(program, TINY, "logits", 1)
    assert sum(len(lane.bars) for lane in lanes) == np.count_nonzero(commands["pe"] == 1)
    for lane in lanes:
        assert all(a.end <= b.start for a, b in zip(lane.bars, lane.bars[1:], strict=False)), lane.name
        assert all(0 <= bar.start <= bar.end <= cycles for bar in lane.bars)


def test_of_too_many_commands_the_load_is_shown(monkeypatch: pytest.MonkeyPatch, program) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("mtia_emu.study.drawings.MOST_BARS", 4)
    lanes, _ = layer_lanes(program, TINY, "logits", 1)
    assert MOST_BARS > 4 and any("commands)" in lane.name for lane in lanes)


def test_unknown_layers_and_pes_are_refused(program) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match="did you mean 'logits'"):
        layer_lanes(program, TINY, "logit", 0)
    with pytest.raises(UserError, match="right: 0 to 3"):
        layer_lanes(program, TINY, "logits", 4)
