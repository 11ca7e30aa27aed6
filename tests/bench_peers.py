"""The emulator beside SCALE-Sim, ZigZag and GenZ: whole processes on the same work, in the same run.

Each has an environment of its own under .venv, made from the package index on the first run. One that cannot
be made is said to be missing, and why.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench_page import Aim, Table
from bench_process import Cost, Job, bare, medians, ours
from bench_questions import DECODE, GEMM, PREFILL

from mtia_emu.view.units import ratio, seconds, size

TESTS = Path(__file__).resolve().parent
VENV = TESTS.parent / ".venv"


@dataclass(frozen=True)
class Peer:
    """Another simulator: what it is called, how it is installed, and what answers a question in it."""

    name: str
    packages: tuple[str, ...]
    runner: str
    says: str

    @property
    def folder(self) -> Path:
        """Return where its environment lies."""
        return VENV / self.packages[0].partition("=")[0]

    def python(self) -> Path:
        """Return the Python of its environment, made first; `RuntimeError` where it cannot be."""
        python, ready = self.folder / "bin" / "python", self.folder / "ready"
        if not ready.exists():
            done([sys.executable, "-m", "venv", str(self.folder)], "no environment can be made")
            done([str(python), "-m", "pip", "install", "--quiet", *self.packages], "it cannot be installed")
            ready.touch()
        return python

    def job(self, *words: str) -> Job:
        """Return a process that answers a question."""
        return Job((str(self.python()), str(TESTS / self.runner), *words), ())


def done(command: list[str], failure: str, given: str = "") -> str:
    """Return what a command printed; raise `RuntimeError` with its last words where it fails."""
    ran = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if ran.returncode:
        last = (ran.stderr.strip() or ran.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"{failure}: {' '.join(last) or ran.returncode}")
    return ran.stdout


SCALESIM = Peer(  # with newer numpy it fails on its first product
    "SCALE-Sim 3.0.0",
    ("scalesim==3.0.0", "numpy<2.4"),
    "scalesim_runner.py",
    "cycles of one systolic array, operands in SRAM",
)
ZIGZAG = Peer(  # it needs six, and does not say so
    "ZigZag 3.9.1",
    ("zigzag-dse==3.9.1", "six"),
    "peer_zigzag.py",
    "a searched mapping's energy and latency by formula, one layer",
)
GENZ = Peer(
    "GenZ 0.0.16",
    ("genz-llm==0.0.16",),
    "peer_genz.py",
    "a roofline time for each operator",
)
OURS = "programs, cycles and joules of every command"
PRODUCT = json.dumps([[512, 512, 512, 32, 32, "ws"]])
WORK: dict[str, tuple[tuple[str, ...], tuple[tuple[Peer, tuple[str, ...]], ...]]] = {
    "product of 512 x 512 x 512": (GEMM, ((SCALESIM, (PRODUCT,)), (ZIGZAG, ("512", "512", "512")))),
    "llama-3-8b prefill 2048": (
        ("run", "zoo:llama-3-8b", *PREFILL),
        ((GENZ, ("llama3_8b", "prefill", "2048")),),
    ),
    "llama-3-8b decode after 2048": (
        ("run", "zoo:llama-3-8b", *DECODE),
        ((GENZ, ("llama3_8b", "decode", "2048")),),
    ),
    "llama-3.1-405b decode after 2048": (
        ("run", "zoo:llama-3.1-405b", *DECODE),
        ((GENZ, ("llama_405b", "decode", "2048")),),
    ),
}


def peers(products: Callable[[], Table]) -> tuple[tuple[Table, ...], tuple[Aim, ...]]:
    """Return the table of whole processes beside peers, and that of `products`, or why one is missing."""
    jobs, rows, notes = {"": bare()}, [], []
    for work, (words, others) in WORK.items():
        jobs[f"{work}\nmtia-emu"] = ours(*words)
        for peer, theirs in others:
            try:
                jobs[f"{work}\n{peer.name}"] = peer.job(*theirs)
            except (RuntimeError, OSError) as error:
                notes.append(f"{peer.name} is missing: {error}")
    found = medians(jobs)
    for name, x in found.items():
        if name:
            rows.append(_row(name, x, found))
    columns = (
        "work",
        "simulator",
        "time",
        "processor",
        "of the import",
        "ours to theirs",
        "peak memory",
        "answers with",
    )
    tables = [Table("Whole processes on the same work", columns, tuple(rows), tuple(dict.fromkeys(notes)))]
    try:
        tables.append(products())
    except (RuntimeError, OSError) as error:
        tables.append(Table("Products in SCALE-Sim", ("missing",), ((str(error),),)))
    return tuple(tables), ()


def _row(name: str, x: Cost, found: dict[str, Cost]) -> tuple[str, ...]:
    work, _, simulator = name.partition("\n")
    mine = found[f"{work}\nmtia-emu"].cpu_s
    beside = "" if simulator == "mtia-emu" else ratio(mine / x.cpu_s)
    says = next((p.says for p in _all() if p.name == simulator), OURS)
    times = seconds(x.wall_s), seconds(x.cpu_s), ratio(x.cpu_s / found[""].cpu_s)
    return work, simulator, *times, beside, size(x.memory_bytes), says


def _all() -> Iterable[Peer]:
    return SCALESIM, ZIGZAG, GENZ
