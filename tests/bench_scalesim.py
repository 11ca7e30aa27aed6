"""The emulator beside SCALE-Sim on the same products in the same run: cycles, wall times and their ratios.

A part of `make bench`; its environment is made by `bench_peers.py`.
"""

from __future__ import annotations

import json
import time

import numpy as np
from bench_page import Table
from bench_peers import SCALESIM, done

from mtia_emu.view.units import count, ratio, seconds

Job = tuple[int, int, int, int, int, str]
JOBS: tuple[Job, ...] = (  # m, k, n, rows and columns of the array, dataflow
    (64, 64, 64, 32, 32, "ws"),
    (256, 256, 256, 32, 32, "ws"),
    (256, 256, 256, 32, 32, "os"),
    (256, 256, 256, 32, 32, "is"),
    (384, 768, 768, 128, 128, "ws"),
    (512, 512, 512, 32, 32, "ws"),
)


def scalesim(jobs: tuple[Job, ...]) -> list[tuple[int, float]]:
    """Return the cycles of each product and the seconds that SCALE-Sim took, its own start not counted."""
    job = SCALESIM.job(json.dumps(jobs))
    printed = done(list(job.words), "it failed")
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


def beside_scalesim() -> Table:
    """Return the comparison; raise `RuntimeError` where SCALE-Sim cannot be had."""
    compiled(JOBS[0])  # what is imported once is not counted, as for SCALE-Sim
    theirs = scalesim(JOBS)
    ours, whole = [stepped(job) for job in JOBS], [compiled(job) for job in JOBS]
    each = zip(JOBS, theirs, ours, whole, strict=True)
    rows = [_row(*_names(job), x[1], y[1], z) for job, x, y, z in each]
    sums = sum(x[1] for x in theirs), sum(x[1] for x in ours), sum(whole)
    rows.append(_row("all", "", *sums))
    columns = ("array", "m x k x n", "SCALE-Sim", "stepped", "ratio", "compiled", "ratio")
    equal, total = sum(x[0] == y[0] for x, y in zip(theirs, ours, strict=True)), sum(x[0] for x in theirs)
    names = ("SCALE-Sim", "stepped (values too)", "compiled (ONNX to joules)")
    rates = (f"{name} {count(total / took)}" for name, took in zip(names, sums, strict=True))
    notes = (
        f"Cycles of SCALE-Sim and of the stepped array are equal for {equal} of {len(JOBS)} products.",
        f"Array cycles a second: {', '.join(rates)}.",
    )
    return Table("The same products in SCALE-Sim, starts of both not counted", columns, tuple(rows), notes)


def _names(job: Job) -> tuple[str, str]:
    m, k, n, rows, cols, flow = job
    return f"{rows}x{cols} {flow}", f"{m}x{k}x{n}"


def _row(array: str, product: str, theirs: float, ours: float, whole: float) -> tuple[str, ...]:
    ratios = ratio(theirs / ours), ratio(theirs / whole)
    return array, product, seconds(theirs), seconds(ours), ratios[0], seconds(whole), ratios[1]
