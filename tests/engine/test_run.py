"""Reports of programs: on a chip other than the one that they were compiled for, and what notes say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import program_of
from mtia_emu.compiler import text
from mtia_emu.compiler.pipeline import compile_lowered
from worked import WORKED

from mtia_emu.api import core_library
from mtia_emu.engine.function import execute
from mtia_emu.engine.run import report
from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.program.isa import Program
from mtia_emu.results.report import Report
from mtia_emu.results.report_json import as_json
from mtia_emu.silicon import area

POWER = {"energy.link_w": 0.5, "energy.dram_idle_w": 0.25, "energy.clock_pf_per_mm2": 40}
MM2 = area(load_chip("tiny")).total_mm2
# 0.017 W of leakage a mm2; the clock: 40 pF a mm2 x 0.75 V squared x 1 GHz.
STATIC, IDLE, CLOCK = MM2 * 0.017 + 0.5, 0.25, MM2 * 0.0225
EVENTS = 1.076e-9  # 3840 x 0.1 + 800 x 0.74 + 100 pJ, of the product


def twice(name: str, kind: str = "int8", **settings: object) -> Report:
    """Return the report of two launches of a worked command on tiny, with more power and `settings`."""
    chip = load_chip("tiny", POWER | settings)
    one = program_of(WORKED[name].block, chip)
    launches = tuple(replace(one.launches[0], name=x) for x in ("first", "second"))
    return report(replace(one, dtype=kind, launches=launches), chip)


def test_launches_stand_one_after_another_each_behind_its_start() -> None:
    """A product of 86 cycles: 100 to launch the first one, 50 to replace it by the second."""
    out = as_json(twice("matmul int8"))
    assert [(x["start_cycle"], x["end_cycle"]) for x in out["layers"]] == [(0, 186), (186, 322)]
    assert [x["cycles"] for x in out["layers"]] == [186, 136]
    assert (out["cycles"], out["seconds"]) == (322, pytest.approx(322e-9))
    assert [x["bound_by"] for x in out["layers"]] == ["launch", "array"]  # the array works 72 of 86 cycles
    assert [x["launch"] for x in out["layers"]] == [0, 1]


def test_part_of_a_cycle_is_a_whole_one() -> None:
    """At 1.4 GHz launches take 139.86 and 70 cycles; DRAM brings 192 B in 16.8 and answers after 70.

    The load ends after 2 + 16.8 + 70 + 2 + 4 = 94.8 cycles.
    """
    out = as_json(twice("load parts of rows from DRAM", clock_hz=1.4e9, **{"launch.first_s": 99.9e-9}))
    assert [(x["start_cycle"], x["end_cycle"]) for x in out["layers"]] == [(0, 235), (235, 400)]
    assert out["seconds"] == pytest.approx(400 / 1.4e9)


def test_joules_are_of_events_and_of_all_the_time() -> None:
    out = as_json(twice("matmul int8"))
    first, second = out["layers"]
    power = STATIC + IDLE + CLOCK
    assert first["joules"] == pytest.approx(EVENTS + power * 186e-9, rel=1e-9)
    assert second["joules"] == pytest.approx(EVENTS + power * 136e-9, rel=1e-9)
    parts = {"compute": 768e-12, "local": 1184e-12, "control": 200e-12, "sram": 0, "noc": 0}
    parts |= {"static": STATIC * 322e-9, "dram": IDLE * 322e-9, "clock": CLOCK * 322e-9}
    assert out["joules_by"] == pytest.approx(parts, rel=1e-9)
    assert out["joules"] == pytest.approx(sum(parts.values()), rel=1e-9)
    assert out["watts"] == pytest.approx(out["joules"] / 322e-9)


def test_amounts_are_of_all_launches() -> None:
    """3840 multiply-adds twice, of 256 a cycle at best; a layer has two operations each."""
    out = as_json(twice("matmul int8"))
    assert (out["macs"], out["utilization"]) == (7680, pytest.approx(7680 / (322 * 256)))
    assert [(x["macs"], x["ops"]) for x in out["layers"]] == [(3840, 7680)] * 2
    assert out["traffic"] == dict.fromkeys(out["traffic"], 0) | {"local_read_bytes": 1600}
    staged = as_json(twice("stage"))
    assert [(x["dram_bytes"], x["sram_bytes"]) for x in staged["layers"]] == [(64, 64)] * 2
    counts = {"dram_read_bytes": 128, "sram_write_bytes": 128, "noc_bytes": 128}
    assert staged["traffic"] == dict.fromkeys(staged["traffic"], 0) | counts
    assert [x["ops"] for x in as_json(twice("exp of accumulators"))["layers"]] == [128, 128]
    assert [x["ops"] for x in as_json(twice("scalar"))["layers"]] == [20, 20]


def test_a_zero_spares_joules_of_the_launch_that_met_it() -> None:
    """100 int8 multiply-adds at 0.03, not 0.10 pJ."""
    chip = load_chip("tiny")
    one = program_of(WORKED["matmul int8"].block, chip)
    full, less = report(one, chip), report(one, chip, zero_macs={0: ({"int8": 100},)})
    assert full.joules_by.compute - less.joules_by.compute == pytest.approx(7e-12)
    assert full.layers[0].joules - less.layers[0].joules == pytest.approx(7e-12, rel=1e-3)


SIZES = [(2, 2), (4, 2), (2, 5), (6, 6)]


@pytest.fixture(scope="module")
def program() -> Program:
    """Return a small recommender, with weights, compiled for the 2 x 2 grid of the tiny chip."""
    import mtia_emu

    return mtia_emu.compile_model("zoo:dlrm-small", "tiny", dims={"batch": 4}, seed=0)


@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_more_pes_never_slow_a_fixed_program(program: Program, rows: int, cols: int) -> None:
    small = report(program, load_chip("tiny"))
    large = report(program, load_chip("tiny", {"grid.rows": rows, "grid.cols": cols}))
    assert large.cycles == small.cycles
    assert large.traffic == small.traffic
    assert large.utilization * rows * cols == pytest.approx(small.utilization * 4)


def test_the_second_bottleneck_is_left_however_fast_dram_is(program: Program) -> None:
    """1 - slack of a layer's span is a floor; some layers reach within a third of theirs."""
    slow, fast = (report(program, load_chip("tiny", {"dram.channels": n})) for n in (1, 64))
    pairs = [
        (x, y) for x, y in zip(slow.layers, fast.layers, strict=True)
        if x.bound_by == "dram" and x.next_bound != "dram"
    ]  # fmt: skip
    assert len(pairs) >= 3 and all(0.0 <= x.slack <= 1.0 for x in slow.layers)
    for x, y in pairs:
        assert (1.0 - x.slack) * x.span_s <= y.span_s < x.span_s


