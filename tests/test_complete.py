"""Whatever there is, is in its list, on its page, in its package and in a test."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from mtia_emu.compiler.ops import OPS
from mtia_emu.compiler.passes import PASSES, Pass
from mtia_emu.kernels import KERNELS

from mtia_emu.cli.app import main
from mtia_emu.gpu import gpu_names
from mtia_emu.machine.chip import chip_names
from mtia_emu.machine.units.simd import REDUCTIONS
from mtia_emu.program.commands import COMMANDS
from mtia_emu.program.isa import Opcode
from mtia_emu.settings import FLAGS, Flag

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
UNITS = sorted(p.stem for p in (ROOT / "mtia_emu" / "machine" / "units").glob("*.py") if p.stem != "__init__")
PLAIN = {
    "__init__",
    "backward",
    "base",
    "draws",
    "onnx_types",
    "spelling",
    "einsum",
    "layout",
    "layout_reshape",
    "trace",
    "scores",
}  # files of ops and passes that hold none


@cache
def all_tests() -> str:
    """Return the text of all tests but this one."""
    files = [p for p in (ROOT / "tests").rglob("*.py") if p != Path(__file__)]
    return "\n".join(p.read_text(encoding="utf-8") for p in files)


@cache
def page(name: str) -> str:
    """Return a page of the reference."""
    return (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


@cache
def names_on(name: str) -> set[str]:
    """Return what a page of the reference sets in code, a name each; what follows a name there counts not."""
    return set(re.findall(r"`([\w.-]+)", page(name)))


def nodes_in(folder: str) -> Iterator[ast.AST]:
    """Yield the syntax of the sources of a folder, of which there are some."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"{folder} has no sources"
    for file in files:
        yield from ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def texts(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the strings among syntax."""
    return {x.value for x in nodes if isinstance(x, ast.Constant) and isinstance(x.value, str)}


@cache
def texts_in(folder: str) -> set[str]:
    """Return the strings that stand in the sources of a folder."""
    return texts(nodes_in(folder))


@cache
def kernels_of_steps() -> set[str]:
    """Return what is named where the compiler makes steps, kernels among it."""
    calls = [x for x in nodes_in("compiler/lower") if isinstance(x, ast.Call)]
    made = [x for x in calls if getattr(x.func, "attr", getattr(x.func, "id", "")) in ("step", "Step")]
    return texts(node for call in made for argument in call.args for node in ast.walk(argument))


@cache
def invoked() -> set[str]:
    """Return the first words of the command lines that tests run, and those whose options they vary."""
    calls = [x for x in nodes_in("tests") if isinstance(x, ast.Call) and isinstance(x.func, ast.Name)]
    run = texts(arg for x in calls if getattr(x.func, "id", "") == "cli" for arg in x.args[:1])
    pairs = [x.elts for x in nodes_in("tests/cli") if isinstance(x, ast.Tuple) and len(x.elts) == 2]
    return run | texts(one for one, option in pairs if any(t.startswith("--") for t in texts([option])))


def registered(folder: str, base: str) -> set[str]:
    """Return the classes in a folder that are named as bases of nothing but what is listed."""
    found = set()
    for file in (ROOT / folder).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and {b.id for b in node.bases if isinstance(b, ast.Name)} & {
                base,
                "Rules",
            }:
                found.add(node.name)
    return found


def test_every_pass_is_listed() -> None:
    assert {p.__name__ for p in PASSES.values()} == registered("compiler/passes", Pass.__name__) - {"Rules"}


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_is_documented_and_tested(name: str) -> None:
    assert len((PASSES[name].__doc__ or "").split()) > 5, "it says its contract"
    assert name in names_on("passes.md")
    assert (ROOT / "tests" / "compiler" / "passes" / f"test_{name.replace('-', '_')}.py").exists()


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_documented(name: str) -> None:
    assert len(OPS[name].text.split()) > 1, "it says what it means"
    assert name in names_on("ops.md")


def test_every_file_of_ops_is_loaded() -> None:
    files = {p.stem for p in (ROOT / "compiler" / "ops").glob("*.py")} - PLAIN
    init = ast.parse((ROOT / "compiler" / "ops" / "__init__.py").read_text(encoding="utf-8"))
    loaded = {a.name for x in init.body if isinstance(x, ast.ImportFrom) and not x.module for a in x.names}
    assert files == loaded


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_is_used_and_tested(name: str) -> None:
    assert KERNELS[name].op in OPS or name in kernels_of_steps(), "no rule makes a step of it"
    assert (ROOT / "tests" / "kernels" / "golden" / f"{name}.txt").exists(), "no golden block of it"


def test_every_command_is_documented() -> None:
    assert set(COMMANDS) == set(Opcode)
    assert {op.name.lower() for op in Opcode} <= names_on("commands.md")


@pytest.mark.parametrize("name", REDUCTIONS)
def test_every_reduction_of_the_simd_engine_is_tested(name: str) -> None:
    assert name in texts_in("tests/machine/units")


@pytest.mark.parametrize(
    "loop",
    [
        '@pytest.mark.parametrize("name", chip_names())',
        '@pytest.mark.parametrize("name", gpu_names())',
        '@pytest.mark.parametrize("name", zoo.zoo_names())',
        "for _function in FUNCTIONS.values():",
    ],
)
def test_tests_run_through_all_that_is_listed(loop: str) -> None:
    """Whatever is added to these lists is tested by that alone."""
    assert f"\n{loop}\n" in all_tests()


@pytest.mark.parametrize("name", [*chip_names(), *gpu_names()])
def test_every_chip_and_gpu_is_documented(name: str) -> None:
    assert f"  {name} " in page("chips.md") + page("gpus.md")  # its parameters: tests/study/test_listing.py


@pytest.mark.parametrize("name", main.commands)
def test_every_command_of_the_command_line_is_documented_and_tested(name: str) -> None:
    assert f"`mtia-emu {name}`" in page("cli.md")  # its options: tests/cli/test_help.py
    assert name in invoked()


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_every_setting_is_documented(flag: Flag) -> None:
    assert flag.name in names_on("settings.md")


def test_every_unit_is_tested() -> None:
    tests = {p.stem for p in (ROOT / "tests" / "machine" / "units").glob("test_*.py")}
    assert len(UNITS) > 8 and {f"test_{unit}" for unit in UNITS} - tests == set()


def test_every_package_is_packaged() -> None:
    folders = {"mtia_emu": "mtia_emu", "compiler": "mtia_emu.compiler", "kernels": "mtia_emu.kernels"}
    found = {
        ".".join((package, *file.relative_to(ROOT / folder).parent.parts))
        for folder, package in folders.items()
        for file in (ROOT / folder).rglob("*.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_every_folder_with_data_says_so() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    words = ["git", "ls-files", "mtia_emu", "compiler", "kernels"]
    tracked = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    assert tracked
    for file in (Path(f) for f in tracked if not f.endswith(".py")):
        package = ".".join(file.parent.parts)
        assert any(file.match(pattern) for pattern in data.get(package, [])), f"{file} is not in the wheel"


def test_the_oldest_dependencies_that_are_tested_are_those_that_are_allowed() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    floors = dict(
        line.split(">=")
        for name in ("check", "cluster", "draw", "plan", "plot", "search", "sweep", "test")
        for line in [*PROJECT["project"]["dependencies"], *extras[name]]
        if not line.startswith("mtia-emu[")
    )
    lines = (ROOT / "tests" / "data" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: _release(floor) for name, floor in floors.items()} == {
        name: _release(pin) for name, pin in pins.items()
    }


def _release(text: str) -> tuple[int, ...]:
    """Return a version without the zeros at its end."""
    numbers = [int(part) for part in text.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
