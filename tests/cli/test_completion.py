"""Completion: a script that the shell itself accepts, installed once however often it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mtia_emu.cli.app import main
from mtia_emu.cli.completion import MARK, SHELLS, script


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_it_is_installed_once_and_leaves_what_there_is(home: Path, shell: str) -> None:
    start = home / f".{shell}rc"
    start.write_text("export A=1")  # without an end of line
    for _ in range(2):
        done = CliRunner().invoke(main, ["completion", shell, "--install"])
        assert done.exit_code == 0, done.output
    assert "reads it already" in done.output
    lines = start.read_text().splitlines()
    assert lines[0] == "export A=1" and len(lines) == 2 and lines[1].endswith(MARK)
    file = home / ".local/share/mtia-emu" / f"completion.{shell}"
    assert file.read_text() == script(shell, main) and str(file) in lines[1]


def test_a_link_to_the_start_file_stays_one(home: Path) -> None:
    (home / "dotfiles").write_text("")
    (home / ".bashrc").symlink_to(home / "dotfiles")
    assert CliRunner().invoke(main, ["completion", "bash", "--install"]).exit_code == 0
    assert (home / ".bashrc").is_symlink() and MARK in (home / "dotfiles").read_text()


def test_fish_finds_it_by_itself(home: Path) -> None:
    assert CliRunner().invoke(main, ["completion", "fish", "--install"]).exit_code == 0
    assert (home / ".config/fish/completions/mtia-emu.fish").read_text() == script("fish", main)
    assert [p.name for p in home.iterdir()] == [".config"]


def test_the_shell_of_the_user_is_taken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert CliRunner().invoke(main, ["completion"]).output == script("zsh", main)
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    done = subprocess.run(
        [sys.executable, "-m", "mtia_emu.cli", "completion", "--install"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "SHELL is '/bin/tcsh'" in done.stderr and not list(home.iterdir())


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_accepts_the_script(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script(shell, main))
    check = "--no-execute" if shell == "fish" else "-n"
    done = subprocess.run(
        [program, check, str(tmp_path / "script")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and not done.stderr


def test_bash_completes_a_chip(home: Path, tmp_path: Path) -> None:
    program = shutil.which("bash")
    if program is None:
        pytest.skip("bash is not installed")
    text = (
        f"{script('bash', main)}\nCOMP_WORDS=(mtia-emu run m.onnx --chip mtia-2); COMP_CWORD=4\n"
        "_mtia_emu_completion mtia-emu\necho ${COMPREPLY[@]}\n"
    )
    folder = Path(shutil.which("mtia-emu") or "").parent
    if not (folder / "mtia-emu").is_file():
        pytest.skip("mtia-emu is not on the path")
    env = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([program, "-c", text], capture_output=True, text=True, check=False, env=env)
    assert "mtia-2i" in done.stdout.split(), done.stderr
