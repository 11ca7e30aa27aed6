"""The process that runs commands one after another: one for all, another where one dies, isolated."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from mtia_emu.compiler.graph_file import read_graph

from mtia_emu.cli.resident import Resident, is_ours

GRAPH = """graph t {
  in %x : fp32[2,80]
  const %w : fp32[80] = absent
  %a : fp32[2,80] = add(%x, %w)
  %e : fp32[2,80] = exp(%a)
  out %e
}
"""
OURS = Path(sys.executable).with_name("mtia-emu")
FOREVER = 600.0


@pytest.fixture
def resident() -> Iterator[Resident]:
    made = Resident()
    yield made
    made.close()


def pid(resident: Resident) -> int:
    assert resident.process is not None
    return resident.process.pid


def test_commands_share_a_process_until_one_takes_it_along(
    resident: Resident, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a file of the current folder run in it."""
    for name in ("random", "onnx", "json", "click"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    out, kernel = tmp_path / "out", tmp_path / "kernel.txt"
    assert resident.run(["--version"], out, FOREVER) == 0 and b"mtia-emu" in out.read_bytes()
    first = pid(resident)
    assert (
        resident.run(["run", "no.onnx"], out, FOREVER) == 2 and b"error: model 'no.onnx'" in out.read_bytes()
    )
    assert pid(resident) == first and b"planted" not in out.read_bytes()
    (tmp_path / "dies.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    words = ["run", "zoo:dlrm-small", "--kernel", "dies.py"]
    assert resident.run(words, out, FOREVER) == -signal.SIGSEGV
    assert resident.run(["--version"], out, FOREVER) == 0 and pid(resident) != first
    assert not kernel.exists()


def test_a_command_that_takes_too_long_is_ended(resident: Resident, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time\ntime.sleep(3600)\n")
    words = ["run", "zoo:dlrm-small", "--kernel", str(tmp_path / "waits.py")]
    assert resident.run(words, tmp_path / "out", 0.01) is None and resident.process is None


def test_only_the_command_of_this_python_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "mtia-emu"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert not is_ours(str(other)) and not is_ours(sys.executable) and not is_ours("no-such-command")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not is_ours("mtia-emu")


@pytest.mark.skipif(not OURS.exists(), reason="the command is not installed beside this Python")
def test_reduce_starts_one_process_for_all_tries(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    start = Resident._start
    monkeypatch.setattr(Resident, "_start", lambda self: (started.append(1), start(self))[1])
    monkeypatch.setenv("MTIA_EMU_MEMORY_BYTES", "200")
    path, out = tmp_path / "t.ir", tmp_path / "s.ir"
    path.write_text(GRAPH)
    words = (
        "reduce",
        path,
        "-o",
        out,
        "--match",
        "200 are allowed",
        "--",
        OURS,
        "opt",
        "{}",
        "--verify-each",
    )
    done = cli(*words)
    assert done.exit_code == 0, done.stderr
    small = read_graph(out)
    sizes = [const.type.shape for const in small.consts.values()] + [t.shape for t in small.inputs.values()]
    assert len(small.nodes) == 1 and len(started) == 1
    assert max(max(shape) for shape in sizes) <= 80 and small.nodes[0].types[0].bytes > 100
    assert small.nodes[0].types[0].bytes < 2 * 80 * 4
