"""What a pass of the user's raises is told as theirs, with the line; what one of ours raises is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.pass_text import parse_passes
from mtia_emu.compiler.passes import Fold
from mtia_emu.compiler.pipeline import lower
from mtia_emu.compiler.text import parse
from mtia_emu.compiler.watch import watch

from mtia_emu.errors import UserError

GRAPH = parse("graph g {\n  in %x : fp32[2]\n  %y : fp32[2] = neg(%x)\n  out %y\n}\n")
FILE = """from dataclasses import dataclass
from mtia_emu.errors import UserError
from mtia_emu.compiler.graph import Graph
from mtia_emu.compiler.passes.base import Pass, Rules

@dataclass(frozen=True)
class Crash(Rules):
    @property
    def rules(self):
        return (_rule,)

def _rule(node, match):
    raise ValueError("boom")

@dataclass(frozen=True)
class Crooked(Pass):
    def __call__(self, graph):
        return {}["no such key"]

@dataclass(frozen=True)
class Nothing(Pass):
    def __call__(self, graph):
        pass

@dataclass(frozen=True)
class Holes(Pass):
    def __call__(self, graph):
        return Graph("g", (None,), {}, (), {})

@dataclass(frozen=True)
class Polite(Pass):
    def __call__(self, graph):
        raise UserError("these words")

@dataclass(frozen=True)
class Bad(Pass):
    size: int = 1
    def __post_init__(self):
        assert self.size < 5, "too large"
"""
RUNS: dict[str, Callable[[Graph, str], object]] = {
    "lower": lambda graph, text: lower(graph, parse_passes(text)),
    "watch": lambda graph, text: list(watch(graph, parse_passes(text))),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("crash", "pass mine.py:crash: raises ValueError: boom (mine.py:13)"),
        ("crooked", "pass mine.py:crooked: raises KeyError: 'no such key' (mine.py:18)"),
        ("nothing", "pass mine.py:nothing: gives NoneType (right: a Graph)"),
        ("holes", "pass mine.py:holes: raises AttributeError"),
        ("polite", "these words"),
        ("bad{size=7}", "pass mine.py:bad: raises AssertionError: too large (mine.py:39)"),
    ],
)
def test_a_pass_of_the_users_that_raises_is_named(
    run: str, name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(FILE)
    with pytest.raises(UserError) as caught:
        RUNS[run](GRAPH, f"mine.py:{name}")
    assert str(caught.value).startswith(said)


def test_what_a_pass_of_ours_raises_is_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(self: Fold, graph: Graph) -> Graph:
        raise ValueError("ours")

    monkeypatch.setattr(Fold, "__call__", fault)
    monkeypatch.setattr(Fold, "apply", lambda self, graph: (fault(self, graph), []), raising=False)
    with pytest.raises(ValueError, match="ours"):
        lower(GRAPH, (Fold(),))


@pytest.mark.parametrize(("debug", "traced"), [("0", False), ("1", True)])
def test_the_traceback_is_shown_to_who_asks_for_it(debug: str, traced: bool, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    code = (
        "from mtia_emu.compiler.pass_text import parse_passes\n"
        "from mtia_emu.errors import UserError\n"
        "try:\n    parse_passes('mine.py:bad{size=7}')\n"
        "except UserError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"MTIA_EMU_DEBUG": debug, "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "pass mine.py:bad: raises AssertionError: too large (mine.py:39)\n"
    assert ("Traceback" in done.stderr) == traced
