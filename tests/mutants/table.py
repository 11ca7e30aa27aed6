"""The table of mutants, `mutants.toml`: where each stands, what it changes and which tests stand nearest."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = HERE / "mutants.toml"
FOLDERS = {"mtia_emu.compiler": "compiler", "mtia_emu.kernels": "kernels", "mtia_emu": "mtia_emu"}
KEYS = {"at", "means", "from", "to", "swap", "times", "tests"}


class Misplaced(Exception):
    """A mutant that is not what the sources let it be: its place is gone, or is not the only one."""


@dataclass(frozen=True)
class Mutant:
    """One fault: in `module`, within the function or class `scope` (empty: all of it).

    Either `before`, Python text of an expression or of statements, gives way to `after`, at exactly `times`
    places; or two names are swapped wherever they stand. `means` says what the fault is in the machine;
    `tests` are the nearest, by path from `tests/`.
    """

    module: str
    scope: str
    means: str
    tests: tuple[str, ...]
    before: str = ""
    after: str = ""
    swap: tuple[str, str] | None = None
    times: int = 1

    @property
    def name(self) -> str:
        """Return a name by which the mutant is told apart."""
        change = " <-> ".join(self.swap) if self.swap else f"{self.before} -> {self.after or 'nothing'}"
        place = f"{self.module.removeprefix('mtia_emu.')}:{self.scope}".rstrip(":")
        return " ".join(f"{place}: {change}".split())

    @property
    def file(self) -> Path:
        """Return the module's file. Raises `Misplaced` where there is none."""
        package = next(p for p in FOLDERS if f"{self.module}.".startswith(f"{p}."))
        rest = self.module.removeprefix(package).strip(".").replace(".", "/")
        for path in (ROOT / FOLDERS[package] / f"{rest}.py", ROOT / FOLDERS[package] / rest / "__init__.py"):
            if path.is_file():
                return path
        raise Misplaced(f"{self.module}: no such module")

    @property
    def jitted(self) -> bool:
        """Return whether the module has code that is compiled, which is kept by the text of its file."""
        return "numerics import" in self.file.read_text(encoding="utf-8")


def mutants(path: Path = TABLE) -> list[Mutant]:
    """Return the mutants of a table. Raises `Misplaced` for an entry that says too little or too much."""
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    return [_mutant(entry, values["nearest"]) for entry in values["mutant"]]


def _mutant(entry: dict[str, Any], nearest: dict[str, list[str]]) -> Mutant:
    module, _, scope = entry.get("at", "").partition(":")
    if unknown := entry.keys() - KEYS:
        raise Misplaced(f"{module}:{scope}: unknown key {', '.join(sorted(unknown))}")
    if ("swap" in entry) == ("from" in entry) or not module or not entry.get("means"):
        raise Misplaced(f"{module}:{scope}: an entry has `at`, `means`, and `from` or `swap`")
    rooms = [room for room in nearest if f"{module}.".startswith(f"{room}.")]
    tests = entry.get("tests") or (nearest[max(rooms, key=len)] if rooms else [])
    if not tests:
        raise Misplaced(f"{module}:{scope}: no tests stand near; name some in `tests` or in [nearest]")
    swap = entry.get("swap")
    return Mutant(
        module,
        scope,
        entry["means"],
        tuple(tests),
        entry.get("from", ""),
        entry.get("to", ""),
        (swap[0], swap[1]) if swap else None,
        entry.get("times", 1),
    )
