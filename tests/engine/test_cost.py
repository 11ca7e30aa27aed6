"""Layers side by side: what each takes, moves and costs sums to the launch, and is its own."""

from __future__ import annotations

import math
import re
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtia_emu.compiler.lower.choice import ESTIMATED
from mtia_emu.compiler.pipeline import compile_graph
from mtia_emu.compiler.text import parse

from mtia_emu.engine.cost import _share_before
from mtia_emu.engine.function import execute
from mtia_emu.engine.launches import costs
from mtia_emu.engine.run import report
from mtia_emu.engine.timing import Timeline
from mtia_emu.machine.chip import load_chip
from mtia_emu.machine.supply import logic_scale
from mtia_emu.program.isa import Program
from mtia_emu.results.report import Layer
from mtia_emu.results.report_json import as_json
from mtia_emu.testing.fuzz import TOGETHER, numbered_graph, random_chip

AMOUNTS = ("macs", "ops", "dram_bytes", "sram_bytes")
PAIR = """graph pair {
  in %x : fp16[64,128]
  in %y : fp16[64,128]
  const %w : fp16[128,128] = absent
  const %v : fp16[128,128] = absent
  %a : fp16[64,128] = matmul(%x, %w)
  %b : fp16[64,128] = matmul(%y, %v)
  out %a
  out %b
}
"""


def side_by_side(number: int) -> tuple[Program, Program, Any]:
    """Return a random graph's program with layers side by side, the one without, and the chip."""
    graph, chip = numbered_graph(3, number), random_chip(3, number)
    chip = chip.model_copy(update={"grid": chip.grid.model_copy(update={"rows": 3})})
    joined, alone = (compile_graph(graph, chip, tuning=how).program for how in (TOGETHER, ESTIMATED))
    return joined, alone, chip


@settings(max_examples=8)
@given(st.integers(0, 1 << 20))
def test_layers_of_a_launch_sum_to_it(number: int) -> None:
    program, alone, chip = side_by_side(number)
    done = report(program, chip)
    each = costs(program, chip)
    traffic = done.traffic
    assert sum(x.macs for x in done.layers) == done.macs
    assert sum(x.dram_bytes for x in done.layers) == traffic.dram_read_bytes + traffic.dram_write_bytes
    assert sum(x.sram_bytes for x in done.layers) == traffic.sram_read_bytes + traffic.sram_write_bytes
    assert math.fsum(x.cycles for x in done.layers) == pytest.approx(done.cycles, rel=1e-12)
    assert math.fsum(x.joules for x in done.layers) == pytest.approx(done.joules, rel=1e-9)
    for cost in (c for c in each if c.members):
        moved = zip(*(astuple(x.traffic) for x in cost.members), strict=True)
        assert tuple(map(sum, moved)) == astuple(cost.traffic)
        assert sum(x.ops for x in cost.members) == cost.ops
        assert max(x.cycles for x in cost.members) == cost.cycles
    names = [(part.name, part.op) for launch in program.launches for part in (launch.parts or (launch,))]
    assert [(x.name, x.op) for x in done.layers] == names
    assert sorted((x.name, x.macs) for x in done.layers if x.macs) == sorted(
        (x.name, x.macs) for x in report(alone, chip).layers if x.macs
    )


def test_the_json_sums_by_op_to_the_run() -> None:
    """Two unlike layers in one launch: no op is a sum of names, and the time by op is that of the run."""
    graph = parse(PAIR.replace("%b : fp16[64,128] = matmul(%y, %v)", "%b : fp16[64,128] = tanh(%y)"))
    chip = load_chip("mtia-2i")
    program = compile_graph(graph, chip, tuning=TOGETHER).program
    out = as_json(report(program, chip))
    assert [x["op"] for x in out["layers"]] == ["matmul", "tanh"]
    assert {x["launch"] for x in out["layers"]} == {0} and {x["start_cycle"] for x in out["layers"]} == {0}
    assert sum(x["cycles"] for x in out["layers"]) == out["cycles"]
    assert [x["macs"] for x in out["layers"]] == [64 * 128 * 128, 0]
    shorter, longer = sorted(out["layers"], key=lambda x: x["end_cycle"])
    assert longer["end_cycle"] == out["cycles"] and shorter["cycles"] == shorter["end_cycle"] / 2


def test_zeros_of_one_layer_spare_joules_of_that_layer() -> None:
    chip, ones = load_chip("mtia-2i"), np.ones((64, 128), np.float16)
    text = re.sub(r"const (\S+) : (\S+) = absent", r"in \1 : \2", PAIR)
    program = compile_graph(parse(text), chip, tuning=TOGETHER).program
    assert [len(x.parts) for x in program.launches] == [2]
    weights = dict.fromkeys(("w", "v"), np.ones((128, 128), np.float16))

    def run(x: np.ndarray) -> tuple[Layer, ...]:
        done = execute(program, chip, {"x": x, "y": ones, **weights})
        return report(program, chip, done.lookups, done.zero_macs).layers

    (a, b), (spared, same) = run(ones), run(ones * 0)
    assert same == b and replace(spared, joules=a.joules) == a
    e = chip.energy
    saved = a.macs * (e.mac_pj["fp16"] - e.zero_mac_pj["fp16"]) * logic_scale(chip) * 1e-12
    assert a.joules - spared.joules == pytest.approx(saved, rel=1e-6)


def test_of_what_is_shared_a_layer_sees_what_falls_into_its_time() -> None:
    time = Timeline(np.array([0.0, 50, 80, 75]), np.array([100.0, 150, 90, 75]), np.zeros(4), 150.0, {})
    assert _share_before(time, 75.0).tolist() == [0.75, 0.25, 0.0, 0.0]
    assert _share_before(time, 76.0).tolist() == [0.76, 0.26, 0.0, 1.0]


def test_a_layer_is_bound_by_what_it_waits_for() -> None:
    """A look at DRAM beside a product from SRAM: each has a bound of its own."""
    chip = load_chip("mtia-2i", {"dram.channel_bytes_per_s": 1e8})
    text = PAIR.replace("const %v : fp16[128,128]", "const %v : fp16[128,2048]").replace(
        "%b : fp16[64,128] = matmul(%y, %v)", "%b : fp16[64,2048] = matmul(%y, %v)"
    )
    text = text.replace("%a : fp16[64,128] = matmul(%x, %w)", "%a : fp16[64,128] = tanh(%x)")
    text = text.replace("  const %w : fp16[128,128] = absent\n", "")
    found = report(compile_graph(parse(text), chip, tuning=TOGETHER).program, chip).layers
    assert [x.launch for x in found] == [0, 0]
    assert found[1].bound_by == "dram"
