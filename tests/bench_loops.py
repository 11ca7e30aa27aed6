"""How fast the inner loops of the tool are, and each model of the zoo from file to report, in one process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from bench_page import Aim, Table

from mtia_emu.sources import open_model, operator_source
from mtia_emu.view.units import count, ratio, seconds
from mtia_emu.zoo.operators import Gemm

EXECUTED = {  # dense, of useful size, with weights
    "product of 2048 x 2048 x 2048": partial(operator_source, Gemm(2048, 2048, 2048, "fp16"), 0),
    "product of 256 x 4096 x 4096": partial(operator_source, Gemm(256, 4096, 4096, "fp16"), 0),
    "zoo:resnet-50": partial(open_model, "zoo:resnet-50", {}, execute_seed=0),
}
OF_LIBRARY = 0.3
ARRAY_TARGET = 10.0  # millions of PE-cycles a second of the stepped array
STEPPED = "stepped array, PE cycles"


def rate(work: float, call: Callable[[], object]) -> float:
    """Return units of work a processor second, over about one, after a call that compiles."""
    call()
    start, calls = time.process_time(), 0
    while time.process_time() - start < 1.0:
        call()
        calls += 1
    return work * calls / (time.process_time() - start)


def inner_loops() -> tuple[Table, float]:
    """Return the table of inner loops, and millions of PE cycles a second of the stepped array."""
    from mtia_emu.compiler.frontend import load
    from mtia_emu.compiler.pipeline import compile_graph

    from mtia_emu.engine.timing import timeline
    from mtia_emu.machine.chip import load_chip
    from mtia_emu.machine.units.systolic import step
    from mtia_emu.numerics import tile_matmul

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
    rows = (
        (STEPPED, count(stepped)),
        ("tile product, multiply-adds", count(rate(a.size * 128, lambda: tile_matmul(a, b, acc, 16)))),
        ("timeline, commands", count(rate(len(block.commands), lambda: timeline(block, chip)))),
        ("timeline, chip cycles", count(rate(model_cycles, lambda: timeline(block, chip)))),
    )
    return Table("Inner loops", ("what", "a second"), rows), stepped / 1e6


def zoo_models() -> Table:
    """Return the table of the zoo: each model read, compiled, timed and priced in this process."""
    from mtia_emu import api, zoo

    rows, total = [], 0.0
    for name in zoo.zoo_names():
        start = time.process_time()
        done = api.run(f"zoo:{name}", gpu=None)
        took = time.process_time() - start
        commands = sum(len(done.program.blocks[x.block].commands) for x in done.program.launches)
        cycles = done.report.cycles
        rates = [count(commands / took), count(cycles / took)]
        rows.append([name, count(commands), count(cycles), seconds(took), *rates])
        total += took
    columns = ("model", "commands", "cycles", "processor", "commands/s", "cycles/s")
    notes = (f"The whole zoo takes {seconds(total)}.",)
    return Table("The zoo, model to report", columns, tuple(map(tuple, rows)), notes)


def memories() -> Table:
    """Return the table of the memory models: the DRAM controller, its fast form, the cache, look-ups."""
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
    return Table("Memories", ("what", "a second"), tuple(map(tuple, table)))


def graphs_and_gpu() -> Table:
    """Return the table of the compiler's rewriting and of the GPU reference."""
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
    return Table("Compiler and GPU reference", ("what", "a second"), tuple(map(tuple, rows)))


def executed() -> tuple[Table, tuple[Aim, ...]]:
    """Return the table of executed models that are mostly products, beside numpy's own product."""
    from mtia_emu.compiler.frontend import load
    from mtia_emu.compiler.pipeline import compile_graph

    from mtia_emu.engine.function import execute
    from mtia_emu.engine.run import report
    from mtia_emu.machine.chip import load_chip

    chip, a = load_chip("mtia-2i"), np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
    library, rows, aims = rate(a.size * 1024, lambda: a @ a), [], []
    for name, source in EXECUTED.items():
        with source() as given:
            program = compile_graph(load(given.path), chip).program
            inputs, macs = given.examples(0), report(program, chip).macs
            found = rate(macs, lambda program=program, inputs=inputs: execute(program, chip, inputs))
        rows.append((name, count(macs), count(found), ratio(found / library)))
        aims.append(Aim(f"executed {name}, rate by numpy's", OF_LIBRARY, found / library, least=True))
    rows.append(("numpy, product of 1024", count(a.size * 1024), count(library), ratio(1.0)))
    columns = ("model", "multiply-adds", "a processor second", "of numpy's")
    return Table("Executed models", columns, tuple(rows)), tuple(aims)


def loops() -> tuple[tuple[Table, ...], tuple[Aim, ...]]:
    """Return all tables of inner loops."""
    (table, stepped), (models, aims) = inner_loops(), executed()
    aim = Aim("stepped array, millions of PE cycles a second", ARRAY_TARGET, stepped, "M/s", least=True)
    return (table, models, memories(), graphs_and_gpu()), (aim, *aims)
