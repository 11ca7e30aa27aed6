"""The program as it starts: from an answer that is kept, or by the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtia_emu.cli import start as program
from mtia_emu.cli.answers import DONE_ANEW, FOLDER

WORDS = ("gemm", "64", "64", "64", "--gpu", "none")


def start(cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own; it says which heavy modules it imported, on stderr."""
    script = (
        "import sys, atexit\n"
        "heavy = ('numpy', 'numba', 'networkx', 'onnx', 'pydantic', 'click')\n"
        "atexit.register(lambda: print([m for m in heavy if m in sys.modules], file=sys.stderr))\n"
        f"from {program.__name__} import main\nmain()"
    )
    env = os.environ | {"MTIA_EMU_ANSWERS": "1", "MTIA_EMU_CACHE": str(cache)}
    command = [sys.executable, "-c", script, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_the_same_question_is_answered_with_the_same_bytes_and_without_heavy_imports(tmp_path: Path) -> None:
    first = start(tmp_path, *WORDS)
    assert first.returncode == 0 and "numba" in first.stderr
    assert len(list((tmp_path / FOLDER).iterdir())) == 1
    again = start(tmp_path, *WORDS)
    assert again.returncode == 0 and again.stdout == first.stdout and again.stderr.strip() == "[]"


def test_a_failure_is_never_kept(tmp_path: Path) -> None:
    assert start(tmp_path, *WORDS, "--set", "grid.cols=0").returncode == 2
    assert not (tmp_path / FOLDER).exists() or not list((tmp_path / FOLDER).iterdir())
    assert start(tmp_path, *WORDS, "--set", "grid.cols=0").returncode == 2


@pytest.mark.parametrize(
    "words", [(c, "--help") for c in sorted(DONE_ANEW)] + [("chips",), ("zoo",)], ids=" ".join
)
def test_whoever_prints_all_of_it_is_given_again(words: tuple[str, ...], tmp_path: Path) -> None:
    first, again = start(tmp_path, *words), start(tmp_path, *words)
    assert len(first.stdout) > 200 and again.stdout == first.stdout
    assert "click" in first.stderr and "click" not in again.stderr


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the streams")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_fault(closed: str, tmp_path: Path) -> None:
    env = os.environ | {"MTIA_EMU_ANSWERS": "1", "MTIA_EMU_CACHE": str(tmp_path)}
    command = f"{sys.executable} -m mtia_emu.cli zoo {closed}"
    for _ in range(2):
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0 and "Traceback" not in done.stderr
