"""Choices of mappings kept on disk, found again by all that they depend on.

A choice is the place of a mapping among those that are ranked by estimate, and its text, by which it is had
without ranking them. Whatever the file says, a program is made of a mapping that its call can have: a text is
checked as one that a user fixes, and what is wrong is ranked anew. What of the chip a choice depends on is
noted while it is made (`memo`), so two chips that differ elsewhere have it in common.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Hashable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from .. import settings
from ..files import disk_cache
from ..machine.chip import Chip
from .memo import Memoise, known, noted, noting, unmemoised, values_of

T = TypeVar("T")
Chosen = tuple[int, str]  # the place of a mapping among those ranked, and its text or ""
FILE = "plans.sqlite"
RULES = (
    "compiler/lower",
    "engine",
    "kernels",
    "machine/units",
    "machine/drams",
    "machine/chip.py",
    "program",
    "reuse",
    "study/known_blocks.py",
    "study/tuning.py",
    "types",
)
ABOVE = ("compiler", "kernels")  # rooms that lie beside the others, and import as they do
MOST_CHOICES = 100_000  # the file is begun anew beyond that
MOST_PLACE = 1 << 16
MOST_TEXT, MOST_READS = 1 << 14, 64  # of the lists of keys that are looked at for one choice
WAIT_SECONDS = 2.0  # for another process that writes
SCHEMA = (
    "CREATE TABLE choices (key TEXT PRIMARY KEY, place INTEGER, text TEXT, proof TEXT)",
    "CREATE TABLE reads (what TEXT NOT NULL, paths TEXT NOT NULL, PRIMARY KEY (what, paths))",
)


class PlanCache:
    """Choices in an SQLite file that several processes may use at once.

    A file that is broken, of another form or cannot be written is no error: it is begun anew, or not used.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def find(self, what: str, chip: Chip) -> tuple[Chosen, tuple[str, ...]] | None:
        """Return a choice and the chip's keys that it depends on; None where none is for such a chip."""
        with self._open() as file:
            if file is None:
                return None
            query = "SELECT paths FROM reads WHERE what = ? AND length(paths) < ? LIMIT ?"
            for (text,) in file.execute(query, (what, MOST_TEXT, MOST_READS)).fetchall():
                paths = _paths(text)
                if not known(chip, paths):
                    continue
                query, key = "SELECT place, text, proof FROM choices WHERE key = ?", _key(what, chip, paths)
                row = file.execute(query, (key,)).fetchone()
                if row and _plain(row[:2]) and row[2] == _proof(key, row[:2]):
                    return row[:2], paths
        return None

    def keep(self, what: str, chip: Chip, paths: tuple[str, ...], chosen: Chosen) -> None:
        """Keep a choice that depends on these of the chip's keys."""
        with self._open() as file:
            if file is None:
                return
            if file.execute("SELECT count(*) FROM choices").fetchone()[0] >= MOST_CHOICES:
                file.execute("DELETE FROM choices")
                file.execute("DELETE FROM reads")
            file.execute("INSERT OR IGNORE INTO reads VALUES (?, ?)", (what, json.dumps(paths)))
            key = _key(what, chip, paths)
            row = (key, *chosen, _proof(key, chosen))
            file.execute("INSERT OR REPLACE INTO choices VALUES (?, ?, ?, ?)", row)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection | None]:
        """Give the file, in one transaction; None where it cannot be used."""
        try:
            file = _connect(self.file)
        except (sqlite3.Error, OSError):
            yield None
            return
        try:
            with file:
                yield file
        except sqlite3.OperationalError:  # another process keeps it, or the disk is full
            return
        except sqlite3.DatabaseError:
            _remove(self.file)
        finally:
            file.close()


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file, begun anew where it is not ours; nothing in it is trusted beyond two plain tables."""
    for _ in range(2):
        file = sqlite3.connect(path, timeout=WAIT_SECONDS)
        try:
            file.execute("PRAGMA trusted_schema = OFF")
            file.execute("PRAGMA synchronous = OFF")  # a choice that is lost is made again
            tables = file.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
            ).fetchall()
            if not tables:
                with file:
                    for line in SCHEMA:
                        file.execute(line.replace("TABLE", "TABLE IF NOT EXISTS", 1))
            if not tables or tuple(row[0] for row in tables) == SCHEMA:
                return file
        except sqlite3.OperationalError:
            file.close()
            raise
        except sqlite3.DatabaseError:
            pass
        file.close()
        _remove(path)
    raise OSError(f"{path} cannot be begun anew")


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).unlink()


def _paths(text: Any) -> tuple[str, ...]:
    """Return the dotted keys that a text lists, none where it is no list of words."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        paths = json.loads(text)
        if isinstance(paths, list) and all(isinstance(x, str) for x in paths):
            return tuple(paths)
    return ("",)


def _key(what: str, chip: Chip, paths: tuple[str, ...]) -> str:
    return _digest(repr((what, paths, values_of(chip, paths))))


def _plain(row: tuple[Any, Any]) -> bool:
    """Return whether a row is a place and a short text."""
    place, text = row
    placed = isinstance(place, int) and 0 <= place < MOST_PLACE
    return placed and isinstance(text, str) and len(text) < MOST_TEXT


def _proof(key: str, chosen: Chosen) -> str:
    """Return what tells a choice as it was kept from one with a bit off."""
    return _digest(repr((key, *chosen)))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@cache
def rules_digest() -> str:
    """Return a digest of the code that ranks, emits and times: a choice is by the rules of its time."""
    digest = hashlib.blake2b(digest_size=16)
    for name in RULES:
        package, _, inner = name.partition("/") if name.startswith(ABOVE) else ("", "", name)
        place = Path(str(resources.files(f"mtia_emu.{package}".rstrip(".")))) / inner
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in (f for f in files if f.suffix in (".py", ".toml")):
            digest.update(f"{name}/{file.name}".encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def remembered(kept: PlanCache, memoise: Memoise = unmemoised, deciding: Hashable = ()) -> Memoise:
    """Return a `Memoise` that also keeps choices on disk, in front of the one that is given.

    `deciding` are the options on which they depend.
    """

    def through(
        kind: str, key: Hashable, chip: Chip, work: Callable[[Chip], T], *, decides: bool = False
    ) -> T:
        if kind != "choice":
            return memoise(kind, key, chip, work, decides=decides)
        what = _digest(rules_digest() + repr((deciding, key)))
        return memoise(kind, key, chip, lambda c: _found(kept, what, c, work))

    return through


def _found(kept: PlanCache, what: str, chip: Chip, work: Callable[[Chip], Any]) -> Any:
    """Return the choice on disk, or make it and keep it; the chip's notes are as if it had been made."""
    hit = kept.find(what, chip)
    if hit is not None:
        chosen, paths = hit
        noting(chip, paths)
        return chosen
    notes: set[str] = set()
    chosen = work(noted(chip, notes))
    paths = tuple(sorted(notes))
    noting(chip, paths)
    kept.keep(what, chip, paths, chosen)
    return chosen


def default_cache() -> PlanCache | None:
    """Return the user's cache; None where it is switched off or has no folder that can be made."""
    if settings.integer(settings.TUNE_CACHE) == 0:
        return None
    folder = disk_cache.folder()
    return PlanCache(folder / FILE) if folder else None
