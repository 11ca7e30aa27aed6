"""Make mutants of small files of every kind, read each within bounds, count what became of them.

Equal numbers are equal mutants: `--seed S --only N` makes one again. What is at fault is kept in a folder,
with what was wrong; a run that was stopped goes on from where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from mtia_emu.kernels import builder
from rich.console import Console

from mtia_emu.view.terminal import print_table

from . import checkpoint_files, mutate, mutate_onnx, mutate_store, mutate_zip
from .bounded import GOOD, REFUSED, Verdict, laid, run
from .mutate import Files
from .readers import READERS
from .seeds import Seed, seeds

SHARES = {  # of 128 mutants, about
    "onnx": 40,
    "graph": 18,
    "checkpoint": 10,
    "gguf": 6,
    "system": 5,
    "trace": 3,
    "steps": 3,
    "lengths": 1,
    "program": 12,
    "chip": 5,
    "gpu": 3,
    "dram": 2,
    "spec": 6,
    "store": 5,
    "arrays": 5,
    "external": 3,
    "histogram": 1,
    "report": 2,
    "scenario": 4,
}
SMALL_BLOCK = 1 << 20  # commands
KEPT = 3  # mutants of one fault
EVERY = 500  # mutants between two notes of how far a run is


class Mutants:
    """The mutants of a seed, by number."""

    def __init__(self, seed: int, given: list[Seed], kinds: list[str]) -> None:
        self.seed = seed
        self.by_kind = {kind: [s for s in given if s.kind == kind] for kind in kinds}
        self.turns = [kind for kind in kinds for _ in range(SHARES[kind])]

    def __call__(self, number: int) -> tuple[str, Files]:
        """Return the kind and the files of one mutant."""
        rng = random.Random(f"{self.seed}:{number}")
        kind = self.turns[number % len(self.turns)]
        one, other = rng.choice(self.by_kind[kind]), rng.choice(self.by_kind[kind])
        files = dict(one.files)
        name = rng.choice(list(files))
        files[name] = _changed(name, files[name], rng, next(iter(other.files.values())))
        return kind, files


def _changed(name: str, data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Change a file by what its name says that it is."""
    changes = {
        ".onnx": mutate_onnx.model,
        ".mtia": mutate_zip.program,
        ".npz": mutate_zip.arrays,
        ".db": mutate_store.store,
        ".bin": mutate.plain,
        ".safetensors": checkpoint_files.safetensors,
        ".gguf": checkpoint_files.gguf,
        ".json": lambda text, drawn, _: mutate_zip.json_text(text, drawn),
    }
    return changes.get(Path(name).suffix, mutate.text)(data, rng, other)


def main() -> int:
    """Run as the command line says; return 1 where the tool was at fault."""
    parser = argparse.ArgumentParser(prog="make fuzz-files", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(SHARES), help="kinds of files, between commas")
    parser.add_argument("--only", type=int, help="make this one mutant, say what becomes of it, keep it")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("fuzzed-files"), help="folder for what is at fault"
    )
    wanted = parser.parse_args()
    os.environ["MTIA_EMU_MEMORY_BYTES"] = str(1 << 28)
    builder.MOST_COMMANDS = SMALL_BLOCK  # of a large problem, not of a hostile file, a block takes 3 GB
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="mtia-emu-fuzz-") as folder:
        given = seeds(Path(folder))
        _warm(given, Path(folder))
    mutants = Mutants(wanted.seed, given, wanted.kinds.split(","))
    return _campaign(mutants, wanted)


def _warm(given: list[Seed], folder: Path) -> None:
    """Read each seed once: what is compiled on the way is not compiled again in a child."""
    for number, seed in enumerate(given):
        try:
            READERS[seed.kind](laid(folder, seed.files), random.Random(number))
        except Exception as error:
            if type(error).__name__ not in ("UserError", "NotImported"):
                raise


def _campaign(mutants: Mutants, wanted: argparse.Namespace) -> int:
    wanted.output.mkdir(parents=True, exist_ok=True)
    state = wanted.output / f"state-{mutants.seed}-{wanted.kinds.replace(',', '+')}.json"
    first, counts = _begun(state)
    numbers = range(first, wanted.count) if wanted.only is None else range(wanted.only, wanted.only + 1)
    started, kept = time.process_time(), Counter[str]()
    for verdict in run(numbers, mutants, READERS):
        counts.setdefault(verdict.kind, Counter())[verdict.outcome] += 1
        if verdict.fault or wanted.only is not None:
            _keep(verdict, mutants, wanted.output, kept)
        if (verdict.number + 1) % EVERY == 0 and wanted.only is None:
            state.write_text(json.dumps({"next": verdict.number + 1, "counts": counts}))
    _print(counts, time.process_time() - started)
    if wanted.only is None:
        state.write_text(json.dumps({"next": max(first, wanted.count), "counts": counts}))
    return int(any(set(c) - {GOOD, REFUSED} for c in counts.values()))


def _begun(state: Path) -> tuple[int, dict[str, Counter[str]]]:
    if not state.is_file():
        return 0, {}
    held = json.loads(state.read_text())
    return held["next"], {kind: Counter(c) for kind, c in held["counts"].items()}


def _keep(verdict: Verdict, mutants: Mutants, output: Path, kept: Counter[str]) -> None:
    """Say what is at fault, and keep the mutant unless there are enough like it."""
    fault = f"{verdict.kind}: {verdict.outcome}: {verdict.detail}"
    alike = f"{verdict.kind}: {verdict.outcome}: {verdict.detail.split(': ')[0]}"
    kept[alike] += 1
    if kept[alike] > KEPT:
        return
    print(f"mutant {verdict.number}: {fault}", flush=True)
    folder = output / f"{verdict.kind}-{mutants.seed}-{verdict.number}"
    folder.mkdir(exist_ok=True)
    laid(folder, mutants(verdict.number)[1])
    (folder / "fault.txt").write_text(fault + "\n")


def _print(counts: dict[str, Counter[str]], seconds: float) -> None:
    outcomes = sorted({o for c in counts.values() for o in c}, key=lambda o: (o != GOOD, o != REFUSED, o))
    rows = [[kind, f"{c.total():,}", *(f"{c[o]:,}" for o in outcomes)] for kind, c in counts.items()]
    whole = sum(counts.values(), Counter[str]())
    rows.append(["all", f"{whole.total():,}", *(f"{whole[o]:,}" for o in outcomes)])
    print_table("mutants", ["kind", "files", *outcomes], rows, Console(width=200))


if __name__ == "__main__":
    sys.exit(main())
