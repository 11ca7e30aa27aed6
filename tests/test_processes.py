"""Processes of ours run no code of the folder where the user works."""

from __future__ import annotations

import ast
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mtia_emu
from mtia_emu.processes import environment, leave_current_folder, python, safe_children
from mtia_emu.sweeps.evaluate import make_job
from mtia_emu.sweeps.local import on_cores
from mtia_emu.sweeps.space import Space
from mtia_emu.sweeps.spec import make_spec
from mtia_emu.sweeps.worker import Limits
from mtia_emu.zoo.operators import Gemm

PLANTED = ["collections", "csv", "distributed", "json", "multiprocessing", "numpy", "onnx", "onnxruntime"]
PLANTED += ["optuna", "pickle", "random", "runpy", "selectors", "socket", "tempfile", "typing", "zlib"]
PRODUCT = Path(mtia_emu.__file__).parent
SOURCES = [PRODUCT, *(PRODUCT.parent / name for name in ("compiler", "kernels"))]
STARTS = {"subprocess", "concurrent.futures", "get_context", "Pool"}  # what can start a process
# The command of the first is the user's, and runs as the user would run it; the second starts threads only.
ASKS_NOBODY = {"reduce", "rank_runs"}


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of modules that leave a file RAN-name where they are run; return the folder."""
    folder = tmp_path / "planted"
    folder.mkdir()
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"open({str(folder / f'RAN-{name}')!r}, 'w').close()\n")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return folder


def ran(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("RAN-*"))


def test_planted_modules_run_where_nobody_takes_care(planted: Path) -> None:
    subprocess.run([sys.executable, "-c", "import csv"], check=True)
    assert ran(planted)


def test_a_worker_of_a_sweep(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ""]))
    product = Gemm(4, 8, 4, "fp32").build(tmp_path, None)
    spec = make_spec({"chip": "tiny", "model": [{"model": str(product)}], "set": {"dram.channels": [1]}})
    (row,) = on_cores(make_job(spec), iter(Space(spec)), 1, Limits(retries=0))
    assert row.status == "ok" and ran(planted) == []


def test_processes_that_a_library_starts(planted: Path) -> None:
    with safe_children():
        child = multiprocessing.get_context("spawn").Process(target=os.getcwd)
        child.start()
        child.join(60)
    assert child.exitcode == 0 and ran(planted) == []
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (None, None),
        ("", None),
        ("{sep}", None),
        ("{sep}{here}/lib{sep}", "{here}/lib"),
        (".", "{here}"),  # somebody wrote it: it is meant
        ("lib{sep}/usr/x", "{here}/lib{sep}/usr/x"),
        ("{here}", "{here}"),
    ],
)
def test_the_search_path_of_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: str | None, expected: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"sep": os.pathsep, "here": str(tmp_path)}
    if search is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", search.format(**known))
    child = environment()
    assert child.get("PYTHONPATH") == (expected and expected.format(**known))
    assert child["PYTHONSAFEPATH"] == "1" and python("m", "x")[1:] == ["-P", "-m", "m", "x"]


@pytest.mark.parametrize(
    ("path", "search", "expected"),
    [
        (["", "/a"], None, ["/a"]),  # python -c
        (["{here}", "/a"], None, ["/a"]),  # python -m
        (["/bin", "/a", "{here}"], None, ["/bin", "/a", "{here}"]),  # there by an installation
        (["/bin", "{here}", "/a"], ":/a", ["/bin", "/a"]),
        (["/bin", "{here}", "/a"], "{here}:/a", ["/bin", "{here}", "/a"]),
        (["/bin", "{here}", "/a"], ".:", ["/bin", "{here}", "/a"]),
    ],
)
def test_the_path_of_the_program_itself(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: list[str],
    search: str | None,
    expected: list[str],
) -> None:
    here = str(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", (search or "").format(here=here).replace(":", os.pathsep))
    monkeypatch.setattr(sys, "path", [x.format(here=here) for x in path])
    leave_current_folder()
    assert sys.path == [x.format(here=here) for x in expected]


def test_a_current_folder_that_is_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("PYTHONPATH", ".")
    gone.rmdir()
    leave_current_folder()
    assert "PYTHONPATH" not in environment()


def test_every_process_is_started_by_way_of_the_one_module() -> None:
    wrong, starting = [], 0
    for file in sorted(file for folder in SOURCES for file in folder.rglob("*.py")):
        tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        names = {name for node in tree for name in imported(node)}
        starting += bool(names & STARTS)
        if names & STARTS and "processes" not in names and file.stem not in {*ASKS_NOBODY, "processes"}:
            wrong.append(str(file))
    assert not wrong and starting > 3


def imported(node: Any) -> set[str]:
    """Return the modules that a statement imports, those of ours by their last name."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    base = node.module or ""
    return {base, *(alias.name for alias in node.names), f"{base}.{node.names[0].name}"}


SWEEP = [
    "sweep",
    "--model",
    "zoo:dlrm-small",
    "--chip",
    "tiny",
    "--gpu",
    "none",
    "--set",
    "dram.channels=1,2",
]


@pytest.mark.deep
@pytest.mark.parametrize(
    "words",
    [
        [*SWEEP, "-o", "s.db", "--jobs", "1"],
        [*SWEEP, "-o", "s.db", "--workers", "1"],
        ["fuzz", "--count", "100", "--workers", "2"],
        ["run", "zoo:dlrm-small", "--dim", "batch=2", "--check"],
    ],
)
@pytest.mark.parametrize("search", ["", ":"])
def test_commands_that_start_processes(planted: Path, words: list[str], search: str) -> None:
    program = Path(sys.executable).with_name("mtia-emu")
    if not program.exists():
        pytest.skip("the program is not installed beside Python")
    run = [*(["-P"] if search else []), str(program)]
    if search == ":":  # Python itself reads the folder before any code of ours: only heavy imports are ours
        for name in {*PLANTED} - {"onnx", "numpy", "onnxruntime", "distributed"}:
            (planted / f"{name}.py").unlink()
    done = subprocess.run(
        [sys.executable, *run, *words],
        env=os.environ | {"PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ran(planted) == []
