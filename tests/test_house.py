"""How the house is built: one thing a name, no circles, few loose modules, short functions and files."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("mtia_emu", "compiler", "kernels")
PUBLIC = (  # where a caller comes in
    "mtia_emu/api.py",
    "mtia_emu/study/training.py",
    "mtia_emu/sweeps/run.py",
    "compiler/pipeline.py",
)
MOST_PARAMETERS, MOST_LOOSE, MOST_LINES, MOST_FILE_LINES = 7, 10, 60, 400
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def files() -> list[Path]:
    """Return the product's own files."""
    return sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def module_name(file: Path) -> str:
    """Return the name by which a file is imported: compiler/ and kernels/ are below mtia_emu."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "mtia_emu" else ("mtia_emu", *parts)).removesuffix(".__init__")


def functions(source: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(source) if isinstance(node, Function))


def parameters(function: Function) -> list[str]:
    """Return the parameters of a function, the object or class itself aside."""
    a = function.args
    names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def public_classes(source: ast.Module) -> list[str]:
    return [
        node.name for node in source.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def imports(source: ast.Module, package: str) -> Iterator[str]:
    """Yield what a module of a package imports, also inside functions; not for type checkers alone."""
    pending: list[ast.AST] = [source]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) + 1 - node.level] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def import_graph(sources: Mapping[str, tuple[str, ast.Module]]) -> nx.DiGraph:
    """Return which modules import which; `sources` are packages and trees by module."""
    graph = nx.DiGraph()
    graph.add_nodes_from(sources)
    for module, (package, source) in sources.items():
        for imported in imports(source, package):
            target = imported if imported in sources else imported.rpartition(".")[0]
            if target in sources and target != module and not imported.endswith(".__version__"):
                graph.add_edge(module, target)
    return graph


def circles(graph: nx.DiGraph) -> list[list[str]]:
    return [sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1]


def package_of(file: Path) -> str:
    name = module_name(file)
    return name if file.name == "__init__.py" else name.rpartition(".")[0]


def test_a_public_class_name_stands_for_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for file in files():
        for name in public_classes(tree(file)):
            places.setdefault(name, []).append(module_name(file))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_modules_import_each_other() -> None:
    sources = {module_name(file): (package_of(file), tree(file)) for file in files()}
    assert circles(import_graph(sources)) == []


def test_few_modules_are_loose() -> None:
    loose = [file.stem for file in (ROOT / "mtia_emu").glob("*.py") if file.stem != "__init__"]
    assert len(loose) <= MOST_LOOSE, loose


@pytest.mark.parametrize("name", PUBLIC)
def test_functions_that_callers_come_in_by_take_few_parameters(name: str) -> None:
    many = {
        f.name: parameters(f) for f in functions(tree(ROOT / name)) if len(parameters(f)) > MOST_PARAMETERS
    }
    assert many == {}


def test_functions_are_short() -> None:
    long = [
        f"{file.relative_to(ROOT)}:{f.lineno} {f.name}"
        for file in files()
        for f in functions(tree(file))
        if (f.end_lineno or 0) - f.lineno >= MOST_LINES
    ]
    assert long == []


def test_files_are_short() -> None:
    lines = {str(f.relative_to(ROOT)): f.read_text(encoding="utf-8").count("\n") for f in files()}
    assert {name: count for name, count in lines.items() if count > MOST_FILE_LINES} == {}


def test_circles_are_seen_inside_functions_and_not_for_type_checkers() -> None:
    texts = {
        "m.a": "from . import b\nfrom .c import one",
        "m.b": "def late():\n    from m.a import two",
        "m.c": "if TYPE_CHECKING:\n    from .a import two",
    }
    sources = {name: ("m", ast.parse(text)) for name, text in texts.items()}
    assert circles(import_graph(sources)) == [["m.a", "m.b"]]


def test_what_is_counted() -> None:
    source = ast.parse("class A: ...\nclass _B: ...\nclass C:\n  def f(self, a, /, b, *c, d=1, **e): ...")
    assert Counter(public_classes(source)) == {"A": 1, "C": 1}
    assert [parameters(f) for f in functions(source)] == [["a", "b", "d"]]
