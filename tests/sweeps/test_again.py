"""Every point of a sweep says the command that does it again, and that command comes to the same."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from mtia_emu.cli.app import main
from mtia_emu.sweeps.again import as_text, commands
from mtia_emu.sweeps.export import write_csv
from mtia_emu.sweeps.row import OK, Row
from mtia_emu.sweeps.run import SweepRun, run
from mtia_emu.sweeps.spec import Spec, make_spec
from mtia_emu.sweeps.store import Store

SPEC = {
    "model": [
        {"model": "zoo:dlrm-small", "name": "two words", "dims": {"batch": 2}, "dtype": "int8"},
        {"model": "zoo:llama-tiny", "name": "tiny", "dims": {"seq": 2}},
    ],
    "chip": "tiny",
    "gpu": "none",
    "prefetch": False,
    "state": "cold",
    "set": {"dram.channels": [1, 2], "clock_hz": [1e9, 1.5e9]},
    "link": {"sram.bytes": "dram.channels * 1048576"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with run(make_spec(SPEC), SweepRun(tmp_path_factory.mktemp("s") / "s.db", jobs=0)) as rows:
        yield rows


def test_the_command_comes_to_the_points_time_and_joules(store: Store) -> None:
    rows = [row for row in store.rows() if row.status == OK]
    assert len(rows) == 4
    for row in (rows[0], rows[-1]):
        for name, line in commands(store.spec, row).items():
            program, *words = shlex.split(line)
            done = CliRunner().invoke(main, [*words, "--json", "-"])
            assert program == "mtia-emu" and done.exit_code == 0, done.output
            told = json.loads(done.stdout)
            assert told["seconds"] == pytest.approx(row.metrics[f"{name}.seconds"], rel=1e-12)
            assert told["joules"] == pytest.approx(row.metrics[f"{name}.joules"], rel=1e-12)


def test_options_are_said_where_they_are_not_as_usual(store: Store) -> None:
    line = commands(store.spec, next(iter(store.rows())))["two words"]
    for words in (
        "--dim batch=2",
        "--no-prefetch",
        "--state cold",
        "--dtype int8",
        "--gpu none",
        "--set sram.bytes=",
    ):
        assert words in line
    assert "--tune" not in line and "--beside" not in line


def test_names_are_one_word_whatever_they_hold() -> None:
    spec: Spec = make_spec({**SPEC, "model": [{"model": "zoo:llama-tiny", "name": "m", "dims": {}}]})
    odd = spec.model_copy(
        update={"model": (spec.model[0].model_copy(update={"model": "a b;rm -rf $HOME.onnx"}),)}
    )
    row = Row(0, {"memory": "x y", "dram.channels": 2}, OK)
    words = shlex.split(commands(odd, row)["m"])
    assert words[2] == "a b;rm -rf $HOME.onnx" and "memory=x y" in words


def test_a_system_takes_the_place_of_the_chip() -> None:
    spec = make_spec(
        {**SPEC, "model": [{"model": "zoo:llama-tiny", "name": "m", "dims": {}}], "chip": "mtia-2i"}
    )
    row = Row(0, {"system": "mtia-2i-server", "parallel": "tp=2", "dram.channels": 2}, OK)
    line = commands(spec, row)["m"]
    assert "--system mtia-2i-server --parallel tp=2 --set dram.channels=2" in line and "--chip" not in line
    alone = commands(spec, replace(row, params={"system": "none", "parallel": "tp=1"}))["m"]
    assert "--chip mtia-2i" in alone and "--system" not in alone


def test_values_are_as_set_reads_them() -> None:
    assert [as_text(v) for v in (True, 2, 1.5e9, "text")] == ["true", "2", "1500000000.0", "text"]


def test_rows_of_all_points_are_exported_with_their_commands(store: Store, tmp_path: Path) -> None:
    write_csv(store, tmp_path / "rows.csv")
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert "two words.command" in lines[0] and all(
        "mtia-emu run zoo:dlrm-small" in line for line in lines[1:]
    )


def test_a_report_prints_the_commands(store: Store) -> None:
    best = CliRunner().invoke(main, ["report", store.path])
    assert best.output.count("mtia-emu run zoo:llama-tiny") >= 1
    every = CliRunner().invoke(main, ["report", store.path, "--commands"])
    assert every.output.count("mtia-emu run") == 8 and every.output.startswith("0 two words: mtia-emu run")
