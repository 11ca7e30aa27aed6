"""The command that makes, reads and checks step tables."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from mtia_emu.cli.app import main
from mtia_emu.cli.steps import HULL
from mtia_emu.study.step_tables import Hull

SMALL = ("zoo:llama-tiny", "--gpu", "h100-sxm", "--tokens", "32", "--decodes", "4", "--context", "32")


def cli(*words: str) -> Result:
    return CliRunner().invoke(main, ["steps", *words], catch_exceptions=False)


def test_the_defaults_are_the_hulls() -> None:
    assert Hull(*(default for _, default, _ in HULL.values())) == Hull()


def test_a_table_is_printed_written_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    made = cli(*SMALL, "-o", str(file))
    assert "llama-tiny on h100-sxm, fp16" in made.output and "error up to" in made.output
    again = cli(str(file))
    assert again.output == made.output
    assert json.loads(cli(str(file), "--json", "-").output) == json.loads(file.read_text())


def test_steps_are_checked() -> None:
    shown = cli(*SMALL, "--check", "3").output
    assert "Steps compiled as one graph" in shown and "How far off" in shown
    assert [kind for kind in ("decode", "prefill", "mixed") if kind not in shown] == []


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    cli(*SMALL, "-o", str(file))
    for words, text in [
        ((str(file), "--check", "2", "-o", str(tmp_path / "none.json")), "right: zoo:NAME"),
        ((str(file), "--gpu", "h100-sxm"), "--gpu is given with a step table"),
        ((str(file), "--set", "dram.channels=8"), "--set is given with a step table"),
        ((*SMALL, "--check", "2", "--json", "-"), "right: one of them"),
        (("zoo:dlrm-small",), "no steps to serve"),
        ((*SMALL, "--chip", "tiny"), "--chip and --gpu are given"),
        ((*SMALL, "--set", "dram.channels=8"), "--gpu and --set are given"),
        (("zoo:llama-tiny", "--system", "mtia-2i-server", "--parallel", "pp=2"), "pipeline"),
        (("none.json",), "cannot be read"),
    ]:
        done = cli(*words)
        assert done.exit_code == 2 and text in done.stderr
        assert not done.stdout and not (tmp_path / "none.json").exists()
