"""Motifs that the packages of passes bring: entry points of the group `mtia_emu.motifs`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from ..compiler.passes import PASSES, Pass
from ..compiler.plugins import entry_of
from ..errors import UserError
from .motifs import MOTIFS, Motif

GROUP = "mtia_emu.motifs"


def own_motifs(passes: Sequence[Pass]) -> tuple[str, ...]:
    """Return the names in `MOTIFS` of the motifs that the packages of some passes bring; list them there
    first.

    Those are the entry points of `mtia_emu.motifs` of a pass's distribution, and what modules of its package
    have listed by `testing.motif`. Raises `UserError` for an entry point that is no function, or cannot be
    imported.
    """
    found: dict[str, None] = {}
    for step in (step for step in passes if type(step) is not PASSES.get(step.name)):
        for entry in _beside(step.name):
            MOTIFS[entry.name] = _loaded(entry)
            found[entry.name] = None
        package = type(step).__module__.partition(".")[0]
        if package != __name__.partition(".")[0]:
            found |= {name: None for name, make in MOTIFS.items() if _package(make) == package}
    return tuple(found)


def _package(make: Motif) -> str:
    return str(getattr(make, "__module__", "")).partition(".")[0]


def _beside(name: str) -> list[EntryPoint]:
    """Return the motifs of the distribution that brings a pass, by name."""
    origin = entry_of(name)
    if origin is None or origin.dist is None:
        return []
    mine = [e for e in entry_points(group=GROUP) if e.dist is not None and e.dist.name == origin.dist.name]
    return sorted(mine, key=lambda e: e.name)


def _loaded(entry: EntryPoint) -> Motif:
    where = f"motif {entry.name!r}, entry point {entry.value!r} of group {GROUP}"
    try:
        found = entry.load()
    except Exception as error:  # whatever importing somebody's package raises
        raise UserError(f"{where}: cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UserError(f"{where}: {found!r} is no motif (right: a function of a testing.Grower)")
    made: Motif = found
    return made
