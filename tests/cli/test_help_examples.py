"""The examples in the help of commands: all are spelled right, and run on small stand-ins for their files."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy

import click
import numpy as np
import pytest
from click.testing import Result
from onnx import helper, numpy_helper, save

from mtia_emu.cli.app import main

Cli = Callable[..., Result]
SMALLER = {  # what an example asks for, and what is asked of it here: words of a line, as a whole
    r"--count \d+": "--count 3",
    r"--workers \d+": "--workers 1",
    r"conformance(?= --workers)": "conformance --op Abs",
    r"legalise,fold,mine": "legalise,fold",  # a worker would import the package that brings it
    r"gemm 512 26592": "gemm 512 2659",
    r"-- +mtia-emu run \{\}": "-- mtia-emu run {} --chip tiny",
}
LONG = re.compile(  # what takes more than about a second
    r"llama-3-8b|dlrm-mlperf|gemm 512|rows 1000000|sweep |report |conformance|fuzz|explain|timeline|reduce"
    "|opt |--check|ranking-mc2"
)
FAILS = {"opt model.ir --passes legalise,mine --verify-each": 1}  # it is there to find what is wrong


def examples(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the lines of a command's examples and of those below it, each block of lines at once."""
    for block in (command.help or "").split("\b")[1:]:
        head, _, body = block.strip().partition("\n")
        if head.strip() in ("Example:", "Examples:"):
            yield tuple(line.strip() for line in body.replace("\\\n", " ").splitlines() if line.strip())
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from examples(inner, (*path, name))


ALL = [re.sub(r"\s+", " ", line) for block in examples(main) for line in block]


