"""Two runs compared: which layers are the same, and files that are no runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from mtia_emu.cli.app import main
from mtia_emu.errors import UserError
from mtia_emu.results.difference import AMOUNTS, LayerRow, Side, as_json, compare, matched
from mtia_emu.results.report import Joules, Layer, Report, Stretch, Traffic
from mtia_emu.results.report_file import MAX_FILE_BYTES, OLD_SCHEMA, read_report
from mtia_emu.results.report_json import MOST_LAYERS, SCHEMA
from mtia_emu.results.report_json import as_json as report_json
from mtia_emu.results.spans import Track
from mtia_emu.view.difference import print_difference

ROW = LayerRow("fc", "matmul", "matmul", "dram", 2.0, 1.0, 64, 8, 4)


def side(*rows: LayerRow, **changes: Any) -> Side:
    seconds, joules = sum(x.seconds for x in rows), sum(x.joules for x in rows)
    sums = (sum(getattr(x, name) for x in rows) for name in ("macs", "dram_bytes", "sram_bytes"))
    made = Side("a.json", "m", "chip", "fp16", {"n": 1}, seconds, joules, *sums, 10, rows, len(rows))
    return replace(made, **changes)


def names(a: list[LayerRow], b: list[LayerRow]) -> list[tuple[str | None, str | None]]:
    return [(p.a and p.a.kernel, p.b and p.b.kernel) for p in matched(a, b)]


def test_layers_are_matched_by_name_and_op_then_by_size() -> None:
    relu = replace(ROW, name="act", op="relu", kernel="k1", macs=0)
    moved = replace(ROW, name="moved", kernel="k2", macs=32)
    a = [replace(ROW, kernel="k0"), relu, moved]
    b = [
        replace(moved, name="new", kernel="k3"),
        replace(ROW, kernel="k4", macs=7),
        replace(relu, kernel="k5"),
    ]
    assert names(a, b) == [("k0", "k4"), ("k1", "k5"), ("k2", "k3")]
    other = replace(ROW, op="tanh", macs=0, kernel="k6")
    assert names(a[:1], [other]) == [("k0", None), (None, "k6")]


def test_layers_that_are_alike_pair_in_their_order() -> None:
    twice = [replace(ROW, bound_by="array"), replace(ROW, bound_by="dram")]
    assert [(p.a.bound_by, p.b.bound_by) for p in matched(twice, twice) if p.a and p.b] == [
        ("array", "array"),
        ("dram", "dram"),
    ]
    assert [p.b for p in matched(twice, twice[:1])] == [twice[0], None]


def test_effects_come_first_and_sums_are_those_of_the_rows() -> None:
    slow, gone = replace(ROW, name="slow", seconds=5.0), replace(ROW, name="gone", op="add", seconds=0.5)
    fast = replace(slow, seconds=1.0, joules=4.0, dram_bytes=0)
    found = compare(side(ROW, gone, slow), side(ROW, fast))
    assert [(p.either.name, p.equal) for p in found.pairs] == [("slow", False), ("gone", False), ("fc", True)]
    assert next(p.either.name for p in compare(found.a, found.b, "joules").pairs) == "slow"
    out = as_json(found)
    assert out["change"]["seconds"] == -4.5 and out["ratio"]["seconds"] == 3 / 7.5
    for amount in AMOUNTS:
        assert math.fsum(x["change"][amount] for x in out["layers"]) == out["change"][amount]
    assert out["layers"][0]["ratio"]["dram_bytes"] == 0 and out["layers"][1]["b"] is None
    assert "commands" not in out["change"]


TRACK = Track("c", 10.0)


def made(**changes: Any) -> Report:
    """Return a report of three layers, two of which ran side by side."""
    layers = (
        Layer("p", "matmul", "matmul", 0, 80, 64, 8, 4, 1.0, "dram", 128, 0, 60.0, track=TRACK),
        Layer("q", "tanh", "map", 0, 40, 0, 2, 4, 0.5, "simd", 9, 0, 20.0, track=TRACK),
        Layer("r", "add", "map", 80, 100, 0, 0, 4, 0.25, "launch", 9, 1, track=TRACK),
    )
    runs = (Stretch(layers, TRACK.exact_seconds(100)),)
    traffic = Traffic(sram_read_bytes=12, dram_read_bytes=7, dram_write_bytes=3)
    report = Report("m", "c", "fp16", {"n": 4}, (TRACK,), runs, Joules(1.75), traffic, 64, 128)
    return replace(report, **changes)


def written(folder: Path, value: Any) -> str:
    path = folder / "report.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_a_report_is_read_back(tmp_path: Path) -> None:
    found = read_report(written(tmp_path, report_json(made())))
    assert [(x.name, x.seconds, x.joules) for x in found.rows] == [
        ("p", 6.0, 1.0),
        ("q", 2.0, 0.5),
        ("r", 2.0, 0.25),
    ]
    assert (found.launches, found.layers, found.commands) == (2, 3, None)
    assert (found.seconds, found.dram_bytes, found.sram_bytes, found.dims) == (10.0, 10, 12, {"n": 4})


def on_two_tracks() -> dict[str, Any]:
    """Return the JSON of the report and of one more layer, 8 ticks of a link of 4 Hz."""
    link = Track("link", 4.0)
    layer = Layer("s", "copy", "k", 2, 10, 0, 0, 0, 0.0, "noc", launch=0, track=link)
    runs = (Stretch((layer,), link.exact_seconds(10)),)
    report: dict[str, Any] = json.loads(
        json.dumps(report_json(made() + made(tracks=(link,), stretches=runs)))
    )
    return report


def test_layers_of_a_report_on_several_tracks_are_read_by_their_own_clocks(tmp_path: Path) -> None:
    both = on_two_tracks()
    run = read_report(written(tmp_path, both))
    assert [(x.name, x.seconds) for x in run.rows] == [("p", 6.0), ("q", 2.0), ("r", 2.0), ("s", 2.0)]
    assert (run.seconds, run.launches) == (12.5, 3)
    both["tracks"][1]["clock_hz"] = 0
    with pytest.raises(UserError, match=r"tracks\[1\]: clock_hz is 0; right: a clock rate"):
        read_report(written(tmp_path, both))
    both["tracks"][1] |= {"clock_hz": 4, "name": "other"}
    with pytest.raises(UserError, match=r'layers\[3\]: track is "link"; right: one of c, other'):
        read_report(written(tmp_path, both))


def of_a_gpu() -> Report:
    """Return a report of one kernel that no launch ran: 6 ticks of 4 Hz."""
    track = Track("g", 4.0)
    kernel = Layer("t", "matmul", "k", 0, 6, 64, 8, 4, 1.0, "tensor", track=track)
    return made(machine="g", tracks=(track,), stretches=(Stretch((kernel,), track.exact_seconds(6)),))


@pytest.mark.parametrize(
    ("report", "seconds", "launches"),
    [
        (of_a_gpu(), [1.5], 0),
        (2 * of_a_gpu(), [1.5, 1.5], 0),
        (made() + of_a_gpu(), [6.0, 2.0, 2.0, 1.5], 2),
    ],
)
def test_layers_that_no_launch_ran_are_read_back(
    report: Report, seconds: list[float], launches: int, tmp_path: Path
) -> None:
    run = read_report(written(tmp_path, report_json(report)))
    assert [x.seconds for x in run.rows] == seconds and run.launches == launches


def test_the_most_layers_that_are_written_are_read_back(tmp_path: Path) -> None:
    runs = MOST_LAYERS // 3
    whole = report_json(runs * made())
    assert read_report(written(tmp_path, json.dumps(whole, indent=2))).layers == 3 * runs
    for report, other in (
        ((runs + 1) * made(), None),
        (1_000_000_000 * made(), None),
        (made(), (runs + 1) * made()),
    ):
        with pytest.raises(
            UserError, match=rf"m on c: \d+ runs have \d+ layers, at most {MOST_LAYERS} are written"
        ):
            report_json(report, other)


def test_an_older_report_is_read_too(tmp_path: Path) -> None:
    old = report_json(made()) | {"schema": OLD_SCHEMA}
    for layer in old["layers"]:
        del layer["cycles"], layer["launch"]
    found = read_report(written(tmp_path, old))
    assert [x.seconds for x in found.rows] == [8.0, 4.0, 2.0] and found.launches == 3


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return a report's JSON with one value at a dotted path changed."""
    report: Any = json.loads(json.dumps(report_json(made())))
    *into, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    inside = report
    for key in into:
        inside = inside[key]
    inside[last] = value
    return report


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("1" * 5000, "not JSON"),
        ("\udcff".encode("utf-8", "surrogatepass").decode("latin-1"), "not JSON"),
        ("[1]", "it is a list; right: an object"),
        ({}, f"schema is null; right: '{SCHEMA}'"),
        (changed("schema", "mtia-emu.explain.v2"), 'schema is "mtia-emu.explain.v2"'),
        (changed("layers", {}), "layers is an object; right: a list"),
        (changed("layers.1", 7), r"layers\[1\]: it is 7; right: an object"),
        (changed("layers.1.macs", "x" * 99), r'layers\[1\]: macs is "x+\.\.\.; right: a whole number from 0'),
        (changed("layers.1.macs", 10**400), "macs is a number beyond all bounds"),
        (changed("layers.0.cycles", float("nan")), "cycles is nan; right: a number from 0"),
        (changed("layers.0.cycles", -1), "cycles is -1"),
        (changed("layers.2.name", 4), "name is 4; right: a text"),
        (changed("layers.2.launch", True), "launch is true; right: a whole number from 0, or -1 for none"),
        (changed("layers.2.launch", -2), r"layers\[2\]: launch is -2; right: a whole number from 0, or -1"),
        (changed("layers.2.launch", -1.0), "launch is -1.0; right: a whole number"),
        (changed("layers.2.macs", -1), "macs is -1; right: a whole number from 0$"),
        (changed("clock_hz", 0), "clock_hz is 0"),
        (changed("seconds", float("inf")), "seconds is inf"),
        (changed("traffic.dram_read_bytes", 1.5), "traffic: dram_read_bytes is 1.5; right: a whole number"),
        (changed("dims.n", "4"), 'dims: n is "4"'),
    ],
)
def test_what_is_no_report_is_refused(value: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        read_report(written(tmp_path, value))


def test_a_file_without_end_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"more than {MAX_FILE_BYTES} bytes"):
        read_report("/dev/zero")
    for path in (tmp_path, tmp_path / "none.json", "a\0b"):
        with pytest.raises(UserError, match="cannot be read"):
            read_report(path)


