"""Whole processes, measured: time on the clock, processor seconds and the most memory that each had."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BARE = "import numpy, numba, networkx, onnx"
PROGRAM = "from mtia_emu.cli.start import main; main()"
NEW = {"MTIA_EMU_ANSWERS": "0"}  # an answer that is kept is no measure of the work
RUNS = 3
CHILD = """
import os, sys, time
start = time.perf_counter()
child = os.fork()
if not child:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execv(sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(child, 0)
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""  # a small process between: the most memory of a process is at least its parent's when it began
FAILED_TEXT = 200  # characters of what a process said last


@dataclass(frozen=True)
class Cost:
    """Time on the clock and processor seconds of a process, and the most memory that it had."""

    wall_s: float
    cpu_s: float
    memory_bytes: int


@dataclass(frozen=True)
class Job:
    """A process to be measured: its words, and what its environment has besides."""

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = tuple(NEW.items())


def ours(*words: str, environment: Mapping[str, str] = NEW) -> Job:
    """Return a run of the command line."""
    return Job((sys.executable, "-c", PROGRAM, *words), tuple(environment.items()))


def bare() -> Job:
    """Return a Python that imports the libraries that we stand on, and does nothing."""
    return Job((sys.executable, "-c", BARE))


def cost(job: Job) -> Cost:
    """Return what a process takes; raise `RuntimeError` with its last words where it fails."""
    done = subprocess.run(
        (sys.executable, "-I", "-S", "-c", CHILD, *job.words),
        capture_output=True,
        text=True,
        env=os.environ | dict(job.environment),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-FAILED_TEXT:] or str(done.returncode))
    wall_s, cpu_s, memory_kib = map(float, done.stdout.split())
    return Cost(wall_s, cpu_s, int(memory_kib) * 1024)


def medians(jobs: Mapping[str, Job], runs: int = RUNS, *, warm: bool = True) -> dict[str, Cost]:
    """Return the median times and the largest memory of each job, by name.

    Runs are in turns, so that what else the machine does falls on all alike; with `warm` each has run once
    before, and caches are full.
    """
    if warm:
        for job in jobs.values():
            cost(job)
    found = [{name: cost(job) for name, job in jobs.items()} for _ in range(runs)]
    return {name: _median([turn[name] for turn in found]) for name in jobs}


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(x.wall_s for x in costs),
        statistics.median(x.cpu_s for x in costs),
        max(x.memory_bytes for x in costs),
    )
