"""How fast the tool itself is: wall time and memory of whole commands, and throughput of its inner loops.

Run it with `make bench`. Times vary with the machine; what should hold anywhere are the ratios of one run.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bench_sweep
import numpy as np
from bench_questions import questions
from bench_scalesim import beside_scalesim
from rich.console import Console

from mtia_emu.view.terminal import print_table
from mtia_emu.view.units import count, ratio, seconds, size

PREFILL = ("--dim", "batch=1", "--dim", "seq=2048", "--chip", "mtia-2i", "--json", "-")
RUNS = 3
ARRAY_TARGET = 10e6  # PE-cycles a second of the stepped array


def command(*args: str, env: dict[str, str] | None = None) -> tuple[float, int]:
    """Return the wall time and the peak memory, in bytes, of one run of the command line."""
    program = (
        "import resource, sys; from mtia_emu.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        capture_output=True,
        text=True,
        env=os.environ | (env or {}),
        check=True,
    )
    return time.perf_counter() - start, int(done.stderr.split()[-1]) * 1024


def best(*args: str) -> tuple[float, int]:
    """Return the median time and the largest memory of a few warm runs."""
    runs = [command(*args) for _ in range(RUNS)]
    return float(np.median([t for t, _ in runs])), max(m for _, m in runs)


def rate(work: float, call: Callable[[], object]) -> float:
    """Return units of work a second, over about a second, after a call that compiles."""
    call()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < 1.0:
        call()
        calls += 1
    return work * calls / (time.perf_counter() - start)


def whole_commands(console: Console) -> None:
    """Print the table of whole commands."""
    with tempfile.TemporaryDirectory() as empty:
        cold = command("run", "zoo:llama-3-8b", *PREFILL, env={"MTIA_EMU_CACHE": empty})
    models = {
        "help": ("--help",),
        "llama-3-8b prefill 2048": ("run", "zoo:llama-3-8b", *PREFILL),
        "llama-3-70b prefill 2048": ("run", "zoo:llama-3-70b", *PREFILL),
        "llama-3-8b decode after 2048": (
            "run",
            "zoo:llama-3-8b",
            "--dim",
            "seq=1",
            "--dim",
            "past=2048",
            "--json",
            "-",
        ),
        "dlrm-mlperf batch 512": ("run", "zoo:dlrm-mlperf", "--json", "-"),
        "llama-tiny, executed": ("run", "zoo:llama-tiny", "--check", "--json", "-"),
    }
    times = {name: best(*args) for name, args in models.items()}
    rows = [["llama-3-8b prefill 2048, cold", seconds(cold[0]), size(cold[1])]]
    rows += [[name, seconds(t), size(m)] for name, (t, m) in times.items()]
    print_table(
        "whole commands (median of 3, warm unless cold)", ["command", "wall", "peak memory"], rows, console
    )
    ratio = times["llama-3-70b prefill 2048"][0] / times["llama-3-8b prefill 2048"][0]
    console.print(f"llama-3-70b takes {ratio:.2f} x the time of llama-3-8b (80 layers to 32)\n")


def compile_times(console: Console) -> None:
    """Print the table of compiling alone; models of the folder beside the checkout where it is there."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "models"
    models = {f.parent.name: str(f) for f in sorted(beside.glob("weightless_*/*.onnx"))}
    sizes = {f"llama-3-8b {n}": ("zoo:llama-3-8b", "--dim", f"seq={n}") for n in (1, 128, 2048)}
    with tempfile.TemporaryDirectory() as folder:
        out = ("-o", str(Path(folder) / "program"))
        cold = command("compile", *sizes["llama-3-8b 2048"], *out, env={"MTIA_EMU_CACHE": folder})
        cases = sizes | {name: (path,) for name, path in models.items()}
        times = {name: best("compile", *args, *out) for name, args in cases.items()}
    rows = [["llama-3-8b 2048, cold", seconds(cold[0]), size(cold[1])]]
    rows += [[name, seconds(t), size(m)] for name, (t, m) in times.items()]
    print_table("model to program", ["model and its tokens", "wall", "peak memory"], rows, console)


