"""Every option of every command changes what it says that it changes.

An option is given two values; what its command then prints, writes or does must differ. An option without an
entry here fails the test: nothing that is accepted may be lost on the way.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from mtia_emu import api
from mtia_emu.cli.app import main
from mtia_emu.program.text import dump

KERNEL = """
import numpy as np
from mtia_emu import Kernel
from mtia_emu.program.isa import FUNCTION_NAMES, Opcode
from mtia_emu.kernels.builder import Builder


class Twice(Kernel):
    op = "com.example::Twice"
    flops = 1
    operands = (1, 1)

    def infer(self, types, attrs):
        return [types[0]]

    def reference(self, arrays, attrs):
        return [arrays[0] * 2]

    def examples(self, rng):
        yield [rng.standard_normal((3, 5)).astype(np.float32)], {}

    def emit(self, chip, attrs, inputs, outputs):
        (x,), (out,) = inputs, outputs
        build = Builder(chip, "twice", (x, out))
        a, b = (build.slot(o.dtype, x.rows * x.cols) for o in (x, out))
        tile = {"row": 0, "rows": x.rows, "col": 0, "cols": x.cols}
        build.add(Opcode.LOAD, 0, pe=0, operand=0, dst=a, **tile)
        add = FUNCTION_NAMES.index("add")
        build.add(Opcode.SIMD, 1, pe=0, fn=add, src0=a, src1=a, dst=b, rows=x.rows, cols=x.cols)
        build.add(Opcode.STORE, 2, pe=0, operand=1, src0=b, **tile)
        return build.block()
"""


@dataclass(frozen=True)
class Seen:
    """What a command came to: its exit code, what it printed, and the files in its folder."""

    code: int
    out: str
    err: str
    folder: Path

    def report(self) -> dict[str, Any]:
        return dict(json.loads(self.out))


See = Callable[[Seen], Any]


def printed(seen: Seen) -> Any:
    return seen.out, seen.err


def ended(seen: Seen) -> Any:
    return seen.code


def files(seen: Seen) -> Any:
    return {path.name: path.read_bytes() for path in seen.folder.iterdir()}


def named(seen: Seen) -> Any:
    return sorted(path.name for path in seen.folder.iterdir())


def program(seen: Seen) -> Any:
    made = api.load_program(seen.folder / "p.mtia")
    return dump(made, commands=1 << 20), made.chip, made.dtype, made.dims


def outputs(seen: Seen) -> Any:
    with np.load(seen.folder / "out.npz") as arrays:
        return {name: arrays[name].tobytes() for name in arrays}


def key(*path: str) -> See:
    def look(seen: Seen) -> Any:
        value: Any = seen.report()
        for name in path:
            value = value[name]
        return value

    return look


def keys(seen: Seen) -> Any:
    return sorted(seen.report())


@dataclass(frozen=True)
class Case:
    """The words of a command, those of an option's two values, and what must differ."""

    words: str
    first: str
    second: str
    see: See
    refused: tuple[bool, bool] = (False, False)


COLLECTIVE = "collective all_reduce"
BOARD = f"{COLLECTIVE} --system tiny-board"
SHARD = "shard zoo:dlrm-small --system tiny-board"

