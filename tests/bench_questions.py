"""What a question costs that was never asked: processor seconds and memory of commands, by a bare import.

Run it with `python tests/bench_questions.py`, or as part of `make bench`. Processor seconds, not time on the
clock: what else the machine does changes them less.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass

from rich.console import Console

from mtia_emu.view.terminal import print_table
from mtia_emu.view.units import ratio, seconds, size

RUNS = 3
IMPORT = "import numpy, numba, networkx, onnx"
PROGRAM = "from mtia_emu.cli.start import main; main()"
DECODE = ("--dim", "seq=1", "--dim", "past=2048")
PREFILL = ("--dim", "seq=2048")
QUESTIONS = {
    "llama-3-8b decode": ("run", "zoo:llama-3-8b", *DECODE),
    "llama-3-70b decode": ("run", "zoo:llama-3-70b", *DECODE),
    "llama-3.1-405b decode": ("run", "zoo:llama-3.1-405b", *DECODE),
    "deepseek-v3 decode": ("run", "zoo:deepseek-v3", *DECODE),
    "llama-3-8b prefill": ("run", "zoo:llama-3-8b", *PREFILL),
    "llama-3-70b prefill": ("run", "zoo:llama-3-70b", *PREFILL),
    "llama-3-8b training": ("train", "zoo:llama-3-8b", "--loss", "cross-entropy", "--optimizer", "adamw"),
}


@dataclass(frozen=True)
class Cost:
    """Processor seconds of a process, and the most memory that it had."""

    cpu_s: float
    memory_bytes: int


def cost(code: str, *words: str) -> Cost:
    """Return what a process of Python takes for a program; answers and printed pages are not kept."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"MTIA_EMU_ANSWERS": "0"},
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def median(code: str, *words: str) -> Cost:
    """Return the median time and the largest memory of some runs, after one that fills the caches."""
    cost(code, *words)
    runs = [cost(code, *words) for _ in range(RUNS)]
    return Cost(statistics.median(x.cpu_s for x in runs), max(x.memory_bytes for x in runs))


def questions(console: Console) -> None:
    """Print the table of new questions, and what the larger model takes of the smaller."""
    bare = median(IMPORT)
    found = {name: median(PROGRAM, *words) for name, words in QUESTIONS.items()}
    rows = [[f"python -c '{IMPORT}'", seconds(bare.cpu_s), ratio(1.0), size(bare.memory_bytes)]]
    rows += [
        [name, seconds(x.cpu_s), ratio(x.cpu_s / bare.cpu_s), size(x.memory_bytes)]
        for name, x in found.items()
    ]
    columns = ["command", "processor", "of the import", "peak memory"]
    print_table(f"new questions (median of {RUNS}, mappings kept)", columns, rows, console)
    for kind in ("decode", "prefill"):
        small, large = (found[f"llama-3-{n} {kind}"] for n in ("8b", "70b"))
        more = ratio(large.cpu_s / small.cpu_s), ratio(large.memory_bytes / small.memory_bytes)
        console.print(f"llama-3-70b {kind}: {more[0]} the processor time of llama-3-8b, {more[1]} its memory")


if __name__ == "__main__":
    questions(Console(highlight=False))
