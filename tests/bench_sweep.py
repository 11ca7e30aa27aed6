"""How fast sweeps are, that their memory does not grow, and that none of their rows is lost.

Parts of `make bench`. Rates are by processor time, warm; the scaling is two processes against one by the
clock, in the same run, which other work on the machine spoils.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from bench_page import Aim, Table

from mtia_emu.reuse.memo import Memo
from mtia_emu.sweeps.evaluate import Evaluator, make_job
from mtia_emu.sweeps.local import Pool
from mtia_emu.sweeps.space import Space
from mtia_emu.sweeps.spec import Spec, make_spec
from mtia_emu.sweeps.worker import Limits
from mtia_emu.view.units import size

MODELS = {
    "llama-3-8b prefill 512": ("zoo:llama-3-8b", {"seq": 512}, {}),
    "prefill 512, prefetch = false": ("zoo:llama-3-8b", {"seq": 512}, {"prefetch": False}),
    "llama-3-8b prefill 2048": ("zoo:llama-3-8b", {"seq": 2048}, {}),
    "prefill 2048, prefetch = false": ("zoo:llama-3-8b", {"seq": 2048}, {"prefetch": False}),
    "llama-3-8b decode after 2048": ("zoo:llama-3-8b", {"seq": 1, "past": 2048}, {}),
    "dlrm-mlperf batch 512": ("zoo:dlrm-mlperf", {"batch": 512}, {}),
}
VARIED = {
    "DRAM bandwidth": {"dram.channel_bytes_per_s": "10e9..13e9 step 0.5e9"},
    "array size": {"pe.matrix.cols": "16..112 step 16"},
    "SRAM size": {"sram.bytes": "134217728..335544320 step 33554432"},
}
KILLED = """
chip = "mtia-2i"
[[model]]
model = "zoo:dlrm-small"
dims = { batch = 16 }
[[model]]
model = "zoo:llama-tiny"
name = "prefill"
dims = { seq = 16 }
[[model]]
model = "zoo:llama-tiny"
name = "decode"
dims = { seq = 1, past = 15 }
[set]
"pe.matrix.cols" = [16, 32, 48, 64]
"dram.channels" = "4..32 step x2"
"launch.replace_s" = "1e-7..5e-7 step 1e-7"
"energy.link_w" = "1..25 step 1"
"""
KILLS = 5
AIMS = {"DRAM bandwidth": 5.0, "array size": 1.0, "SRAM size": 1.0}
KINDS = ("suit", "schedule", "place", "choice", "plan", "commands", "block", "events", "work", "cost")
TWO_WORKERS = 1.85
POINTS = 10_000
FIVE: dict[str, tuple[str, dict[str, int]]] = {
    "llama prefill": ("zoo:llama-tiny", {"seq": 16}),
    "llama decode": ("zoo:llama-tiny", {"seq": 1, "past": 15}),
    "dlrm 16": ("zoo:dlrm-small", {"batch": 16}),
    "dlrm 64": ("zoo:dlrm-small", {"batch": 64}),
    "llama prefill 64": ("zoo:llama-tiny", {"seq": 64}),
}
WIDE = {
    "pe.matrix.cols": "16..112 step 16",
    "dram.channels": "4..32 step x2",
    "sram.bytes": "134217728..335544320 step 33554432",
    "launch.replace_s": "1e-7..5e-7 step 1e-7",
    "energy.link_w": "1..25 step 1",
}


def spec_of(model: tuple[str, dict[str, int], dict[str, Any]], varied: dict[str, Any]) -> Spec:
    """Return the sweep of one model, with what else is asked, along one parameter of MTIA 2i."""
    name, dims, more = model
    return make_spec({"model": [{"model": name, "dims": dims}], "set": varied, "gpu": "none"} | more)


@dataclass(frozen=True)
class Rate:
    """Points a second of one core, and which share of its pieces of work a sweep found done, by kind."""

    points_per_s: float
    shared: dict[str, float]


def rate(spec: Spec) -> Rate:
    """Return points a processor second of this process; the first point, which shares nothing, aside."""
    memo = Memo()
    evaluator = Evaluator(make_job(spec), memo)
    first, *rest = Space(spec)
    evaluator.row(first)
    before = memo.done.copy(), memo.reused.copy()
    start = time.process_time()
    for point in rest:
        assert evaluator.row(point).status == "ok"
    took = time.process_time() - start
    done, reused = (now - old for now, old in zip((memo.done, memo.reused), before, strict=True))
    shared = {kind: reused[kind] / (done[kind] + reused[kind]) for kind in done | reused}
    return Rate(len(rest) / took, shared)


def rates() -> tuple[tuple[Table, ...], tuple[Aim, ...]]:
    """Return points a second and what is shared, by model and by what varies, and what two workers bring."""
    found = {
        (model, name): rate(spec_of(given, varied))
        for model, given in MODELS.items()
        for name, varied in VARIED.items()
    }
    points = tuple(
        (model, *(f"{found[model, name].points_per_s:.2f}" for name in VARIED)) for model in MODELS
    )
    shared = tuple((f"{model}, {name}", *_shares(x)) for (model, name), x in found.items())
    aims = [
        Aim(f"points a second a core, {model}, {name}", AIMS[name], x.points_per_s, "points/s", least=True)
        for (model, name), x in found.items()
        if "prefetch" not in model
    ]
    scaling = [seconds(1) / seconds(2) for _ in range(3)]
    aims.append(Aim("two workers, by the rate of one", TWO_WORKERS, statistics.median(scaling), least=True))
    tables = (
        Table("Points a processor second, warm", ("model", *VARIED), points),
        Table("Share of pieces of work found done", ("model and what varies", *KINDS), shared),
    )
    return tables, tuple(aims)


def _shares(x: Rate) -> tuple[str, ...]:
    return tuple(f"{x.shared[kind]:.0%}" if kind in x.shared else "none asked" for kind in KINDS)


def endurance(points: int = POINTS) -> tuple[tuple[Table, ...], tuple[Aim, ...]]:
    """Return the memory of a process that evaluates many points over five models, as it goes."""
    spec = make_spec(
        {
            "model": [{"model": m, "name": n, "dims": d} for n, (m, d) in FIVE.items()],
            "set": WIDE,
            "gpu": "none",
        }
    )
    evaluator, seen, start = Evaluator(make_job(spec)), {}, time.perf_counter()
    for number, point in enumerate(islice(Space(spec), points), 1):
        evaluator.row(point)
        if number % (points // 10) == 0:
            seen[number] = resident_bytes(), time.perf_counter() - start
    rows = tuple((f"{n:,}", size(memory), f"{took:.0f} s") for n, (memory, took) in seen.items())
    (early, _), (late, _) = (seen[points * share // 10] for share in (3, 10))
    aim = Aim(
        f"memory after {points:,} points over five models, by that after {points * 3 // 10:,}",
        1.05,
        late / early,
    )
    return (Table("Memory of a worker over many points", ("points", "resident", "since start"), rows),), (
        aim,
    )


def resident_bytes() -> int:
    """Return the memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def seconds(jobs: int) -> float:
    """Return how long processes that are warm take for most of a sweep."""
    varied = {
        "pe.matrix.cols": "16..112 step 16",
        "dram.channels": "4..32 step 4",
        "clock_hz": "1e9..1.4e9 step 1e8",
    }
    spec = spec_of(("zoo:dlrm-small", {"batch": 64}, {}), varied)
    pool = Pool(make_job(spec), iter(Space(spec)), jobs, Limits())
    try:
        rows = pool.rows()
        for _ in range(40):
            next(rows)
        start = time.perf_counter()
        for _ in range(240):
            next(rows)
        return time.perf_counter() - start
    finally:
        pool.stop()


