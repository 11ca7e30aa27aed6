"""The report on a terminal, in a pipe, narrow and wide, and with names that mean harm."""

from __future__ import annotations

import io
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from relayered import relayered
from rich.cells import cell_len
from rich.console import Console

from mtia_emu.results.check import Check, Distance, LayerCheck, WrongCommand
from mtia_emu.results.power import PowerState
from mtia_emu.results.report import Joules, Report, Traffic
from mtia_emu.results.spans import Track
from mtia_emu.view.page import Cell
from mtia_emu.view.terminal import print_report, print_table

GOLDEN = Path(__file__).parent / "golden" / "report.txt"
HOSTILE = "[red]x[/red][/] :boom:\x1b[31m\x1b]0;t\x07\n\x00\u202eend"


class AsciiFile(io.StringIO):
    """A stream that says it cannot hold more than ASCII."""

    encoding = "ascii"


def shown(
    report: Report,
    gpu: Report | None = None,
    check: Check | None = None,
    *,
    width: int = 100,
    layers: int = 12,
    file: io.StringIO | None = None,
    basis: str = "board",
) -> str:
    file = file or io.StringIO()
    console = Console(file=file, width=width, color_system=None, force_terminal=False)
    print_report(report, gpu, check, console, layers=layers, basis=basis)
    return file.getvalue()


def listed(columns: list[str], rows: list[list[Cell]], width: int = 80) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, force_terminal=False)
    print_table("Chips", columns, rows, console)
    return file.getvalue()


def test_golden(report: Report, gpu: Report, check: Check) -> None:
    """UPDATE_GOLDEN=1 rewrites the answer."""
    text = shown(report, gpu, check)
    if os.environ.get("UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 79, 80, 99, 100, 120, 200])
def test_no_line_is_wider_than_the_page(report: Report, gpu: Report, check: Check, width: int) -> None:
    lines = shown(report, gpu, check, width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_weightiest_columns_are_there(report: Report, width: int) -> None:
    layers = tuple(replace(x, name=f"/a/very/long/{'path/' * 9}{x.name}") for x in report.layers)
    long = relayered(report, layers)
    text = shown(long, width=width)
    slowest = text[text.index("Slowest layers") :]
    assert re.search(r"layer +op +.*time +share +bound by", slowest)
    assert "/matmul_5" in slowest
    assert "652 us   17.3%   dram" in slowest


def test_shares_sum(report: Report) -> None:
    text = shown(report, width=80)
    energy = text[text.index("Energy\n") : text.index("Time by what")]
    shares = [float(x) for x in re.findall(r"([\d.]+)%", energy)]
    assert shares[-1] == 100.0
    assert round(sum(shares[:-1]), 6) == 100.0
    bound = text[text.index("Time by what") : text.index("Time by op")]
    assert round(sum(float(x) for x in re.findall(r"([\d.]+)%", bound)), 6) == 100.0


def test_plain_words(report: Report, gpu: Report) -> None:
    words = " ".join(shown(report, gpu, width=200).split())
    assert "mtia-2i is 0.151x as fast as a100-sxm-80gb and uses 0.835x the energy;" in words
    assert "its performance per watt is 1.20x the GPU's." in words


@pytest.mark.parametrize(
    ("basis", "ratio", "words"),
    [
        ("chip", "1.20x", "Joules of both: the chip and its memory; without regulators, host"),
        ("board", "1.20x", "Joules of both: chip, memory and the board's regulators; without host"),
        ("server", "0.461x", "a share of the server's host, network and fans (104 W and 162 W); without"),
    ],
)
def test_the_pair_is_on_one_basis_which_is_named(
    report: Report, gpu: Report, basis: str, ratio: str, words: str
) -> None:
    text = " ".join(shown(report, gpu, width=200, basis=basis).split())
    assert words in text and f"energy ({basis})" in text and f"power ({basis})" in text
    assert f"its performance per watt is {ratio} the GPU's." in text
    assert "Published performance per watt: 0.990x, 0.800x to 1.21x (nine models, ISCA 2025)." in text


def test_what_stands_around_a_machine_may_be_unknown(report: Report, gpu: Report) -> None:
    text = " ".join(shown(report, replace(gpu, around=None), width=200).split())
    assert "Joules of both" not in text and "energy (" not in text


def test_no_colour_in_a_pipe_and_colour_on_a_terminal(report: Report, gpu: Report, check: Check) -> None:
    assert "\x1b" not in shown(report, gpu, check)
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system="truecolor")
    print_report(report, gpu, check, console)
    assert "\x1b[" in file.getvalue()


def test_ascii(report: Report, gpu: Report, check: Check) -> None:
    named = replace(relayered(report, [replace(x, name="é" * 90) for x in report.layers]), model="模型 é")
    for width in (80, 120):
        assert shown(named, gpu, check, width=width, file=AsciiFile()).isascii()


def hostile(report: Report) -> Report:
    layer = replace(report.layers[0], name=HOSTILE, op=HOSTILE, kernel=HOSTILE, bound_by=HOSTILE)
    named = replace(report, model=HOSTILE, machine=HOSTILE, dtype=HOSTILE, dims={HOSTILE: 1})
    return replace(relayered(named, (layer,) * 3), notes=(HOSTILE,))


@pytest.mark.parametrize("terminal", [False, True])
def test_hostile_names(report: Report, gpu: Report, terminal: bool) -> None:
    check = Check(1.0, 1.0, 0.1, {HOSTILE: Distance(2.0, 1.0)})
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=terminal, color_system="auto")
    print_report(hostile(report), hostile(gpu), check, console)
    text = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())  # what rich itself colours
    assert "[red]x[/red][/] :boom:" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "\x1b[31m " not in file.getvalue()