# Commands that compile a model: their words, and where the program that was made is seen.
COMPILING: dict[str, tuple[str, See]] = {
    "run": ("run {f}/m.onnx --gpu none --json -", key("cycles")),
    "compile": ("compile {f}/m.onnx -o {o}/p.mtia", program),
    "show": ("show {f}/m.onnx --at program --commands 100000", printed),
    "opt": ("opt {f}/m.onnx -q --measure", printed),
    "explain": ("explain {f}/m.onnx --no-what-if --json -", key("seconds")),
    "timeline": ("timeline {f}/m.onnx -o {o}/t.svg", files),
}
SMALL = "--chip tiny --dim batch=16"
VALUES: dict[str, tuple[str, str]] = {
    "--chip": ("--dim batch=16 --chip tiny", "--dim batch=16 --chip mtia-2i"),
    "--set": (SMALL, f"{SMALL} --set dram.channels=1"),
    "--dim": (SMALL, "--chip tiny --dim batch=8"),
    "--dtype": (SMALL, f"{SMALL} --dtype fp32"),
    "--calibrate": (f"{SMALL} --dtype int8", f"{SMALL} --dtype int8 --calibrate 1"),
    "--passes": (f"{SMALL} --passes=-merge-tables", f"{SMALL} --passes=-fuse-tails,-fuse-epilogue"),
    "--tune": (SMALL, f"{SMALL} --tune full"),
    "--mapping": (SMALL, f'{SMALL} --no-beside --mapping "*: rows=m cols=n tile=8x8x32 outer=m"'),
    "--beside": (SMALL, f"{SMALL} --no-beside"),
    "--prefetch": (f"{SMALL} --no-beside --state cold", f"{SMALL} --no-beside --state cold --no-prefetch"),
    "--state": (f"{SMALL} --state cold", f"{SMALL} --state warm"),
}
FEWER = (  # passes, each of which `opt --measure` would time a program without
    " --passes=-fuse-norms,-fuse-rotary,-fuse-bags,-group-heads,"
    "-keep-packed,-split-into-strips,-append-caches,-merge-tables,"
    "-lower-indexing,-fuse-attention,-fuse-maps,-fuse-tails,"
    "-merge-siblings,-fuse-epilogue,-set-weight-layout"
)
RUN = f"run {{f}}/m.onnx {SMALL}"
GPU = "--gpu a100-sxm-40gb --json -"
DELIVERED = {
    "--gpu": Case("", "--gpu none --json -", GPU, keys),
    "--basis": Case(GPU, "", "--basis server", key("versus_gpu", "energy")),
    "--gpu-launch": Case(GPU, "", "--gpu-launch host", key("gpu", "seconds")),
    "--gpu-unfused": Case(GPU, "", "--gpu-unfused", key("gpu", "notes")),
    "--gpu-burst": Case(GPU, "", "--gpu-burst", key("gpu", "joules")),
    "--json": Case("--gpu none", "", "--json {o}/r.json", named),
    "--trace": Case("--gpu none", "", "--trace {o}/t.json", named),
    "--roofline": Case("--gpu none", "", "--roofline {o}/r.svg", named),
    "--html": Case("--gpu none", "", "--html {o}/r.html", named),
    "--layers": Case("--gpu none", "--layers 0", "--layers 1", printed),
    "--check": Case("--gpu none --json -", "", "--check", keys),
    "--by-layer": Case("--gpu none --check", "", "--by-layer", printed),
    "--seed": Case("--gpu none --outputs {o}/out.npz --check", "--seed 1", "--seed 2", outputs),
}
GEMM = "gemm 40 120 24 --chip tiny --gpu none"
TBE = "tbe --tables 3 --rows 400 --dim 16 --pooling 5 --batch 60 --chip tiny --gpu none"
OPERATORS = {
    "--chip": Case("--json -", "", "--chip mtia-2i", key("chip")),
    "--set": Case("--json -", "", "--set dram.channels=1", key("seconds")),
    "--dtype": Case("--json -", "", "--dtype fp32", key("cycles")),
    "--tune": Case("--json -", "", "--tune full", key("cycles")),
    "--place": Case("--json -", "", "--place sram", key("cycles")),
    "--state": Case("--json -", "--state cold", "--state warm", key("cycles")),
    "--outputs": Case("", "", "--outputs {o}/out.npz", named),
}
SERVE = f"serve toy-decoder --table {Path(__file__).parents[2] / 'examples' / 'step-table.json'} --json -"
BUSY = f"{SERVE} --rate 12 --requests 60 --input-tokens 600 --output-tokens 60"
RANK = f"rank {Path(__file__).parents[2]}/examples/ranking-2-chips.toml --set load.requests=200"
STEPS = "steps zoo:llama-tiny --tokens 32 --decodes 2 --context 32"
OPT = f"opt {{f}}/m.onnx -q {SMALL}"
SWEEP = "sweep --model {f}/m.onnx,batch=16 --chip tiny --gpu none --jobs 0 -o {o}/s.db"
CHOSEN = f"{SWEEP} --set dram.channels=1..9"
PLAN = f"plan {Path(__file__).parents[2] / 'examples' / 'fleet-plan.toml'}"
FLEET = f"fleet {Path(__file__).parents[2] / 'examples' / 'fleet-mtia-2i.toml'}"
REPORT = "report {f}/s.db"
TRAIN = "train zoo:resnet-tiny --chip tiny --dim batch=1 --gpu none --loss cross-entropy"
CASES: dict[tuple[str, str], Case] = {
    **{
        (c, flag): Case(words + (FEWER if c == "opt" and flag != "--passes" else ""), *VALUES[flag], see)
        for c, (words, see) in COMPILING.items()
        for flag in VALUES
    },
    **{
        (c, "--kernel"): Case(
            words.replace("m.onnx", "own.onnx"), "", "--kernel {f}/own.py", ended, (True, False)
        )
        for c, (words, _) in COMPILING.items()
    },
    **{
        (c, "--routing"): Case(
            words.replace("m.onnx", "moe.onnx") + (FEWER if c == "opt" else ""),
            "--chip tiny --routing uniform",
            "--chip tiny --routing zipf:4",
            see,
        )
        for c, (words, see) in COMPILING.items()
    },
    **{
        (name, flag): Case(f"{words} {case.words}", case.first, case.second, case.see)
        for name, words, each in [
            ("run", RUN, DELIVERED),
            ("gemm", GEMM, DELIVERED | OPERATORS),
            ("tbe", TBE, DELIVERED | OPERATORS),
        ]
        for flag, case in each.items()
    },
    ("gemm", "--mapping"): Case(
        f"{GEMM} --json -", "", '--mapping "*: rows=m cols=n tile=8x8x32 outer=m"', key("cycles")
    ),
    ("tbe", "--mapping"): Case(f"{TBE} --json -", "", '--mapping "*: bags=1"', key("cycles")),
    ("run", "--system"): Case(
        "run {f}/m.onnx --dim batch=16 --gpu none --parallel dp=2 --json -",
        "--system tiny-board",
        "--system mtia-2i-server",
        key("seconds"),
    ),
    ("run", "--parallel"): Case(
        "run {f}/m.onnx --dim batch=16 --gpu none --system tiny-board --json -",
        "--parallel dp=2",
        "--parallel dp=4",
        key("seconds"),
    ),
    ("run", "--annotations"): Case(
        "run {f}/m.onnx --dim batch=16 --gpu none --system tiny-board --parallel dp=2",
        "",
        "--annotations {o}/a.onnx",
        named,
    ),
    ("run", "--inputs"): Case(
        RUN + " --gpu none --outputs {o}/out.npz", "--check", "--inputs {f}/io.npz", outputs
    ),
    ("run", "--outputs"): Case(RUN + " --gpu none --check", "", "--outputs {o}/out.npz", named),
    **{
        ("tbe", flag): Case(f"{TBE} --json -", "", f"{flag} {value}", key("dims"))
        for flag, value in {"--tables": 2, "--rows": 9, "--dim": 8, "--pooling": 3, "--batch": 30}.items()
    },
    ("tbe", "--skew"): Case(f"{TBE} --outputs {{o}}/out.npz", "", "--skew zipf:1.2", outputs),
    ("compile", "--output"): Case(f"compile {{f}}/m.onnx {SMALL}", "-o {o}/a", "-o {o}/b", named),
    ("compile", "--inputs"): Case(
        "compile {f}/m.onnx --chip tiny -o {o}/p.mtia", "--dim batch=16", "--inputs {f}/io.npz", program
    ),
    ("show", "--at"): Case(f"show {{f}}/m.onnx {SMALL}", "--at onnx", "--at schedule", printed),
    ("show", "--commands"): Case(
        f"show {{f}}/m.onnx {SMALL} --at program", "--commands 1", "--commands 2", printed
    ),
    ("area", "--chip"): Case("area", "--chip tiny", "--chip mtia-1", printed),
    ("area", "--set"): Case("area --chip tiny", "", "--set sram.bytes=1048576", printed),
    ("area", "--json"): Case("area --chip tiny", "", "--json {o}/a", named),
    **{
        ("steps", flag): Case(f"{STEPS} {words}", one, other, printed)
        for flag, words, one, other in [
            ("--chip", "", "--gpu h100-sxm", "--chip mtia-2i"),
            ("--set", "", "--gpu h100-sxm", "--set dram.channels=8"),
            ("--gpu", "", "--gpu h100-sxm", "--gpu h200-sxm"),
            ("--dtype", "--gpu h100-sxm", "--dtype fp16", "--dtype fp32"),
            ("--system", "", "--gpu h100-sxm", "--system mtia-2i-server"),
            ("--parallel", "--system mtia-2i-server", "--parallel tp=1", "--parallel tp=2"),
            ("--check", "--gpu h100-sxm", "--check 0", "--check 1"),
            ("--seed", "--gpu h100-sxm --check 1", "--seed 0", "--seed 1"),
        ]
    },
    **{
        ("steps", f"--{name}"): Case(f"{STEPS} --gpu h100-sxm", "", f"--{name} {value}", printed)
        for name, value in {"tokens": 48, "decodes": 3, "context": 48}.items()
    },
    **{
        ("serve", flag): Case(f"{BUSY} {words}", first, second, key("answers"))
        for flag, (words, first, second) in {
            "--engines": ("", "", "--engines 2"),
            "--chips-per-engine": ("", "", "--chips-per-engine 4"),
            "--route": ("--engines 2 --cv 4", "--route round-robin", "--route least-loaded"),
            "--prefill-engines": ("", "", "--prefill-engines 1"),
            "--link": ("--prefill-engines 1", "", "--link 1e8"),
            "--link-latency": ("--prefill-engines 1", "", "--link-latency 0.2"),
            "--rate": ("", "", "--rate 4"),
            "--cv": ("", "--cv 0", "--cv 2"),
            "--peak": ("", "--peak 1.5 --period 60", "--peak 2 --period 60"),
            "--period": ("--peak 2", "--period 10", "--period 20"),
            "--input-tokens": ("", "", "--input-tokens 40"),
            "--output-tokens": ("", "", "--output-tokens 4"),
            "--requests": ("", "", "--requests 9"),
            "--seed": ("", "", "--seed 5"),
            "--slo": ("", "", "--slo ttft=0.2"),
            "--max-sequences": ("", "", "--max-sequences 2"),
            "--token-budget": ("", "", "--token-budget 100"),
            "--block-tokens": ("", "", "--block-tokens 100"),
            "--blocks": ("", "", "--blocks 90"),
            "--gap": ("", "", "--gap 0.01"),
            "--no-prefix-cache": ("--blocks 90 --token-budget 100", "", "--no-prefix-cache"),
            "--no-chunks": ("", "", "--no-chunks"),
            "--reserve-prompt": ("--blocks 90 --token-budget 100", "", "--reserve-prompt"),
            "--not-ahead": ("", "", "--not-ahead"),
            "--static": ("", "", "--static"),
        }.items()
    },
    ("serve", "--bounds"): Case(BUSY, "", "--bounds", key("bounds")),
    ("serve", "--memory-share"): Case(BUSY, "", "--memory-share 0.5", key("service")),
    ("serve", "--reserve"): Case(BUSY, "", "--reserve 1e9", key("service")),
    ("serve", "--over"): Case(BUSY.replace("--json -", ""), "", "--over engines=1,2", printed),
    ("serve", "--table"): Case(BUSY, "", "--table {f}/none.json", ended, (False, True)),
    ("serve", "--trace"): Case(f"{SERVE} --rate 5 --requests 9", "", "--trace {f}/t.csv", key("load")),
    ("serve", "--concurrency"): Case(SERVE, "--concurrency 2", "--concurrency 3", key("answers")),
    ("serve", "--json"): Case(BUSY.replace("--json -", ""), "", "--json {o}/a", named),
    ("serve", "--output"): Case(BUSY, "", "-o {o}/p.html", named),
    ("serve", "--trace-out"): Case(BUSY, "", "--trace-out {o}/t.gz", named),
    ("rank", "--set"): Case(RANK, "", "--set model.remote_jobs=1", printed),
    ("rank", "--rate"): Case(RANK, "", "--rate 90", printed),
    ("rank", "--json"): Case(RANK, "", "--json {o}/r.json", named),
    ("steps", "--output"): Case(f"{STEPS} --gpu h100-sxm", "", "-o {o}/t.json", named),
    ("steps", "--json"): Case(f"{STEPS} --gpu h100-sxm", "", "--json {o}/t.json", named),
    ("systems", "--set"): Case("systems tiny-board", "", "--set host.power_w=5", printed),
    ("systems", "--many"): Case(
        "systems tiny-board --json - --set chips.chip.count=1500", "", "--many", ended, (True, False)
    ),
    ("systems", "--json"): Case("systems tiny-board", "", "--json {o}/s", named),
    ("collective", "--system"): Case(COLLECTIVE, "--system tiny-board", "--system yosemite-v3", printed),
    ("collective", "--bytes"): Case(BOARD, "--bytes 1KiB", "--bytes 2KiB", printed),
    ("collective", "--ranks"): Case(BOARD, "--ranks 2", "--ranks 4", printed),
    ("collective", "--algorithm"): Case(BOARD, "--algorithm ring", "--algorithm tree", printed),
    ("collective", "--set"): Case(BOARD, "", "--set links.link.bytes_per_s=1e9", printed),
    ("collective", "--many"): Case(
        f"{BOARD} --set chips.chip.count=1500 --algorithm tree", "", "--many", ended, (True, False)
    ),
    ("collective", "--json"): Case(BOARD, "", "--json {o}/c", named),
    ("shard", "--system"): Case(
        "shard zoo:dlrm-small", "--system tiny-board", "--system yosemite-v3", printed
    ),
    ("shard", "--batch"): Case(SHARD, "--batch 64", "--batch 128", printed),
    ("shard", "--skew"): Case(f"{SHARD} --shard row", "", "--skew zipf:1.2", printed),
    ("shard", "--hot-bytes"): Case(f"{SHARD} --skew zipf:1.2", "", "--hot-bytes 100kB", printed),
    ("shard", "--shard"): Case(SHARD, "--shard table", "--shard row", printed),
    ("shard", "--memory-share"): Case(
        SHARD, "--memory-share 0.5", "--memory-share 0.001", ended, (False, True)
    ),
    ("shard", "--batches"): Case(SHARD, "--batches 0", "--batches 1", printed),
    ("shard", "--seed"): Case(
        f"{SHARD} --shard row --skew zipf:1.2 --json -", "--seed 1", "--seed 2", printed
    ),
    ("shard", "--set"): Case(f"{SHARD} --shard table", "", "--set links.link.bytes_per_s=1e8", printed),
    ("shard", "--many"): Case(
        f"{SHARD} --batches 0 --shard copied --set chips.chip.count=1100", "", "--many", ended, (True, False)
    ),
    ("shard", "--json"): Case(SHARD, "", "--json {o}/s", named),
    ("opt", "--output"): Case(OPT, "", "-o {o}/g.ir", named),
    ("opt", "--draw"): Case(OPT, "", "--draw {o}/g.dot", named),
    ("opt", "--quiet"): Case(f"opt {{f}}/m.onnx {SMALL}", "", "-q", printed),
    ("opt", "--print-after"): Case(OPT, "", "--print-after fold", printed),
    ("opt", "--stats"): Case(OPT, "", "--stats", printed),
    ("opt", "--why"): Case(OPT, "", "--why", printed),
    ("opt", "--measure"): Case(OPT + FEWER, "", "--measure", printed),
    ("opt", "--verify-each"): Case(OPT, "", "--verify-each", printed),
    ("opt", "--bisect"): Case(
        "opt {f}/w.ir -q --passes {f}/wrong.py --verify-each", "", "--bisect", printed, (True, True)
    ),
    ("opt", "--tolerance"): Case(
        "opt {f}/w.ir -q --passes {f}/wrong.py --verify-each", "", "--tolerance 1e9", ended, (True, False)
    ),
    ("opt", "--inputs"): Case(
        "opt {f}/m.onnx -q --chip tiny", "", "--inputs {f}/io.npz", ended, (True, False)
    ),
    ("opt", "--seed"): Case(
        "opt {f}/w.ir -q --passes {f}/wrong.py --verify-each", "--seed 1", "--seed 2", printed, (True, True)
    ),
    ("explain", "--json"): Case(f"explain {{f}}/m.onnx {SMALL} --no-what-if", "", "--json {o}/e", named),
    ("explain", "--roofline"): Case(
        f"explain {{f}}/m.onnx {SMALL} --no-what-if", "", "--roofline {o}/r.svg", named
    ),
    ("explain", "--html"): Case(f"explain {{f}}/m.onnx {SMALL} --no-what-if", "", "--html {o}/e.html", named),
    ("explain", "--layers"): Case(
        f"explain {{f}}/m.onnx {SMALL} --no-what-if", "--layers 0", "--layers 1", printed
    ),
    ("explain", "--what-if"): Case(
        f"explain {{f}}/m.onnx {SMALL} --json -", "", "--no-what-if", key("effects")
    ),
    ("timeline", "--output"): Case(f"timeline {{f}}/m.onnx {SMALL}", "-o {o}/a.svg", "-o {o}/b.svg", named),
    ("timeline", "--layer"): Case(
        f"timeline {{f}}/m.onnx {SMALL} -o {{o}}/t.svg", "", "--layer matmul.5", files
    ),
    ("timeline", "--pe"): Case(
        f"timeline {{f}}/m.onnx {SMALL} -o {{o}}/t.svg --no-beside --layer matmul.5",
        "--pe 0",
        "--pe 1",
        files,
    ),
    ("diff", "--json"): Case("diff {f}/a.json {f}/b.json", "", "--json {o}/d.json", named),
    ("diff", "--layers"): Case("diff {f}/a.json {f}/b.json", "--layers 0", "--layers 1", printed),
    ("diff", "--sort"): Case("diff {f}/a.json {f}/b.json", "--sort time", "--sort energy", printed),
    # a fast choice times all mappings of embedding bags: that the flag is read shows by what it refuses
    ("tbe", "--tune"): Case(TBE, "", "--tune most", printed, refused=(False, True)),
    ("sweep", "--chip"): Case(SWEEP, "", "--chip mtia-1", printed),
    ("sweep", "--model"): Case(SWEEP, "", "--model {f}/m.onnx,batch=8", printed),
    ("sweep", "--set"): Case(SWEEP, "", "--set dram.channels=1,2", printed),
    ("sweep", "--link"): Case(SWEEP, "", "--link clock_hz=dram.channels*2e8", printed),
    ("sweep", "--constraint"): Case(
        SWEEP + " --set dram.channels=1,2", "", "--constraint dram.channels>1", printed
    ),
    ("sweep", "--objective"): Case(SWEEP, "", "--objective joules", printed),
    ("sweep", "--passes"): Case(SWEEP, "", "--passes=-fuse-tails,-fuse-epilogue", printed),
    ("sweep", "--tune"): Case(SWEEP, "", "--tune full", printed),
    ("sweep", "--beside"): Case(SWEEP, "", "--no-beside", printed),
    ("sweep", "--prefetch"): Case(f"{SWEEP} --no-beside --state cold", "", "--no-prefetch", printed),
    ("sweep", "--routing"): Case(
        SWEEP.replace("m.onnx,batch=16", "moe.onnx"), "", "--routing zipf:4", printed
    ),
    ("sweep", "--state"): Case(SWEEP, "--state cold", "--state warm", printed),
    ("sweep", "--output"): Case(SWEEP, "", "-o {o}/t.db", named),
    ("sweep", "--resume"): Case(SWEEP.replace("{o}/s.db", "{f}/r.db"), "", "--resume", ended, (True, False)),
    ("completion", "--install"): Case("completion bash", "", "--install", named),
    ("report", "--commands"): Case(REPORT, "", "--commands", printed),
    ("report", "--output"): Case(REPORT, "", "-o {o}/r.svg", named),
    ("report", "--picture"): Case(REPORT + " -o {o}/r.svg", "--picture pareto", "--picture energy", files),
    ("report", "--x"): Case(REPORT + " -o {o}/r.svg", "", "--x joules", files),
    ("report", "--y"): Case(REPORT + " -o {o}/r.svg", "", "--y seconds", files),
    ("report", "--point"): Case(
        REPORT + " -o {o}/r.svg --picture roofline", "--point -1", "--point 1", files
    ),
    ("report", "--model"): Case(
        REPORT + " -o {o}/r.svg --picture roofline", "--model m", "--model two", files
    ),
    ("train", "--json"): Case(TRAIN, "", "--json {o}/r.json", named),
    ("train", "--html"): Case(TRAIN, "", "--html {o}/r.html", named),
    ("train", "--layers"): Case(TRAIN, "--layers 0", "--layers 1", printed),
    ("train", "--emit"): Case(TRAIN, "", "--emit {o}/step.ir", named),
    ("train", "--system"): Case(TRAIN, "", "--system tiny-board --parallel dp=1", printed),
    ("train", "--parallel"): Case(
        TRAIN.replace("--chip tiny --dim batch=1", "--dim batch=2 --system tiny-board"),
        "--parallel dp=1",
        "--parallel dp=2",
        printed,
    ),
    ("train", "--zero"): Case(
        TRAIN.replace("--chip tiny --dim batch=1", "--dim batch=2 --system tiny-board --parallel dp=2")
        + " --optimizer adam",
        "",
        "--zero 1",
        printed,
    ),
    ("train", "--check"): Case(f"{TRAIN} --steps 1", "", "--check", printed),
    ("train", "--until"): Case(TRAIN, "", "--until 1e6", printed),
    ("train", "--failures"): Case(f"{TRAIN} --until 1e6", "", "--failures mtbf_h=10", printed),
    ("report", "--csv"): Case(REPORT, "", "--csv {o}/r.csv", named),
    ("fleet", "--set"): Case(FLEET, "", "--set site.pue=1.3", printed),
    ("fleet", "--samples"): Case(FLEET, "--samples 1024", "--samples 2048", printed),
    ("fleet", "--seed"): Case(FLEET, "", "--seed 1", printed),
    ("fleet", "--shares"): Case(FLEET, "", "--shares", printed),
    ("fleet", "--inputs"): Case(FLEET, "", "--inputs", printed),
    ("fleet", "--json"): Case(FLEET, "", "--json {o}/f.json", named),
    ("fleet", "--output"): Case(FLEET, "", "--output {o}/f.html", named),
    ("plan", "--set"): Case(PLAN, "", "--set plan.power_mw=420", printed),
    ("plan", "--json"): Case(PLAN, "", "--json {o}/p.json", named),
    ("report", "--parquet"): Case(REPORT, "", "--parquet {o}/r.parquet", named),
}

