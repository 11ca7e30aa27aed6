"""Where commands write: the files that they are told to, and the cache folder; nothing in a home besides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtia_emu import settings
from mtia_emu.cli.app import main
from mtia_emu.zoo.operators import Gemm

TINY = ["m.onnx", "--chip", "tiny"]
SETS = ["--set", "dram.channels=1..2 step 1"]
SWEEP = ["sweep", "--model", "m.onnx", "--chip", "tiny", *SETS, "-o", "s.db"]
# Each command with what it is to write; one may read what those before it wrote.
EXAMPLES = Path(__file__).parents[2] / "examples"
SERVED = ["--rate", "2", "--requests", "20", "-o", "serve.html"]
COMMANDS: list[tuple[list[str], list[str]]] = [
    (["run", *TINY, "--check", "--json", "a.json", "--roofline", "roof.png"], ["a.json", "roof.png"]),
    (["gemm", "4", "8", "4", "--chip", "tiny", "--check", "--json", "b.json"], ["b.json"]),
    (
        [
            "tbe",
            "--tables",
            "2",
            "--rows",
            "16",
            "--dim",
            "8",
            "--batch",
            "2",
            "--pooling",
            "2",
            "--chip",
            "tiny",
        ],
        [],
    ),
    (["compile", *TINY, "-o", "p.mtia"], ["p.mtia"]),
    (["diff", "a.json", "b.json"], []),
    (["show", *TINY, "--at", "program"], []),
    (["chips", "tiny"], []),
    (["gpus"], []),
    (["zoo"], []),
    ([*SWEEP, "--jobs", "1"], ["s.db"]),
    (["report", "s.db", "-o", "r.html", "--csv", "r.csv"], ["r.html", "r.csv"]),
    (["area", "--chip", "tiny"], []),
    (["opt", "m.onnx", "-o", "m.ir", "--verify-each"], ["m.ir"]),
    (["reduce", "m.ir", "-o", "small.ir", "--", "false"], ["small.ir"]),
    (["explain", *TINY], []),
    (["timeline", *TINY, "-o", "t.svg"], ["t.svg"]),
    (["fuzz", "--count", "1", "--workers", "1"], []),
    (["systems", "tiny-board"], []),
    (["collective", "all_reduce", "--system", "tiny-board", "--bytes", "1KiB"], []),
    (["shard", "zoo:dlrm-small", "--system", "tiny-board", "--json", "shard.json"], ["shard.json"]),
    (["steps", f"{EXAMPLES}/step-table.json"], []),
    (["serve", "toy-decoder", "--table", f"{EXAMPLES}/step-table.json", *SERVED], ["serve.html"]),
    (["rank", f"{EXAMPLES}/ranking-2-chips.toml"], []),
    (["fleet", f"{EXAMPLES}/fleet-h100.toml", "--samples", "64", "-o", "fleet.html"], ["fleet.html"]),
    (["plan", f"{EXAMPLES}/fleet-plan.toml", "--json", "plan.json"], ["plan.json"]),
    (["train", *TINY, "--loss", "mse", "--optimizer", "sgd", "--emit", "step.ir"], ["step.ir"]),
    (["completion", "bash"], []),
    (["import", "scale-sim", "array.cfg", "net.csv"], ["array.toml", "net.onnx"]),
]
ARRAY = """[general]
run_name = a
[architecture_presets]
ArrayHeight = 8
ArrayWidth = 8
IfmapSramSzkB = 64
FilterSramSzkB = 64
OfmapSramSzkB = 64
Dataflow = ws
[run_presets]
InterfaceBandwidth = CALC
"""
LONG = ["conformance", "--case", "test_add"]
SCRIPT = """
import contextlib, io, json, sys
from pathlib import Path
from mtia_emu.cli import main

def seen():
    return {str(path.relative_to(Path("..").resolve())) for path in Path("..").resolve().rglob("*")}

for words in json.loads(sys.argv[1]):
    before, code = seen(), 0
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main(words)
        except SystemExit as done:
            code = done.code
    print(json.dumps([words, code, sorted(seen() - before)]), flush=True)
"""


def written(tmp_path: Path, commands: list[list[str]], code: str) -> dict[str, list[str]]:
    """Return what each command wrote, in a process with a fresh home and temporary folder, and what it left.

    Compiled code is kept in `code`, else in the cache folder of that home.
    """
    for name in ("home", "tmp", "work"):
        (tmp_path / name).mkdir()
    (Gemm(4, 8, 4, "fp32").build(tmp_path / "work", 0)).rename(tmp_path / "work" / "m.onnx")
    (tmp_path / "work" / "array.cfg").write_text(ARRAY)
    (tmp_path / "work" / "net.csv").write_text("Layer, M, N, K,\na, 4, 8, 4,\n")
    hidden = ("XDG_", "MTIA_EMU_", "ORT_", "NUMBA_", "MPL")
    env = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    env |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    env |= {"NUMBA_CACHE_DIR": code} if code else {}
    words = [sys.executable, "-P", "-c", SCRIPT, json.dumps(commands)]
    done = subprocess.run(words, cwd=tmp_path / "work", env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {}
    for words, exit_code, files in map(json.loads, done.stdout.splitlines()):
        assert exit_code in (0, None), f"{words}: {done.stderr}"
        found[words[0]] = files
    assert list((tmp_path / "tmp").iterdir()) == []
    left = {p.name for p in (tmp_path / "home").iterdir()} | {
        p.name for p in (tmp_path / "home").glob(".cache/*")
    }
    assert left <= {".cache", "mtia-emu"}
    return found


def test_every_command_is_tried() -> None:
    assert {words[0] for words, _ in [*COMMANDS, (LONG, [])]} == set(main.commands)  # type: ignore[attr-defined]


def test_commands_write_what_they_are_told_to_and_into_the_cache_alone(tmp_path: Path) -> None:
    found = written(tmp_path, [words for words, _ in COMMANDS], str(settings.cache_folder()))
    for words, files in COMMANDS:
        told = {f"work/{name}" for name in files}
        rest = {name for name in found[words[0]] if not name.startswith("home/.cache")}
        assert rest == told, words


@pytest.mark.deep
@pytest.mark.parametrize("words", [COMMANDS[0][0][:-4], COMMANDS[1][0][:-2], SWEEP, LONG], ids=lambda w: w[0])
def test_a_command_in_a_home_where_nothing_is(words: list[str], tmp_path: Path) -> None:
    (files,) = written(tmp_path, [words], "").values()
    assert {name for name in files if not name.startswith("home/.cache")} <= {"work/s.db"}