def test_a_clock_that_the_limit_of_power_lowered_is_told(report: Report) -> None:
    state = PowerState(2e9, report.clock_hz, 0.7, 0.75, 10.0, 4.0, 2.0, {}, {})
    text = shown(replace(report, power=state))
    assert "2.00 GHz asked for: slowed to keep to 10 W" in text
    assert "of 10 W; 4 W idle, 2 W asleep" in text
    assert "asked for" not in shown(replace(report, power=replace(state, asked_hz=report.clock_hz)))


def test_empty_report() -> None:
    empty = Report("m", "c", "fp16", {}, (Track("c", 1e9),), (), Joules(), Traffic(), 0, 0.0)
    text = shown(empty, empty, Check(0.0, 0.0, 0.0))
    assert "Slowest" not in text
    assert "cannot be compared" in text
    assert "passed" in text


def test_rows_are_limited(report: Report) -> None:
    text = shown(report, layers=2)
    assert "2 of 24" in text
    assert "3 others" in text
    assert text.count("matmul_5") == 2
    assert "Slowest" not in shown(report, layers=0)
    assert "5 others" in shown(report, layers=0)


def test_overlap_is_explained(report: Report) -> None:
    first, second = report.layers[:2]
    both = relayered(report, [first, replace(second, start_cycle=first.start_cycle)])
    assert "a cycle in which n layers run counts 1/n for each" in shown(both)
    assert "counts 1/n" not in shown(report)


def test_failing_outputs_come_first_and_many_are_cut(report: Report) -> None:
    outputs = {f"out{i}": Distance(0.0, 0.0) for i in range(40)}
    outputs["bad"] = Distance(math.nan, math.nan)
    text = shown(report, None, Check(math.nan, math.nan, 1e-3, outputs))
    part = text[text.index("Check") : text.index("Notes")]
    assert "FAILED: largest relative error nan, tolerance 0.001" in part
    assert part.index("bad") < part.index("out0")
    assert "25 more outputs are in the JSON report" in part


def test_many_notes_are_cut(report: Report) -> None:
    text = shown(replace(report, notes=tuple(f"note {i}" for i in range(50))))
    assert "note 19" in text
    assert "note 20" not in text
    assert "and 30 more" in text


def test_listing() -> None:
    text = listed(["name", "PEs", "about"], [["mtia-2i", 64, "[b]two[/b] " * 20], ["tiny", 4, HOSTILE]])
    lines = text.splitlines()
    assert lines[0] == "Chips"
    assert lines[1].split() == ["name", "PEs", "about"]
    assert max(map(cell_len, lines)) <= 80
    assert text.count("[b]two[/b]") == 20
    assert re.search(r"^  tiny +4 +\[red\]x", text, re.M)
    assert listed(["name"], []).splitlines()[0] == "Chips"


def test_the_first_wrong_layer_and_its_command_are_told(report: Report, check: Check) -> None:
    command = WrongCommand(9, "store s1", "writes 4 wrong elements", ("2 load s0", "9 store s1"), "2 load s0")
    right = LayerCheck("fc1", "matmul", "matmul", 0, 0.5, 0.001, 0.004, 64)
    wrong = replace(right, name=HOSTILE, launch=1, max_rel_error=0.5, command=command)
    text = shown(report, None, replace(check, layers=(right, wrong, replace(right, compared=0))))
    body = text.partition("Layers against their references  3 of 3; 1 have nothing to compare")[2]
    rows = [line.split() for line in body.splitlines() if line.strip()]
    assert [row[-1] for row in rows[2:5]] == ["FAILED", "ok", "ok"]
    assert "first wrong command: 9 `store s1`: writes 4 wrong elements" in body
    assert "has none like: 2 load s0" in body and "  2 load s0" in body and "\x1b" not in text
    said = shown(report, None, replace(check, max_rel_error=1.0, layers=(right,)))
    assert "what is wrong is in the passes" in " ".join(said.split()) and "first wrong" not in said
    missing = replace(wrong, command=WrongCommand(-1, "", "no command writes 4 elements of the result"))
    said = shown(report, None, replace(check, layers=(missing,)))
    assert "first wrong command: none; no command writes 4" in said