# Options that say how work is done, not what comes of it: the call that they end in, and must change.
CALLS: dict[tuple[str, str], tuple[str, str, str, str]] = {
    **{
        ("sweep", flag): ("sweeps.run.run", SWEEP.replace(" --jobs 0", ""), "", f"{flag} {value}".strip())
        for flag, value in {
            "--jobs": 1, "--workers": 3, "--scheduler": "tcp://host:1", "--timeout": 5, "--memory": 1 << 30,
            "--retries": 7, "--yes": "", "--seed": 5, "--gpu": "h100-sxm",
        }.items()
    },
    ("sweep", "--method"): ("sweeps.run.run", f"{CHOSEN} --points 3", "--method random", "--method latin"),
    ("sweep", "--points"): ("sweeps.run.run", f"{CHOSEN} --method random", "--points 3", "--points 4"),
    **{
        ("serve", flag): (
            "study.kept_tables.kept_table", "serve zoo:llama-tiny --rate 2", "", f"{flag} {value}"
        )
        for flag, value in {
            "--chip": "tiny", "--set": "dram.channels=2", "--gpu": "h100-sxm", "--dtype": "int8",
            "--context": 64, "--system": "mtia-2i-server",
        }.items()
    },
    ("serve", "--parallel"): (
        "study.kept_tables.kept_table", "serve zoo:llama-tiny --rate 2 --system mtia-2i-server",
        "", "--parallel tp=4",
    ),
    **{
        ("serve", flag): ("cli.served_ways.all_served", f"{BUSY} --over engines=1,2", "", f"{flag} {value}")
        for flag, value in {"--workers": 2, "--scheduler": "tcp://host:1"}.items()
    },
    **{
        ("fuzz", flag): ("testing.campaign.run", "fuzz", "", f"{flag} {value}")
        for flag, value in {
            "--count": 9, "--seed": 3, "--passes": "fold", "--only": "split",
            "--workers": 1, "--output": "{o}/fuzzed"
        }.items()
    },
    **{
        ("conformance", flag): ("conformance.cases.run", "conformance", "", f"{flag} {value}")
        for flag, value in {"--op": "Relu", "--case": "test_relu", "--workers": 3}.items()
    },
    ("conformance", "--models"): ("conformance.models.run", "conformance", "", "--models {f}"),
    ("conformance", "--json"): ("files.writing.write_json", "conformance", "", "--json {o}/v.json"),
    **{
        ("train", flag): ("study.training.train", TRAIN, "", f"{flag} {value}")
        for flag, value in {
            "--chip": "mtia-1", "--set": "dram.channels=1", "--dim": "batch=2", "--loss": "mse",
            "--output": "logits", "--optimizer": "adam", "--precision": "bf16", "--clip": 1, "--keep": 1e6,
            "--accumulate": 2, "--train": "x", "--freeze": "x", "--steps": 1, "--data": "{f}/io.npz",
            "--seed": 3, "--gpu": "h100-sxm", "--embeddings": "tables", "--schedule": "constant",
            "--rounding": "stochastic",
        }.items()
    },
    **{
        ("reduce", flag): ("cli.reduce.Trial", "reduce {f}/w.ir -o {o}/small.ir", "", f"{flag} {value}")
        for flag, value in {"--match": "no", "--seconds": 3, "--runs": 2}.items()
    },
    ("reduce", "--output"): ("cli.reduce._graph", "reduce {f}/w.ir", "-o {o}/a.ir", "-o {o}/b.ir"),
}  # fmt: skip


