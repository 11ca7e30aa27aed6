"""Who may import whom: the table in `docs/architecture.md`, held to the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FOLDERS = {"mtia_emu": "mtia_emu", "compiler": "mtia_emu.compiler", "kernels": "mtia_emu.kernels"}
PLAIN = ("types", "errors", "settings", "options", "sums")  # what every room may import
EVERYTHING = "everything"


def rows() -> Iterator[tuple[list[str], str]]:
    """Yield the rooms of each row of the table, by name, and what they may import."""
    table = PAGE.partition("| room | what | may import |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        rooms, _, allowed = (cell.strip() for cell in line.strip("|").split("|"))
        names = [name.removeprefix("mtia_emu/") for name in re.findall(r"`([^`]+)`", rooms)]
        yield [name.rstrip("/").removesuffix(".py") for name in names], allowed


TABLE = {name: allowed for names, allowed in rows() for name in names}
TOGETHER = {name: names for names, _ in rows() for name in names}


def modules() -> dict[str, Path]:
    """Return the files of the product by their module's name."""
    found = {}
    for folder, package in FOLDERS.items():
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = file
    return found


MODULES = modules()


def room(module: str) -> str:
    """Return the room that a module is in."""
    return [*module.split("."), "__init__"][1]


def imports(module: str) -> Iterator[str]:
    """Yield what a module imports, wherever in it that stands."""
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in (a for a in node.names if a.name != "__version__"):
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base


def test_the_table_was_read() -> None:
    assert len(TABLE) > 20 and TABLE["kernels"] == "machine, program"


@pytest.mark.parametrize("name", sorted({room(m) for m in MODULES}))
def test_every_room_imports_only_what_it_may(name: str) -> None:
    assert name in TABLE, f"{name} has no row in the table"
    if TABLE[name] == EVERYTHING:
        return
    allowed = {*PLAIN, *TOGETHER[name], *(word.strip() for word in TABLE[name].split(","))}
    seen = {(m, i) for m in MODULES if room(m) == name for i in imports(m) if i.partition(".")[0] in FOLDERS}
    wrong = sorted(f"{m} imports {i}" for m, i in seen if room(i) not in allowed)
    assert not wrong


def test_nothing_imports_the_top() -> None:
    top = [name for name, allowed in TABLE.items() if allowed == EVERYTHING and name != "__init__"]
    inside = {m for m in MODULES if room(m) not in (*top, "__init__")}
    assert not [(m, i) for m in inside for i in imports(m) if i.startswith("mtia_emu.") and room(i) in top]


def test_imports_across_folders_are_absolute_and_within_them_relative() -> None:
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.ImportFrom)
                and not node.level
                and (node.module or "").startswith("mtia_emu")
            ):
                home = file.relative_to(ROOT).parts[0]
                target = str(node.module).partition("mtia_emu.")[2].partition(".")[0]
                inside = target == home if home != "mtia_emu" else target not in ("compiler", "kernels")
                assert not inside, f"{module} imports {node.module}: relative within a folder"


def test_every_row_is_of_something() -> None:
    for name in TABLE:
        package, _, rest = name.partition("/")
        assert not rest
        places = (ROOT / package, ROOT / "mtia_emu" / package, ROOT / "mtia_emu" / f"{package}.py")
        assert any(p.exists() for p in places), f"the table has {name}, the code does not"