def kills() -> tuple[tuple[Table, ...], tuple[Aim, ...]]:
    """Kill a sweep of 2,000 points over three models at random moments, resume it, compare the rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.toml").write_text(KILLED)
        start = time.perf_counter()
        assert command("sweep", str(folder / "spec.toml"), "-o", str(folder / "whole.db")).wait() == 0
        whole = time.perf_counter() - start
        rng, killed = random.Random(0), []
        for _ in range(KILLS):
            run = command("sweep", str(folder / "spec.toml"), "-o", str(folder / "parts.db"), "--resume")
            wait = rng.uniform(0.02, 0.35) * whole
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(wait)
            run.kill()  # SIGKILL
            run.wait()
            killed.append(f"{wait:.1f} s")
        assert (
            command("sweep", str(folder / "spec.toml"), "-o", str(folder / "parts.db"), "--resume").wait()
            == 0
        )
        for part in ("whole", "parts"):
            assert (
                command("report", str(folder / f"{part}.db"), "--csv", str(folder / f"{part}.csv")).wait()
                == 0
            )
        one, other = ((folder / f"{part}.csv").read_bytes() for part in ("whole", "parts"))
    rows = (
        ("points over three models", f"{len(one.splitlines()) - 1:,}"),
        ("a whole sweep of them takes", f"{whole:.0f} s"),
        ("another was killed and resumed", f"after {', '.join(killed)}"),
    )
    aim = Aim("rows of a killed and resumed sweep that differ", 0, _differing(one, other), "rows")
    return (Table("A sweep that is killed and resumed", ("what", "found"), rows),), (aim,)


def _differing(one: bytes, other: bytes) -> int:
    return sum(a != b for a, b in zip_longest(one.splitlines(), other.splitlines()))


def command(*words: str) -> subprocess.Popen[bytes]:
    """Return the command line, started."""
    return subprocess.Popen([sys.executable, "-m", "mtia_emu.cli", *words], stdout=subprocess.DEVNULL)
