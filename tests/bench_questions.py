"""What a question costs: time, processor seconds and memory of whole commands, by a bare import.

A part of `make bench`: `make bench PART=questions`. Questions are new ones but where the table says
otherwise: blocks, mappings and machine code are kept, answers are not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping

from bench_page import Aim, Table
from bench_process import BARE, NEW, Cost, Job, bare, cost, medians, ours

from mtia_emu.view.units import ratio, seconds, size

DECODE = ("--dim", "seq=1", "--dim", "past=2048")
PREFILL = ("--dim", "seq=2048")
GEMM = ("gemm", "512", "512", "512")
TBE = ("tbe", "--tables", "8", "--rows", "1000000", "--dim", "128", "--pooling", "20", "--batch", "512")
MODELS = {"prefill 2048": PREFILL, "decode after 2048": DECODE}
SMALL = {"help": ("--help",), "gemm 512 512 512": GEMM, "tbe of 8 tables": TBE}
LARGE = {
    f"{name} {kind}": ("run", f"zoo:{name}", *dims)
    for name in ("llama-3-8b", "llama-3-70b", "llama-3.1-405b", "deepseek-v3")
    for kind, dims in MODELS.items()
}
OTHERS = {
    "dlrm-mlperf batch 512": ("run", "zoo:dlrm-mlperf"),
    "llama-3-8b training": ("train", "zoo:llama-3-8b", "--loss", "cross-entropy", "--optimizer", "adamw"),
    "llama-tiny executed and checked": ("run", "zoo:llama-tiny", "--check"),
}
ASKED_AGAIN = ("gemm 512 512 512", "tbe of 8 tables", "llama-3-8b prefill 2048")
MOST_BYTES = 400e6
AIMS = {"gemm 512 512 512": 1.0, "tbe of 8 tables": 1.0} | {
    name: 2.0 if "8b" in name else 5.0 for name in LARGE if "70b" not in name
}
COLD = 6.0
SHARE_OF_8B = 1.3
EXPLAINED = 3.0
PREFILL_8B, NEW_BLOCKS = "llama-3-8b prefill 2048", ", new blocks"
IMPORT, AGAIN, COLD_NAME = "the import alone", " asked again", f"{PREFILL_8B}, cold"
BLOCKS_KNOWN = (
    "Blocks of commands are known from a run before, as their choices of mappings are, but where a row says "
    "that they are new."
)
EXPLAIN_RUNS = 1  # of an explanation, which takes long


def questions() -> tuple[tuple[Table, ...], tuple[Aim, ...]]:
    """Return the table of commands and what is aimed at."""
    found = medians(_jobs())
    with tempfile.TemporaryDirectory() as empty:
        found[COLD_NAME] = cost(
            ours("run", "zoo:llama-3-8b", *PREFILL, environment=NEW | {"MTIA_EMU_CACHE": empty})
        )
    rows = tuple(_row(name, x, found[IMPORT]) for name, x in found.items())
    columns = ("command", "time", "of the import", "processor", "of the import", "peak memory")
    notes = (f"The import: `{BARE}`.", BLOCKS_KNOWN)
    table = Table("Whole commands, medians of 3 in turns", columns, rows, notes)
    return (table,), tuple(_aims(found))


def _jobs() -> dict[str, Job]:
    new = {f"{PREFILL_8B}{NEW_BLOCKS}": ours(*LARGE[PREFILL_8B], environment=NEW | {"MTIA_EMU_BLOCKS": "0"})}
    jobs = new | {IMPORT: bare()} | {name: ours(*words) for name, words in (SMALL | LARGE | OTHERS).items()}
    return jobs | {name + AGAIN: ours(*(SMALL | LARGE)[name], environment={}) for name in ASKED_AGAIN}


def _row(name: str, x: Cost, base: Cost) -> tuple[str, ...]:
    return (
        name,
        seconds(x.wall_s),
        ratio(x.wall_s / base.wall_s),
        seconds(x.cpu_s),
        ratio(x.cpu_s / base.cpu_s),
        size(x.memory_bytes),
    )


def _aims(found: Mapping[str, Cost]) -> list[Aim]:
    """Return the aims of commands: by processor seconds, which what else the machine does changes least."""
    base = found[IMPORT].cpu_s
    aims = [
        Aim(f"{name}, processor time by the import's", most, found[name].cpu_s / base)
        for name, most in AIMS.items()
    ]
    aims += [
        Aim(f"{name}{AGAIN}, processor time by the import's", AIMS[name], found[name + AGAIN].cpu_s / base)
        for name in ASKED_AGAIN
    ]
    aims.append(Aim(f"{COLD_NAME}, processor time by the import's", COLD, found[COLD_NAME].cpu_s / base))
    for kind in MODELS:
        small, large = (found[f"llama-3-{n} {kind}"] for n in ("8b", "70b"))
        aims.append(
            Aim(f"llama-3-70b {kind}, processor time by llama-3-8b's", SHARE_OF_8B, large.cpu_s / small.cpu_s)
        )
        more = large.memory_bytes / small.memory_bytes
        aims.append(Aim(f"llama-3-70b {kind}, memory by llama-3-8b's", SHARE_OF_8B, more))
    most = max(LARGE, key=lambda name: found[name].memory_bytes)
    aims.append(Aim(f"peak memory of a run ({most})", MOST_BYTES / 1e6, found[most].memory_bytes / 1e6, "MB"))
    return aims


def explanations() -> tuple[tuple[Table, ...], tuple[Aim, ...]]:
    """Return the table of explanations beside runs of the same."""
    models = {f"llama-3-8b {kind}": ("zoo:llama-3-8b", *dims) for kind, dims in MODELS.items()}
    models["dlrm-mlperf batch 512"] = ("zoo:dlrm-mlperf",)
    runs = {name: ours("run", *words, "--gpu", "none") for name, words in models.items()}
    runs |= {f"{name}, explained": ours("explain", *words) for name, words in models.items()}
    found = medians(runs, EXPLAIN_RUNS)
    rows, aims = [], []
    for name in models:
        run, whole = found[name], found[f"{name}, explained"]
        of_run = whole.cpu_s / run.cpu_s
        cells = seconds(run.cpu_s), seconds(whole.cpu_s), ratio(of_run), size(whole.memory_bytes)
        rows.append((name, *cells))
        aims.append(Aim(f"explain {name}, processor time by a run's", EXPLAINED, of_run))
    columns = ("model", "run, processor", "explain, processor", "of the run", "peak memory")
    return (Table("Explanations beside runs of the same, new questions", columns, tuple(rows)),), tuple(aims)
