"""The command that trains: what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mtia_emu.cli.app import main

SMALL = ("zoo:resnet-tiny", "--dim", "batch=1", "--chip", "tiny", "--loss", "cross-entropy", "--gpu", "none")


def cli(*words: str) -> Result:
    return CliRunner().invoke(main, ["train", *SMALL, *words], catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--check", "--check is of steps that are executed"),
        ("--data io.npz", "no such file"),
        ("--clip -1", "--clip -1.0 (right: 0 or more)"),
        ("--keep nan", "--keep nan (right: 0 or more)"),
        ("--embeddings row", "--embeddings 'row' (right: rows or tables)"),
        ("--optimizer adam{lr=-1}", "lr='-1' (right: a number from 0 to below 1e+38)"),
        ("--zero 1", "--zero is of chips that share a step"),
        ("--emit step.ir --steps 2", "--emit writes the graph of a step and does no more (right: no --steps"),
        ("--emit step.ir --json -", "(right: no --json with it)"),
        ("--emit step.ir --keep -1", "--keep -1.0"),
        ("--emit step.ir --set dram.channel=1", "unknown key 'dram.channel'"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    words: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*words.split())
    assert done.exit_code == 2 and done.output.startswith("error: ") and text in done.output
    assert done.output.count("\n") == 1 and not list(tmp_path.iterdir())
