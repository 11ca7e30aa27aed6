"""Whatever there is, is in its list, on its page, in its package and in a test."""

from __future__ import annotations

import ast
import subprocess
import tomllib
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
from mtia_emu.settings import FLAGS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
UNITS = sorted(p.stem for p in (ROOT / "mtia_emu" / "machine" / "units").glob("*.py") if p.stem != "__init__")
PLAIN = {
    "__init__",
    "base",
    "onnx_types",
    "spelling",
    "shapes",
    "einsum",
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
    assert f"`{name}" in page("passes.md").lower()
    assert (ROOT / "tests" / "compiler" / "passes" / f"test_{name.replace('-', '_')}.py").exists()


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_documented(name: str) -> None:
    assert len(OPS[name].text.split()) > 1, "it says what it means"
    assert f"`{name}`" in page("ops.md")


def test_every_file_of_ops_is_loaded() -> None:
    files = {p.stem for p in (ROOT / "compiler" / "ops").glob("*.py")} - PLAIN
    init = (ROOT / "compiler" / "ops" / "__init__.py").read_text(encoding="utf-8")
    assert {name for name in files if name not in init} == set()


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_is_used_and_tested(name: str) -> None:
    used = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "compiler").rglob("*.py"))
    assert KERNELS[name].op in OPS or f'"{name}"' in used
    assert name in "\n".join(
        p.read_text(encoding="utf-8") for p in (ROOT / "tests" / "kernels").rglob("*.py")
    )


def test_every_command_is_documented() -> None:
    assert set(COMMANDS) == set(Opcode)
    assert all(op.name.lower() in page("commands.md").lower() for op in Opcode)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_every_reduction_of_the_simd_engine_is_tested(name: str) -> None:
    assert f'"{name}"' in all_tests()


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
    assert f'"{name}"' in all_tests()


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_every_setting_is_documented(flag: object) -> None:
    assert getattr(flag, "name", "") in page("settings.md")


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_is_tested(unit: str) -> None:
    assert (
        ROOT / "tests" / "machine" / "units" / f"test_{unit}.py"
    ).exists() or f"units.{unit}" in all_tests()


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
    for file in (Path(f) for f in tracked if not f.endswith(".py")):
        package = ".".join(file.parent.parts)
        assert any(file.match(pattern) for pattern in data.get(package, [])), f"{file} is not in the wheel"


def test_the_oldest_dependencies_that_are_tested_are_those_that_are_allowed() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    floors = dict(
        line.split(">=")
        for name in ("check", "cluster", "draw", "plot", "search", "sweep", "test")
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
