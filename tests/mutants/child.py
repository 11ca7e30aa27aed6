"""Run tests with one mutant in the place of its module: `python -m mutants.child NUMBER -- TESTS`.

The change is made as the module is imported; no file is touched.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any

import pytest

from .change import mutated
from .table import Mutant, mutants


class Planted(importlib.machinery.SourceFileLoader):
    """Loads a module with a mutant's change."""

    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self.mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the changed module; compiled files of the right one are not looked at."""
        path = self.get_filename(fullname)
        return compile(mutated(self.get_data(path).decode(), self.mutant), path, "exec")


class Finder:
    """Finds the module of a mutant before anybody else does."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where the mutant's module comes from, None for any other."""
        if name != self.mutant.module:
            return None
        others: list[Any] = [f for f in sys.meta_path if f is not self and hasattr(f, "find_spec")]
        spec = next((s for f in others if (s := f.find_spec(name, path, target)) is not None), None)
        if spec is not None and spec.origin is not None:
            spec.loader = Planted(name, spec.origin, self.mutant)
        return spec


def main(number: str, tests: list[str]) -> int:
    """Plant a mutant, by its number in the table (-1: none), and return how pytest exits."""
    if int(number) >= 0:
        sys.meta_path.insert(0, Finder(mutants()[int(number)]))  # type: ignore[arg-type]
    words = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-header", "--tb=line", *tests]
    return int(pytest.main(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[3:]))