def by_name(table: Any) -> list[Any]:
    """Return parameters for each entry; pictures take long, and see what `explain` and `run` see."""
    marks = {("timeline", flag): (pytest.mark.deep,) for flag in VALUES if flag != "--tune"}
    return [pytest.param(*names, id=" ".join(names), marks=marks.get(names, ())) for names in sorted(table)]


def accepted() -> set[tuple[str, str]]:
    """Return every option of every command, by its longest flag."""
    return {
        (name, max(p.opts, key=len))
        for name, command in main.commands.items()
        for p in command.params
        if p.param_type_name == "option"
    }


def test_every_option_has_an_entry() -> None:
    assert accepted() == set(CASES) | set(CALLS)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of what commands are given."""
    folder = tmp_path_factory.mktemp("given")
    towers(folder / "m.onnx")
    mixture(folder / "moe.onnx")
    node = helper.make_node("Twice", ["xa"], ["y"], domain="com.example")
    save(folder / "own.onnx", [node], [], {"xa": (4, 6)}, {"y": (4, 6)}, domain="com.example")
    (folder / "own.py").write_text(KERNEL)
    (folder / "w.ir").write_text(GRAPH)
    (folder / "wrong.py").write_text(WRONG)
    (folder / "t.csv").write_text("arrival_s,input_tokens,output_tokens\n0,5,5\n3,5,5\n")
    rng = np.random.default_rng(0)
    np.savez(folder / "io.npz", **{n: rng.standard_normal((16, 64)).astype(np.float32) for n in ("xa", "xb")})
    for name, words in {
        "a.json": f"{RUN} --gpu none --json {{o}}",
        "b.json": f"{RUN} --gpu none --no-beside --dtype int8 --json {{o}}",
        "r.db": SWEEP.replace("{o}/s.db", "{o}"),
        "s.db": SWEEP.replace("{o}/s.db", "{o}")
        + " --set dram.channels=1,2 --model {f}/m.onnx,batch=8,name=two",
    }.items():
        done = invoke(words.replace("{o}", str(folder / name)), folder)
        assert done.exit_code == 0, done.output
    return folder


GRAPH = """graph g {
  in %x : fp32[4,8]
  %y : fp32[4,8] = sigmoid(%x)
  out %y
}
"""
WRONG = """
from dataclasses import dataclass, replace
from mtia_emu.compiler.passes import Pass