def test_a_launch_leaves_what_the_busiest_unit_does() -> None:
    """The array works 72 of 186 cycles behind a launch of 100, and 72 of 136 where it bounds the layer."""
    first, second = twice("matmul int8").layers
    assert (first.bound_by, first.next_bound, first.slack) == ("launch", "array", pytest.approx(114 / 186))
    assert second.bound_by == "array" and second.next_bound not in ("array", "")


def test_a_larger_grid_computes_the_same(program: Program) -> None:
    from mtia_emu import zoo

    inputs = zoo.example_inputs("dlrm-small", {"batch": 4})
    outputs = [
        execute(program, load_chip("tiny", {"grid.rows": r, "grid.cols": c}), inputs, core_library()).outputs
        for r, c in SIZES
    ]
    for other in outputs[1:]:
        np.testing.assert_array_equal(other["probability"], outputs[0]["probability"])


@pytest.mark.parametrize(("rows", "cols"), [(1, 4), (4, 1)])
def test_a_smaller_grid_is_refused(program: Program, rows: int, cols: int) -> None:
    chip = load_chip("tiny", {"grid.rows": rows, "grid.cols": cols})
    with pytest.raises(UserError, match=rf"for a grid of 2 x 2 PEs, tiny has {rows} x {cols}; compile"):
        report(program, chip)


@pytest.mark.parametrize(("elements", "said"), [(1 << 16, True), (16, False)])
def test_work_of_one_core_is_said_where_it_takes_long(elements: int, said: bool) -> None:
    graph = text.parse(f"""graph g {{
  in %x : fp32[{elements}]
  in %l : fp16[2048,2048]
  const %r : fp16[2048,2048] = absent
  %y : fp32[{elements}] = cumsum(%x) {{axis=0}}
  %z : fp16[2048,2048] = matmul(%l, %r)
  out %y
  out %z
}}""")
    chip = load_chip("mtia-2i")
    notes = report(compile_lowered(graph, chip, dtype="fp16"), chip).notes
    assert any("one processor core works by itself" in n and "cumsum" in n for n in notes) == said