def shown() -> list[str]:
    """Return the commands that pages show and do not run: `docs/fences.py` runs the others."""
    root = Path(__file__).parents[2]
    found = []
    for page in sorted([root / "README.md", *root.glob("docs/**/*.md"), *root.glob("examples/*.md")]):
        for info, body in re.findall(r"^```([^\n`]*)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
            if info.strip() != "console":
                lines = body.replace("\\\n", " ").splitlines()
                found += [line.strip() for line in lines if line.strip().startswith("mtia-emu ")]
    return [re.sub(r"\s+", " ", line) for line in dict.fromkeys(found)]


def words(line: str) -> list[str]:
    """Return the arguments of an example, made smaller."""
    for long, short in SMALLER.items():
        line = re.sub(long, short, line)
    first, *rest = shlex.split(line, comments=True)
    assert first == "mtia-emu"
    return rest


def test_there_are_examples_for_every_command() -> None:
    named = {words(line)[0] for line in ALL}
    assert named == set(main.commands) and len(ALL) > 40


MINE = """from dataclasses import dataclass, replace

from mtia_emu.compiler.passes import Pass


@dataclass(frozen=True)
class Mine(Pass):
    def __call__(self, graph):
        nodes = [replace(n, op="abs") if n.op == "relu" else n for n in graph.nodes]
        return graph.with_nodes(nodes)
"""


def write_model(path: Path, width: int = 8) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((8, width)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Relu", ["h"], ["r"], name="fc1"),
        helper.make_node("Transpose", ["r"], ["t"], name="turn", perm=[1, 0]),
        helper.make_node("Exp", ["t"], ["y"], name="exp"),
    ]
    ends = (("x", ["batch", 8]), ("y", [width, "batch"]))
    kinds = [helper.make_tensor_value_info(name, 1, shape) for name, shape in ends]
    graph = helper.make_graph(nodes, "g", kinds[:1], kinds[1:], [numpy_helper.from_array(weights, "w")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


CHECKPOINT = """{"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
"intermediate_size": 64, "vocab_size": 64}"""
ARRAY = """[general]
run_name = scale
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
SPEC = """chip = "tiny"
objectives = ["seconds", "joules", "area_mm2", "dollars"]
gpu = "h100-sxm"
[[model]]
model = "zoo:dlrm-small"
name = "decode"
dims = { batch = 2 }
[set]
"sram.bytes" = [65536, 131072]
"dram.channels" = "1..7 step 1"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a stand-in for each file that an example reads, but stores of sweeps."""
    path = tmp_path_factory.mktemp("examples")
    write_model(path / "model.onnx")
    (path / "exported" / "one").mkdir(parents=True)
    write_model(path / "exported" / "one" / "model.onnx")
    (path / "examples").mkdir()
    (path / "examples" / "sweep.toml").write_text(SPEC, encoding="utf-8")
    for name in ("step-table.json", "requests.csv"):
        copy(Path(__file__).parents[2] / "examples" / name, path / "examples")
    copy(Path(__file__).parents[2] / "examples" / "ranking-2-chips.toml", path / "examples")
    for scenario in (Path(__file__).parents[2] / "examples").glob("fleet-*.toml"):
        copy(scenario, path / "examples")
    (path / "package" / "mine-1.dist-info").mkdir(parents=True)
    (path / "package" / "mine.py").write_text(MINE, encoding="utf-8")
    for name, text in (
        ("METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1\n"),
        ("entry_points.txt", "[mtia_emu.passes]\nmine = mine:Mine\n"),
    ):
        (path / "package" / "mine-1.dist-info" / name).write_text(text, encoding="utf-8")
    (path / "Qwen3-8B").mkdir()
    (path / "Qwen3-8B" / "config.json").write_text(CHECKPOINT, encoding="utf-8")
    (path / "scale.cfg").write_text(ARRAY, encoding="utf-8")
    (path / "alexnet.csv").write_text("Layer, M, N, K,\nfc, 1, 64, 64,\n", encoding="utf-8")
    np.savez(path / "io.npz", **{"in:x": np.ones((4, 8), np.float32)})
    return path


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    """Return it with what the tool itself writes of the model: programs, reports, a graph."""
    from click.testing import CliRunner

    run, size, at = CliRunner().invoke, ["--dim", "batch=2"], folder / "model.onnx"
    for name in ("model", "model-fast", "model-full", "after", "llama"):
        assert run(main, ["compile", str(at), *size, "-o", str(folder / f"{name}.mtia")]).exit_code == 0
    for name in ("before", "after"):
        to = ["--json", str(folder / f"{name}.json")]
        assert run(main, ["run", str(at), *size, *to]).exit_code == 0
    steps = ["--gpu", "h100-sxm", "--tokens", "32", "--decodes", "2", "--context", "32"]
    assert run(main, ["steps", "zoo:llama-tiny", *steps, "-o", str(folder / "llama.json")]).exit_code == 0
    shown = run(main, ["show", str(at), *size, "--at", "onnx"])
    (folder / "model.ir").write_text(shown.stdout, encoding="utf-8")
    return folder


def needed(line: str) -> list[str]:
    """Return an example's arguments, with a size for the model's open dimension where it binds none."""
    args = words(line)
    if "model.onnx" in args and "--inputs" not in args and "--dim" not in args and args[0] != "reduce":
        args += ["--dim", "batch=2"]
    if args[0] == "reduce" and "model.onnx" in args:
        args += ["--dim", "batch=2"]
    return args


def try_example(line: str, cli: Cli) -> None:
    done = cli(*needed(line))
    assert done.exit_code == FAILS.get(line.removeprefix("mtia-emu "), 0), (line, done.output)


QUICK = [line for line in ALL if not LONG.search(line)]


@pytest.mark.parametrize("line", dict.fromkeys((*ALL, *shown())))
def test_each_example_is_spelled_right(line: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Click takes every argument and option; files that are read are there."""
    monkeypatch.chdir(made)
    name, *rest = words(line)
    for store in ("sweep.db",):
        Path(store).touch()
    with main.commands[name].make_context(name, rest):
        pass
    Path("sweep.db").unlink()


@pytest.mark.parametrize("line", QUICK)
def test_short_examples_run(line: str, made: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(made)
    if "--install" in line:  # into a home that is not the user's
        for name, value in {"HOME": str(made), "SHELL": "/bin/bash"}.items():
            monkeypatch.setenv(name, value)
        for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
            monkeypatch.delenv(name, raising=False)
    try_example(line, cli)


def _install(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and its children find a package's pass, and children the command itself."""
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)


@pytest.mark.deep
@pytest.mark.parametrize("line", [line for line in ALL if line not in QUICK and " report " not in line])
def test_long_examples_run(line: str, made: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(made)
    _install(made / "package", monkeypatch)
    if "does not fit" in line:  # a row that local memory does not hold
        pytest.skip("what does not fit a chip is made by no small model")
    if "--resume" in line:
        cli("sweep", "examples/sweep.toml", "-o", "sweep.db", "--workers", 1)
    if "report" not in line:
        try_example(line, cli)
    if line.startswith("mtia-emu sweep"):
        Path("sweep.db").unlink()


@pytest.mark.deep
def test_examples_of_reports_run(made: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(made)
    assert cli("sweep", "examples/sweep.toml", "-o", "sweep.db", "--workers", 1).exit_code == 0
    for line in (line for line in ALL if line.startswith("mtia-emu report")):
        try_example(line, cli)
    Path("sweep.db").unlink()
