"""Motifs that the packages of passes bring: entry points of the group `mtia_emu.motifs`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from mtia_emu.compiler.foreign import IN_FILE
from mtia_emu.compiler.passes import PASSES, Pass
from mtia_emu.compiler.plugins import entry_of

from ..errors import UserError
from ..testing.motifs import MOTIFS, Motif

GROUP = "mtia_emu.motifs"
OURS = ("mtia_emu", "mtia_emu.compiler", "mtia_emu.kernels")


def own_motifs(passes: Sequence[Pass]) -> tuple[str, ...]:
    """Return the names in `MOTIFS` of the motifs that the packages of some passes bring; list them there
    first.

    Those are the entry points of `mtia_emu.motifs` of a pass's distribution, and what modules of its package
    have listed by `testing.motif`. Raises `UserError` for an entry point that is no function, or cannot be
    imported.
    """
    names: dict[str, None] = {}
    for step in (step for step in passes if type(step) is not PASSES.get(step.name)):
        for entry in _beside(step.name):
            MOTIFS[entry.name] = _loaded(entry)
            names[entry.name] = None
        package = type(step).__module__.partition(".")[0]
        if package != __name__.partition(".")[0]:
            names |= {name: None for name, make in MOTIFS.items() if _package(make) == package}
    return tuple(names)


def digest(passes: Sequence[Pass]) -> str:
    """Return what tells these passes from others of their names: a digest of our code and of theirs.

    Theirs are the imported modules of their packages and of those that bring their motifs; of a file that the
    user names also those that lie beside it.
    """
    motifs = own_motifs(passes)
    content = hashlib.blake2b(digest_size=16)
    for file in sorted({*_ours(), *_theirs([*map(type, passes), *(MOTIFS[name] for name in motifs)])}):
        content.update(str(file).encode() + b"\0" + file.read_bytes())
    return content.hexdigest()


def _ours() -> Iterator[Path]:
    for name in OURS:
        root = Path(str(resources.files(name)))
        yield from (file for file in root.rglob("*") if file.suffix in (".py", ".toml"))


def _theirs(makers: Sequence[Callable[..., object]]) -> Iterator[Path]:
    """Yield the files of the modules from which some passes and motifs come, ours aside."""
    packages = {_package(make) for make in makers} - {OURS[0]}
    files = {
        name: Path(file)
        for name, module in list(sys.modules.items())
        if (file := getattr(module, "__file__", None))
    }
    folders = {file.parent for name, file in files.items() if name in packages and name.startswith(IN_FILE)}
    for name, file in files.items():
        if (name.partition(".")[0] in packages or file.parent in folders) and file.is_file():
            yield file.absolute()


def _package(make: Callable[..., object]) -> str:
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
        loaded = entry.load()
    except Exception as error:  # whatever importing somebody's package raises
        raise UserError(f"{where}: cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(loaded):
        raise UserError(f"{where}: {loaded!r} is no motif (right: a function of a testing.Grower)")
    motif: Motif = loaded
    return motif