@dataclass(frozen=True)
class Wrong(Pass):
    def __call__(self, graph):
        return graph.with_nodes([replace(n, op="tanh") for n in graph.nodes])
"""


def towers(path: Path) -> None:
    """Write two towers of two layers each: they can run side by side, and read weights ahead."""
    rng = np.random.default_rng(0)
    weights, nodes = [], []
    for tower in "ab":
        last, width = f"x{tower}", 64
        for layer in range(2):
            w = (rng.standard_normal((width, 48)) / 10).astype(np.float32)
            weights.append(numpy_helper.from_array(w, f"w{tower}{layer}"))
            nodes.append(helper.make_node("MatMul", [last, f"w{tower}{layer}"], [f"h{tower}{layer}"],
                                          name=f"fc{tower}{layer}"))  # fmt: skip
            nodes.append(helper.make_node("Relu", [f"h{tower}{layer}"], [f"r{tower}{layer}"]))
            last, width = f"r{tower}{layer}", 48
    nodes.append(helper.make_node("Concat", ["ra1", "rb1"], ["y"], axis=1))
    save(path, nodes, weights, {"xa": ("batch", 64), "xb": ("batch", 64)}, {"y": ("batch", 96)})


def mixture(path: Path) -> None:
    """Write a mixture of 32 experts, two for each of 16 rows."""
    rng = np.random.default_rng(0)
    sizes = {"router": (64, 32), "up": (32, 96, 64), "down": (32, 64, 96)}
    weights = [
        numpy_helper.from_array((rng.standard_normal(s) / 8).astype(np.float32), n) for n, s in sizes.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "router"], ["scores"]),
        helper.make_node("MoE", ["x", "scores", "up", "", "down"], ["y"], domain="com.microsoft", k=2),
    ]
    save(path, nodes, weights, {"x": (16, 64)}, {"y": (16, 64)}, domain="com.microsoft")


def save(path: Path, nodes: Any, weights: Any, inputs: Any, outputs: Any, *, domain: str = "") -> None:
    sides = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in side.items()]
        for side in (inputs, outputs)
    ]
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph(nodes, path.stem, *sides, weights)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


def invoke(words: str, folder: Path, home: Path | None = None) -> Any:
    """Run a command; `home` is the user's folder, where it is one that writes there."""
    env = {"HOME": str(home), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""} if home is not None else None
    return CliRunner().invoke(main, shlex.split(words.replace("{f}", str(folder))), env=env)


