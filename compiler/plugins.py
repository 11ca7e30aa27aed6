"""Passes that other packages bring: entry points of the group `mtia_emu.passes`, by name."""

from __future__ import annotations

from dataclasses import is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from mtia_emu.errors import UserError, refuse_unknown

from .passes import PASSES, Pass

GROUP = "mtia_emu.passes"


def pass_named(name: str) -> type[Pass]:
    """Return the pass of that name, ours before others'; raise `UserError` with the nearest for none.

    A package is imported only when a pass of it is named.
    """
    if name in PASSES:
        return PASSES[name]
    offered = _offered()
    if name not in offered:
        raise refuse_unknown("pass", name, (*PASSES, *offered))
    return _loaded(offered[name])


def entry_of(name: str) -> EntryPoint | None:
    """Return the entry point of a pass that another package brings; None for one of ours, or none at all."""
    return None if name in PASSES else _offered().get(name)


def foreign_names() -> list[str]:
    """Return the names of the passes that other packages bring and ours do not hide."""
    return sorted(set(_offered()) - set(PASSES))


def _offered() -> dict[str, EntryPoint]:
    """Return the entry points by name; of two packages that bring one name, the first in the alphabet."""
    found = sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value), reverse=True)
    return {entry.name: entry for entry in found}


@cache
def _loaded(entry: EntryPoint) -> type[Pass]:
    """Return the class behind an entry point; raise `UserError` where it is none, or cannot be imported."""
    where = f"pass {entry.name!r}, entry point {entry.value!r} of group {GROUP}"
    try:
        found = entry.load()
    except Exception as error:  # whatever importing somebody's package raises
        raise UserError(f"{where}: cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Pass) and is_dataclass(found)):
        raise UserError(f"{where}: {found!r} is not a pass (right: a frozen dataclass derived from Pass)")
    if found.__name__.lower() != entry.name:  # `Pass.spelling` must be read back
        raise UserError(
            f"{where}: the class is {found.__name__} (right: an entry {found.__name__.lower()!r})"
        )
    return found