def inner_loops(console: Console) -> None:
    """Print the table of inner loops."""
    from mtia_emu.compiler.frontend import load
    from mtia_emu.compiler.pipeline import compile_graph

    from mtia_emu.engine.timing import timeline
    from mtia_emu.machine.chip import load_chip
    from mtia_emu.machine.units.systolic import step
    from mtia_emu.numerics import tile_matmul
    from mtia_emu.zoo.operators import Gemm

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((256, 128), np.float32), rng.standard_normal((128, 128), np.float32)
    cycles = step(a, b, rows=32, cols=32, dataflow="ws")[1]
    acc = np.zeros((256, 128), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Gemm(2048, 4096, 14336, "fp16").build(Path(folder), None)
        chip = load_chip("mtia-2i")
        block = compile_graph(load(path), chip).program.blocks[0]
    model_cycles = timeline(block, chip).cycles
    stepped = rate(cycles * 32 * 32, lambda: step(a, b, rows=32, cols=32, dataflow="ws"))
    rows = [
        [f"stepped array, PE cycles ({ratio(stepped / ARRAY_TARGET)} the target)", count(stepped)],
        ["tile product, multiply-adds", count(rate(a.size * 128, lambda: tile_matmul(a, b, acc, 16)))],
        ["timeline, commands", count(rate(len(block.commands), lambda: timeline(block, chip)))],
        ["timeline, chip cycles", count(rate(model_cycles, lambda: timeline(block, chip)))],
    ]
    print_table("inner loops", ["what", "a second"], rows, console)


def zoo_models(console: Console) -> None:
    """Print the table of the zoo: each model read, compiled, timed and priced in this process."""
    from mtia_emu import api, zoo

    rows, total = [], 0.0
    for name in zoo.zoo_names():
        start = time.perf_counter()
        done = api.run(f"zoo:{name}", gpu=None)
        took = time.perf_counter() - start
        commands = sum(len(done.program.blocks[x.block].commands) for x in done.program.launches)
        cycles = done.report.cycles
        rates = [count(commands / took), count(cycles / took)]
        rows.append([name, count(commands), count(cycles), seconds(took), *rates])
        total += took
    columns = ["model", "commands", "cycles", "wall", "commands/s", "cycles/s"]
    print_table("the zoo, model to report", columns, rows, console)
    console.print(f"the zoo takes {seconds(total)}\n")


def memories(console: Console) -> None:
    """Print the table of the memory models: the DRAM controller, its fast form, the cache, look-ups."""
    from mtia_emu.machine.drams import load_dram
    from mtia_emu.machine.units.cache import Cache, CacheShape
    from mtia_emu.machine.units.dram import measure
    from mtia_emu.streams import draw, histogram

    dram, law, rng = load_dram("lpddr5-6400"), histogram("dlrm-2022"), np.random.default_rng(0)
    address, reads = rng.integers(0, 1 << 26, 20_000) * 32, np.zeros(20_000, bool)
    runs = rng.integers(32, 1 << 16, 100_000)
    cache = Cache(CacheShape(bytes=224 << 20, line_bytes=256, ways=16))
    rows = draw(law, rng, 30_000_000, (200_000,))
    table = [
        ["DRAM controller, bursts", count(rate(len(address), lambda: dram.simulate(address, reads)))],
        ["DRAM curve, points simulated", count(rate(1, lambda: measure(dram, 8)))],
        ["DRAM fast form, runs", count(rate(len(runs), lambda: dram.efficiency(runs)))],
        ["cache, accesses", count(rate(len(rows), lambda: cache.access(rows)))],
        ["look-ups drawn", count(rate(len(rows), lambda: draw(law, rng, 30_000_000, rows.shape)))],
    ]
    print_table("memories", ["what", "a second"], table, console)


def graphs_and_gpu(console: Console) -> None:
    """Print the table of the compiler's rewriting and of the GPU reference."""
    from mtia_emu.compiler.graph import Graph, Node
    from mtia_emu.compiler.passes import Fold

    from mtia_emu.gpu import load_gpu
    from mtia_emu.types import FP16, ModelWork, ProductWork, TensorType

    kind = TensorType(FP16, (4,))
    nodes = [Node(f"n{i}", "neg", (f"n{i - 1}" if i else "x",), (f"n{i}",), (kind,)) for i in range(5000)]
    graph, fold = Graph("chain", nodes, {"x": kind}, ("n4999",)), Fold()
    gpu = load_gpu("h100-sxm")
    sizes = {"batch": 1, "k": 512, "n": 512, "flops": 0, "read_bytes": 1, "write_bytes": 1}
    works = tuple(ProductWork(f"w{i}", "matmul", FP16, m=64 + i, **sizes) for i in range(3000))
    rows = [
        ["a pass over a graph, nodes", count(rate(len(nodes), lambda: fold(graph)))],
        [
            "GPU reference, layers (shapes seen before)",
            count(rate(len(works), lambda: gpu.report(ModelWork(works)))),
        ],
    ]
    print_table("compiler and GPU reference", ["what", "a second"], rows, console)


def main() -> None:
    """Print all tables."""
    console = Console(highlight=False)
    console.print(
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, "
        f"peak memory of this process {size(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)}"
    )
    whole_commands(console)
    questions(console)
    compile_times(console)
    inner_loops(console)
    zoo_models(console)
    memories(console)
    graphs_and_gpu(console)
    beside_scalesim(console)
    bench_sweep.main([])


if __name__ == "__main__":
    main()
