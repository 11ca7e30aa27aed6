"""Passes of other people: those that packages bring, and those in a file that the user names.

Packages bring them as entry points of the group `mtia_emu.passes`, by name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from dataclasses import is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from mtia_emu.errors import UserError, refuse_unknown

from .passes import PASSES, Pass
from .passes.base import pass_name

GROUP = "mtia_emu.passes"


def pass_named(name: str) -> type[Pass]:
    """Return the pass of that name, ours before others'; raise `UserError` with the nearest for none.

    A package is imported only when a pass of it is named; `FILE.py` or `FILE.py:name` is a pass in a file.
    """
    if name in PASSES:
        return PASSES[name]
    file, _, one = name.partition(":")
    if file.endswith(".py"):
        return _in_file(file, one)
    offered = _offered()
    if name not in offered:
        raise refuse_unknown("pass", name, (*PASSES, *offered))
    return _loaded(offered[name])


def entry_of(name: str) -> EntryPoint | None:
    """Return the entry point of a pass that another package brings; None for one of ours, or none at all."""
    return None if name in PASSES else _offered().get(name)


def execute(path: Path, what: str) -> ModuleType:
    """Return the module that a file of the user's makes, under a name of its own, so that files do not meet.

    Raises `UserError` with the line at which it raises; `what` says what it should hold.
    """
    if not path.is_file():
        raise UserError(f"{str(path)!r}: there is no such file (right: a Python file with {what})")
    name = f"mtia_emu_own_{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:8]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickles look for it
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever somebody's file raises
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = lines[-1] if lines else getattr(error, "lineno", None)
        raise UserError(
            f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {error}"
        ) from error
    return module


def _in_file(file: str, name: str) -> type[Pass]:
    """Return the pass of that name in a file, the only one without a name."""
    try:
        stat = os.stat(file)
        changed = stat.st_mtime_ns, stat.st_size
    except OSError:
        changed = (0, 0)
    classes = _passes_in(file, changed)
    if name:
        if name not in classes:
            raise refuse_unknown(f"pass of {file}", name, classes)
        return classes[name]
    if len(classes) != 1:
        names = ", ".join(f"{file}:{n}" for n in classes)
        right = (
            f"one of {names}"
            if classes
            else "a frozen dataclass derived from Pass, with fields that have defaults"
        )
        raise UserError(f"{file}: {len(classes)} passes are in it (right: {right})")
    return next(iter(classes.values()))


@cache
def _passes_in(file: str, changed: tuple[int, int]) -> dict[str, type[Pass]]:
    """Return the passes that a file defines, by name; it is executed once, until it is `changed`."""
    module = execute(Path(file), "a Pass")
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Pass)]
    own = [c for c in classes if c.__module__ == module.__name__]
    bare = [c for c in own if "__dataclass_params__" not in vars(c)]
    if bare:
        raise UserError(
            f"{file}: {bare[0].__name__} is no dataclass (right: @dataclass(frozen=True) above it)"
        )
    return {pass_name(c): c for c in own if not c.__name__.startswith("_")}


def foreign_names() -> list[str]:
    """Return the names of the passes that other packages bring and ours do not hide."""
    return sorted(set(_offered()) - set(PASSES))


def _offered() -> dict[str, EntryPoint]:
    """Return the entry points by name; of two packages that bring one name, the first in the alphabet."""
    entries = sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value), reverse=True)
    return {entry.name: entry for entry in entries}


@cache
def _loaded(entry: EntryPoint) -> type[Pass]:
    """Return the class behind an entry point; raise `UserError` where it is none, or cannot be imported."""
    where = f"pass {entry.name!r}, entry point {entry.value!r} of group {GROUP}"
    try:
        loaded = entry.load()
    except Exception as error:  # whatever importing somebody's package raises
        raise UserError(f"{where}: cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Pass) and is_dataclass(loaded)):
        raise UserError(f"{where}: {loaded!r} is not a pass (right: a frozen dataclass derived from Pass)")
    if pass_name(loaded) != entry.name:  # `Pass.spelling` must be read back
        raise UserError(f"{where}: the class is {loaded.__name__} (right: an entry {pass_name(loaded)!r})")
    return loaded
