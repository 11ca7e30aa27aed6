"""Explanations on a terminal: wide and narrow, with names that mean harm, with nothing in them."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from relayered import relayered
from rich.cells import cell_len
from rich.console import Console

from mtia_emu.results.explanation import Effect, Explanation, LayerTime, ParameterStep
from mtia_emu.results.report import FILL, LAUNCH, Report
from mtia_emu.results.roofs import Roofs
from mtia_emu.view.explain import print_explanation

ROOFS = Roofs("fp16", 177e12, 2.76e12, 204.8e9, 2.7e12)
EFFECTS = (
    Effect(ParameterStep("dram.channels", "channels", 16, 18, "retimed"), -0.08, -0.02),
    Effect(ParameterStep("pe.matrix.rows", "lanes", 32, 64, "recompiled"), -0.2, 0.01),
    Effect(ParameterStep("energy.link_w", "W", 13.0, 11.7, "retimed"), 0.0, -0.03),
    Effect(ParameterStep("noc.hop_cycles", "cycles", 2.0, 1.8, "retimed"), -1e-4, -1e-4),
    Effect(ParameterStep("sram.bytes", "B", 1 << 28, 1 << 29, "recompiled"), refused="too large"),
)


@pytest.fixture
def done(report: Report) -> Explanation:
    layers = tuple(
        LayerTime(x, i % 6, {LAUNCH: 500.0, x.bound_by: x.end_cycle - x.start_cycle - 900.0, FILL: 400.0},
                  {"dram": 0.9, "array": 0.31, "noc": 0.2, "simd": 0.01}, 0.7)
        for i, x in enumerate(report.layers)
    )  # fmt: skip
    return Explanation(report, ROOFS, layers, EFFECTS)


def shown(done: Explanation, width: int = 80, rows: int = 12) -> str:
    file = io.StringIO()
    print_explanation(done, Console(file=file, width=width, color_system=None), rows=rows)
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_it_fits(done: Explanation, width: int) -> None:
    text = shown(done, width)
    assert max(map(cell_len, text.splitlines())) <= width
    for words in ("decoder-4 on mtia-2i", "fill ", "6 of 6 kinds, 100.0% of the time", "dram 90%"):
        assert words in text


def test_notes_of_the_run_are_printed(done: Explanation) -> None:
    slowed = replace(done, report=replace(done.report, notes=("runs slower",)))
    assert "- runs slower" in shown(slowed) and "was refused: too large" in shown(slowed)


def test_equal_layers_are_one_row(done: Explanation) -> None:
    (row,) = [line for line in shown(done, 100).splitlines() if "layers.0/matmul_5" in line]
    assert row.split()[2:7] == ["4", "69.3%", "dram", "70.0%", "dram"]


def test_changes_are_ranked_in_proportion_to_their_step(done: Explanation) -> None:
    time, energy = shown(done, 100).split("What would change the ")[1:]
    assert time.index("dram.channels") < time.index("pe.matrix.rows")  # 8% for an eighth, 20% for a doubling
    assert "static" not in time and "noc.hop" not in time
    assert energy.index("energy.link_w") < energy.index("dram.channels") < energy.index("pe.matrix.rows")
    words = " ".join(time.split())
    assert "+12.5% -8.00% -2.00% same" in words and "+100.0% -20.00% +1.00% new" in words
    assert "2 change less than 0.05%" in time and "1 change less than 0.05%" in energy
    assert "sram.bytes = 5.369e+08 was refused: too large" in energy


def test_tables_are_limited(done: Explanation) -> None:
    text = shown(done, 100, rows=1)
    assert "1 of 6 kinds" in text and "1 more" in text and "pe.matrix.rows" not in text


def test_without_what_would_help(done: Explanation) -> None:
    assert "What would" not in shown(replace(done, effects=None))
    assert "no parameter does" in shown(replace(done, effects=()))
    assert "compiled anew: grid.rows" in shown(replace(done, left_out=("grid.rows",)))


def test_names_are_printed_as_text(done: Explanation) -> None:
    layers = tuple(replace(x, layer=replace(x.layer, name="[red]x\x1b[31m")) for x in done.layers)
    assert "[red]x" in shown(replace(done, layers=layers)) and "\x1b" not in shown(
        replace(done, layers=layers)
    )


def test_nothing_to_explain(done: Explanation) -> None:
    empty = replace(done, report=relayered(done.report, (), 0), layers=(), effects=())
    assert "0 of 0 kinds" in shown(empty)