def test_names_are_text_on_the_terminal() -> None:
    bad = replace(ROW, name="[red]\x1b[31mx", op="\x1b]0;t\x07", bound_by="\x1b[2J")
    console = Console(width=60, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_difference(compare(side(bad), side(replace(bad, seconds=3.0), dims={"\x1b[1m": 2})), console)
    said = console.export_text()
    assert "\x1b" not in said and "[red]x" in said and "+1 s" in said and "1.50x" in said


def test_a_program_beside_a_report_has_a_table() -> None:
    """Commands are known of one side: there is no column of them, also where only that one has a layer."""
    known, gone = replace(ROW, commands=5), replace(ROW, name="gone", op="add", commands=7)
    found = compare(side(known, gone, commands=12), side(replace(ROW, seconds=1.0)))
    assert [p.more_commands for p in found.pairs] == [-7, None]
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_difference(found, console)
    both = compare(found.a, side(replace(known, commands=9), commands=9))
    print_difference(both, console)
    first, _, second = (
        console.export_text().partition("2 of 2 that differ")[2].partition("2 of 2 that differ")
    )
    assert "commands" not in first.partition("Totals")[0] and "only A" in first
    assert "commands" in second and "+4" in second and "-7" in second


def test_power_and_a_changed_clock_are_said() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_difference(compare(side(ROW, cycles=4), side(ROW, cycles=2)), console)
    rows = dict(line.split(maxsplit=1) for line in console.export_text().splitlines() if " " in line.strip())
    assert rows["power"].split()[:2] == ["500", "mW"] and rows["clock"].split()[0:4] == ["2", "Hz", "1", "Hz"]
    print_difference(compare(side(ROW), side(ROW)), console)
    assert "clock" not in console.export_text()


def test_equal_runs_have_no_row(tmp_path: Path) -> None:
    file = written(tmp_path, report_json(made()))
    done = CliRunner().invoke(main, ["diff", file, file])
    assert done.exit_code == 0 and "0 of 0 that differ; 3 are equal" in done.stdout


def test_a_program_and_its_report_are_the_same_run(tmp_path: Path) -> None:
    import mtia_emu

    program = mtia_emu.compile_model("zoo:dlrm-small", "tiny", dims={"batch": 2})
    mtia_emu.save_program(program, tmp_path / "p.mtia")
    file = written(tmp_path, report_json(mtia_emu.run(program, gpu=None).report))
    done = CliRunner().invoke(main, ["diff", file, str(tmp_path / "p.mtia"), "--json", "-", "--sort", "macs"])
    out = json.loads(done.stdout)
    assert not any(out["change"].values())
    for x in out["layers"]:
        assert x["a"] == x["b"] | {"commands": None, "mapping": ""}
    assert sum(x["b"]["commands"] for x in out["layers"]) == out["b"]["commands"]
    assert out["a"]["commands"] is None
    sizes = [len(program.blocks[x.block].commands) for x in program.launches]
    assert out["b"]["commands"] == sum(sizes) and out["b"]["launches"] == len(sizes)
