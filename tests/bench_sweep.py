"""How fast sweeps are, and that none of their rows is lost: `python tests/bench_sweep.py [rates|kills]`.

`make bench` runs it. Rates are of one core, warm; the scaling is two processes against one, in the same run.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from mtia_emu.sweeps.evaluate import Evaluator, make_job
from mtia_emu.sweeps.local import Pool
from mtia_emu.sweeps.space import Space
from mtia_emu.sweeps.spec import Spec, make_spec
from mtia_emu.sweeps.worker import Limits
from mtia_emu.view.terminal import print_table

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


def spec_of(model: tuple[str, dict[str, int], dict[str, Any]], varied: dict[str, Any]) -> Spec:
    """Return the sweep of one model, with what else is asked, along one parameter of MTIA 2i."""
    name, dims, more = model
    return make_spec({"model": [{"model": name, "dims": dims}], "set": varied, "gpu": "none"} | more)


def rate(spec: Spec) -> float:
    """Return points a second in this process, the first point, which shares nothing, aside."""
    evaluator = Evaluator(make_job(spec))
    first, *rest = Space(spec)
    evaluator.row(first)
    start = time.perf_counter()
    for point in rest:
        assert evaluator.row(point).status == "ok"
    return len(rest) / (time.perf_counter() - start)


def rates(console: Console) -> None:
    """Print points a second by model and by what varies."""
    rows = [
        [name, *(f"{rate(spec_of(model, varied)):.2f}" for varied in VARIED.values())]
        for name, model in MODELS.items()
    ]
    print_table("sweeps: points a second, one core, warm", ["varying", *VARIED], rows, console)
    times = {jobs: seconds(jobs) for jobs in (1, 2)}
    console.print(f"two processes take a sweep of 240 points {times[1] / times[2]:.2f} x as fast as one\n")


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


def kills(console: Console) -> None:
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
    console.print(f"a sweep of {len(one.splitlines()) - 1:,} points over three models takes {whole:.0f} s")
    same = "equal, byte for byte" if one == other else "DIFFERENT"
    console.print(
        f"killed {KILLS} times (after {', '.join(killed)}) and resumed, its exported rows are {same}\n"
    )
    if one != other:
        sys.exit(1)


def command(*words: str) -> subprocess.Popen[bytes]:
    """Return the command line, started."""
    return subprocess.Popen([sys.executable, "-m", "mtia_emu.cli", *words], stdout=subprocess.DEVNULL)


def main(wanted: list[str]) -> None:
    """Print what is wanted, or all."""
    console = Console(highlight=False)
    for name, show in {"rates": rates, "kills": kills}.items():
        if not wanted or name in wanted:
            show(console)


if __name__ == "__main__":
    main(sys.argv[1:])