@pytest.fixture(scope="module")
def see(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seen]:
    """Return a function that runs a command once, whoever asks."""
    known: dict[str, Seen] = {}

    def run(words: str) -> Seen:
        if words not in known:
            folder = tmp_path_factory.mktemp("o")
            home = folder if words.startswith("completion ") else None
            done = invoke(words.replace("{o}", str(folder)), given, home)
            assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
            told = (text.replace(str(folder), "o") for text in (done.stdout, done.stderr))
            known[words] = Seen(done.exit_code, *told, folder)
        return known[words]

    return run


@pytest.mark.parametrize(("command", "flag"), by_name(CASES))
def test_an_option_changes_what_it_says(command: str, flag: str, see: Callable[[str], Seen]) -> None:
    case = CASES[command, flag]
    both = [see(f"{case.words} {value}".strip()) for value in (case.first, case.second)]
    for seen, refused in zip(both, case.refused, strict=True):
        assert (seen.code != 0) is refused, seen.err
    assert case.see(both[0]) != case.see(both[1])


class Stopped(Exception):
    """A call that a command ends in, instead of work."""


@pytest.mark.parametrize(("command", "flag"), by_name(CALLS))
def test_an_option_reaches_the_work(
    command: str, flag: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, words, *values = CALLS[command, flag]
    calls: list[str] = []

    def stop(*args: Any, **more: Any) -> Any:
        calls.append(repr((args, {k: v for k, v in more.items() if k != "progress"})))
        raise Stopped

    if command == "conformance":
        monkeypatch.setattr("mtia_emu.conformance.cases.run", lambda *args: [])
        monkeypatch.setattr("mtia_emu.conformance.cases.of_operators", list)
    monkeypatch.setattr(f"mtia_emu.{target}", stop)
    for value in values:
        before = len(calls)
        tail = " -- false {}" if command == "reduce" else ""
        invoke(f"{words} {value}{tail}".replace("{o}", str(tmp_path)), given)
        calls += ["nothing"] * (len(calls) == before)
    assert len(calls) == 2 and calls[0] != calls[1]
