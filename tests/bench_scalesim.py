"""The emulator beside SCALE-Sim on the same products in the same run: cycles, wall times and their ratios.

SCALE-Sim needs an older numpy than we may have, so it gets an environment of its own, made on the first run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mtia_emu.view.terminal import print_table
from mtia_emu.view.units import count, ratio, seconds

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv" / "scalesim"
PACKAGES = ("scalesim==3.0.0", "numpy<2.4")  # with newer numpy it fails on its first product
RUNNER = Path(__file__).with_name("scalesim_runner.py")
Job = tuple[int, int, int, int, int, str]
JOBS: tuple[Job, ...] = (  # m, k, n, rows and columns of the array, dataflow
    (64, 64, 64, 32, 32, "ws"),
    (256, 256, 256, 32, 32, "ws"),
    (256, 256, 256, 32, 32, "os"),
    (256, 256, 256, 32, 32, "is"),
    (384, 768, 768, 128, 128, "ws"),
    (512, 512, 512, 32, 32, "ws"),
)


def environment() -> Path:
    """Return the Python of SCALE-Sim's environment; raise `RuntimeError` where it cannot be made."""
    python, ready = FOLDER / "bin" / "python", FOLDER / "ready"
    if ready.exists():
        return python
    _done([sys.executable, "-m", "venv", str(FOLDER)], "no environment can be made")
    _done([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], "it cannot be installed")
    ready.touch()
    return python


def _done(command: list[str], failure: str, given: str = "") -> str:
    """Return what a command printed; raise `RuntimeError` with its last words where it fails."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"{failure}: {' '.join(last) or done.returncode}")
    return done.stdout


def scalesim(jobs: tuple[Job, ...]) -> list[tuple[int, float]]:
    """Return the cycles of each product and the seconds that SCALE-Sim took, its own start not counted."""
    printed = _done([str(environment()), str(RUNNER)], "it failed", json.dumps(jobs))
    return [(int(cycles), float(took)) for cycles, took in json.loads(printed.splitlines()[-1])]


def stepped(job: Job) -> tuple[int, float]:
    """Return the cycles of a product in the stepped array, values included, and the seconds it took."""
    from mtia_emu.machine.units.systolic import step

    m, k, n, rows, cols, flow = job
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    step(a[:1, :1], b[:1, :1], rows=2, cols=2, dataflow=flow)  # compiled, or read from the cache
    start = time.perf_counter()
    _, cycles, _ = step(a, b, rows=rows, cols=cols, dataflow=flow)
    return cycles, time.perf_counter() - start


def compiled(job: Job) -> float:
    """Return the seconds in which the product is written as ONNX, compiled, timed and priced."""
    from mtia_emu import api
    from mtia_emu.machine.chip import load_chip
    from mtia_emu.zoo.operators import Gemm

    m, k, n, rows, cols, flow = job
    settings = {"pe.matrix.rows": rows, "pe.matrix.cols": cols, "pe.matrix.dataflow": flow}
    start = time.perf_counter()
    with api.operator_source(Gemm(m, k, n, "fp32"), None) as source:
        api.run_source(source, load_chip("systolic", settings), gpu=None, place="sram")
    return time.perf_counter() - start


def beside_scalesim(console: Console) -> None:
    """Print the comparison, or why there is none."""
    compiled(JOBS[0])  # what is imported once is not counted, as for SCALE-Sim
    try:
        theirs = scalesim(JOBS)
    except (RuntimeError, OSError) as error:
        console.print(f"beside SCALE-Sim: skipped, {error}\n", markup=False)
        return
    ours, whole = [stepped(job) for job in JOBS], [compiled(job) for job in JOBS]
    each = zip(JOBS, theirs, ours, whole, strict=True)
    rows = [_row(*_names(job), x[1], y[1], z) for job, x, y, z in each]
    sums = sum(x[1] for x in theirs), sum(x[1] for x in ours), sum(whole)
    rows.append(_row("all", "", *sums))
    columns = ["array", "m x k x n", "SCALE-Sim", "stepped", "ratio", "compiled", "ratio"]
    print_table("beside SCALE-Sim 3.0.0, the same products in the same run", columns, rows, console)
    equal, total = sum(x[0] == y[0] for x, y in zip(theirs, ours, strict=True)), sum(x[0] for x in theirs)
    console.print(
        f"cycles of SCALE-Sim and of the stepped array are equal for {equal} of {len(JOBS)} products"
    )
    names = ("SCALE-Sim", "stepped (values too)", "compiled (ONNX to joules)")
    rates = (f"{name} {count(total / took)}" for name, took in zip(names, sums, strict=True))
    console.print(f"array cycles a second: {', '.join(rates)}\n")


def _names(job: Job) -> tuple[str, str]:
    m, k, n, rows, cols, flow = job
    return f"{rows}x{cols} {flow}", f"{m}x{k}x{n}"


def _row(array: str, product: str, theirs: float, ours: float, whole: float) -> list[Any]:
    ratios = ratio(theirs / ours), ratio(theirs / whole)
    return [array, product, seconds(theirs), seconds(ours), ratios[0], seconds(whole), ratios[1]]
